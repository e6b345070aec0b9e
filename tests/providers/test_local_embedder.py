"""Embeddings of a model on this machine, with a stand-in for fastembed: no weights are at hand."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from heartbit.core.memory import Embedding
from heartbit.errors import ConfigError
from heartbit.providers.embedder import TextKind
from heartbit.providers.local_embedder import LocalEmbedder

# As fastembed 0.9 does: a directory is taken as it is, or refused for what is missing in it.
FASTEMBED = """
import pathlib

class TextEmbedding:
    def __init__(self, model_name, cache_dir, local_files_only, specific_model_path=None):
        assert local_files_only
        folder = pathlib.Path(specific_model_path or cache_dir)
        if specific_model_path and not (folder / "tokenizer.json").exists():
            raise ValueError(f"Could not find tokenizer.json in {folder}")
        if not specific_model_path and not (folder / "models--kept").exists():
            raise ValueError("Could not load model from any source.")

    def passage_embed(self, texts, batch_size):
        return ([float(len(text)), 0] for text in texts)

    def query_embed(self, texts, batch_size):
        return ([0, float(len(text))] for text in texts)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty directory for models; the stand-in can be imported."""
    package = tmp_path / "library" / "fastembed"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(FASTEMBED)
    monkeypatch.syspath_prepend(str(package.parent))
    yield tmp_path
    sys.modules.pop("fastembed", None)


def embedded(folder: Path, *texts: str, kind: TextKind = "document") -> list[Embedding]:
    """What a model in a directory makes of some texts."""
    return asyncio.run(LocalEmbedder(model="a/b", cache_dir=str(folder)).embed(texts, kind))


@pytest.mark.parametrize("weights", ["model.onnx", "onnx/model.onnx"])
def test_a_directory_with_the_files_of_a_model_is_a_model(folder: Path, weights: str) -> None:
    """Whichever way its hub lays them out."""
    (folder / weights).parent.mkdir(exist_ok=True)
    (folder / weights).touch()
    (folder / "tokenizer.json").touch()
    found = embedded(folder, "abc", "d")
    assert [("a/b", (3.0, 0.0)), ("a/b", (1.0, 0.0))] == [(e.model, e.vector) for e in found]


def test_a_question_is_embedded_as_a_question(folder: Path) -> None:
    """Some models put another instruction before it."""
    (folder / "models--kept").touch()
    [found] = embedded(folder, "abc", kind="query")
    assert (0.0, 3.0) == found.vector


def test_what_is_missing_beside_the_weights_is_told(folder: Path) -> None:
    """Fetching the model would not help: the directory is somebody's own."""
    (folder / "model.onnx").touch()
    with pytest.raises(ConfigError) as caught:
        embedded(folder, "abc")
    assert f"The embedding model in {folder} cannot be used: " in str(caught.value)
    assert "Could not find tokenizer.json" in str(caught.value)


def test_a_model_that_is_not_there_is_one_sentence_with_the_command_that_fetches_it(
    folder: Path,
) -> None:
    """A worker downloads nothing by itself."""
    with pytest.raises(ConfigError, match="fetch it with `heartbit models pull a/b`"):
        embedded(folder, "abc")


def test_no_texts_need_no_model(folder: Path) -> None:
    """Nor are they sent to it."""
    assert [] == embedded(folder)
