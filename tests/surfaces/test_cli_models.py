"""`heartbit models pull`, with a stand-in for fastembed: no hub of models is asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command_line import Done, heartbit

# Every one of these starts programs.
pytestmark = pytest.mark.slow

# Speaks as fastembed does: it raises for a model that it does not know, or may not download.
FASTEMBED = """
import pathlib

class TextEmbedding:
    def __init__(self, model_name, cache_dir=None, local_files_only=False, **more):
        there = pathlib.Path(cache_dir) / model_name.replace("/", "--")
        if model_name == "nobody/knows":
            raise ValueError(f"Model {model_name} is not supported in TextEmbedding. See the list.")
        if model_name == "nobody/reaches":
            raise OSError("The hub cannot be\\nreached.")
        if local_files_only and not there.exists():
            raise ValueError("Could not load model from any source.")
        there.mkdir(parents=True, exist_ok=True)
"""


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Where the stand-in is found."""
    package = tmp_path / "library" / "fastembed"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(FASTEMBED)
    return package.parent


def pull(library: Path, *arguments: str, config: str = "") -> Done:
    """The command, in a directory with a configuration."""
    folder = library.parent
    (folder / "heartbit.toml").write_text(config)
    env = {"PYTHONPATH": str(library), "XDG_CACHE_HOME": str(folder / "cache")}
    return heartbit("models", "pull", *arguments, cwd=folder, env=env)


def test_the_default_model_is_kept_where_the_next_start_finds_it(library: Path) -> None:
    """Not in a directory that is emptied when the machine starts."""
    done = pull(library)
    assert (0, "") == (done.code, done.out), done.err
    assert ["sentence-transformers/all-MiniLM-L6-v2 is on this machine"] == done.notes
    [kept] = (library.parent / "cache/heartbit/models").iterdir()
    assert "sentence-transformers--all-MiniLM-L6-v2" == kept.name


def test_the_configured_model_goes_where_it_is_configured_to(library: Path) -> None:
    """So that the worker, with the same file, finds it."""
    table = '[memory]\ntype = "in_memory"\n[memory.embedding]\nprovider = "local"\n'
    done = pull(library, "--json", config=f'{table}model = "a/b"\ncache_dir = "models"\n')
    assert {"model": "a/b"} == json.loads(done.out)
    assert (library.parent / "models" / "a--b").is_dir()


def test_a_model_of_another_provider_is_no_model_to_fetch(library: Path) -> None:
    """A model can be fetched before it is configured."""
    table = '[memory]\ntype = "in_memory"\n[memory.embedding]\nprovider = "openai"\n'
    done = pull(library, "--json", config=f'{table}model = "text-embedding-3-large"\n')
    assert "sentence-transformers/all-MiniLM-L6-v2" == json.loads(done.out)["model"]
    assert {"model": "c/d"} == json.loads(pull(library, "--json", "c/d").out)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("nobody/knows", "fastembed has no model 'nobody/knows'"),
        ("nobody/reaches", "could not be fetched: OSError: The hub cannot be reached."),
    ],
)
def test_what_cannot_be_fetched_is_one_sentence(library: Path, model: str, sentence: str) -> None:
    """Exit code 2: something is to be configured differently."""
    done = pull(library, model)
    assert (2, "") == (done.code, done.out)
    [note] = done.notes
    assert sentence in note


def test_a_run_without_the_model_names_the_command_that_fetches_it(library: Path) -> None:
    """In the log: memories are found by their words until then."""
    table = '[memory]\ntype = "in_memory"\n[memory.embedding]\nprovider = "local"\nmodel = "a/b"\n'
    script = "[provider]\nname = 'scripted'\nmodel = 'remembering:reply'\n"
    agent = "[[agents]]\nname = 'a'\ndescription = 'A.'\nsystem_prompt = 'A.'\n"
    folder = library.parent
    (folder / "heartbit.toml").write_text(script + agent + table)
    (folder / "remembering.py").write_text(
        "from heartbit.providers.scripted import call\n"
        "def reply(request):\n"
        "    said = len(request.messages) > 1\n"
        "    return 'Done.' if said else call('memory_store', content='A fact.')\n"
    )
    env = {"PYTHONPATH": f"{library}:{folder}", "XDG_CACHE_HOME": str(folder / "cache")}
    done = heartbit("run", "Remember it, please", cwd=folder, env=env)
    assert 0 == done.code
    assert "`heartbit models pull a/b`" in done.err
