"""`heartbit knowledge`: documents, from the command line of the person who runs the agents."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command_line import Done, Terminal, configure, heartbit, modules_after
from tests.support.model_server import Call, ModelServer, Reply

# Every one of these starts programs.
pytestmark = pytest.mark.slow

CONFIG = """
[[agents]]
name = "reader"
description = "Reads."
system_prompt = "You read."
[knowledge]
[[knowledge.sources]]
type = "glob"
pattern = "docs/*"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a configuration and two documents."""
    (tmp_path / "heartbit.toml").write_text(CONFIG)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# Leases\n\nA lease ends.\n")
    (tmp_path / "docs" / "b.md").write_text("# Chords\n\nA chord wakes.\n")
    return tmp_path


def knowledge(folder: Path, *arguments: str, database: str | None = None) -> Done:
    """The command, with a database in the environment or without one."""
    env = {"HEARTBIT_DATABASE_URL": database} if database else {}
    return heartbit("knowledge", *arguments, cwd=folder, env=env)


def test_an_index_in_a_database_is_searched_and_listed(folder: Path, postgres: str) -> None:
    """And stays as it is until it is made again."""
    done = knowledge(folder, "index", database=postgres)
    assert (0, "2 documents, 2 added, 2 chunks written\n", "") == (done.code, done.out, done.err)
    (folder / "docs" / "a.md").unlink()
    found = knowledge(folder, "search", "when", "does", "a", "lease", "end", database=postgres)
    assert found.out.startswith("docs/a.md:1-3 (Leases)\n# Leases\n\nA lease ends.\n")
    report = json.loads(knowledge(folder, "index", "--json", database=postgres).out)
    assert (1, 1, []) == (report["unchanged"], report["removed"], report["problems"])
    found = knowledge(folder, "search", "--json", "lease", database=postgres)
    assert {"passages": []} == json.loads(found.out)
    [left] = json.loads(knowledge(folder, "sources", "--json", database=postgres).out)["documents"]
    assert ("docs/b.md", "b.md", 1) == (left["source"], left["title"], left["chunks"])


def test_without_a_database_documents_are_read_for_each_command(folder: Path) -> None:
    """Which is said where somebody might expect an index to stay."""
    (folder / "docs" / "p.png").write_bytes(b"\0")
    done = knowledge(folder, "index")
    assert (0, "2 documents, 2 added, 2 chunks written\n") == (done.code, done.out)
    assert [
        "warning: docs/p.png: It is a binary file.",
        "warning: the index ends with this command, because there is no database to keep it in; "
        "set url in [database]",
    ] == done.err.splitlines()
    found = knowledge(folder, "search", "chord", "--source", "docs/b", "--limit", "1", "--json")
    [passage] = json.loads(found.out)["passages"]
    assert ("docs/b.md:1-3 (Chords)", 1.0) == (passage["citation"], passage["relevance"])
    lines = knowledge(folder, "sources").out.splitlines()
    assert ["1 chunk  docs/a.md", "1 chunk  docs/b.md"] == [line[-18:].strip() for line in lines]


def test_nothing_found_is_no_failure(folder: Path) -> None:
    """The command could answer."""
    done = knowledge(folder, "search", "xyzzy")
    assert (0, "") == (done.code, done.out)
    assert "nothing found" in done.err


@pytest.mark.parametrize(
    ("text", "arguments", "code", "said"),
    [
        ("", ("index",), 2, "There is no [knowledge] in the configuration"),
        ("[knowledge]\nchunk_size = 0", ("index",), 2, "'chunk_size' in [knowledge] must be"),
        (CONFIG, ("search",), 2, "Missing argument"),
        (CONFIG, ("search", "--limit", "21", "x"), 2, "21 is not in the range"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    tmp_path: Path, text: str, arguments: tuple[str, ...], code: int, said: str
) -> None:
    """With the exit code of wrong usage."""
    (tmp_path / "heartbit.toml").write_text(text)
    done = knowledge(tmp_path, *arguments)
    assert (code, 1) == (done.code, len(done.err.splitlines()))
    assert said in done.err


def test_tables_that_are_missing_are_told_with_the_remedy(
    folder: Path, make_database: Callable[[], str]
) -> None:
    """Like everywhere."""
    done = knowledge(folder, "index", database=make_database())
    assert 1 == done.code
    assert "heartbit migrate" in done.err


def test_a_broker_that_is_away_is_told(folder: Path, postgres: str) -> None:
    """Nothing was indexed, and nothing waits."""
    env = {"HEARTBIT_DATABASE_URL": postgres, "CELERY_BROKER_URL": "redis://127.0.0.1:9/0"}
    done = heartbit("knowledge", "index", cwd=folder, env=env)
    assert 1 == done.code
    assert "The broker cannot be reached" in done.err


def test_a_person_at_a_terminal_sees_how_far_it_is(tmp_path: Path) -> None:
    """In a run, before the first search."""
    (tmp_path / "docs").mkdir()
    for number in range(120):
        (tmp_path / "docs" / f"{number}.md").write_text("lease")
    search = Call(id="s", name="knowledge_search", arguments={"query": "lease", "limit": 1})
    with ModelServer([Reply(calls=(search,)), Reply(text="Done.")]) as server:
        configure(tmp_path, server.url, more=CONFIG[CONFIG.index("[knowledge]") :])
        with Terminal("run", "When?", cwd=tmp_path) as terminal:
            assert 0 == terminal.wait()
    assert "knowledge: 50 of 120 documents" in terminal.screen
    assert "knowledge: 120 of 120 documents" in terminal.screen


def test_a_search_in_this_process_imports_no_broker(folder: Path) -> None:
    """A run with [knowledge] and without a database has neither driver nor Celery."""
    with ModelServer([Reply(text="Done.")]) as server:
        configure(folder, server.url, more=CONFIG[CONFIG.index("[knowledge]") :])
        loaded = modules_after("run", "Go on", cwd=folder)
    assert set() == loaded & {"celery", "psycopg", "trafilatura", "lxml", "pypdf", "numpy"}


def test_indexing_shows_how_far_it_is_to_whoever_looks(folder: Path) -> None:
    """And what a program reads has none of it."""
    for number in range(120):
        (folder / "docs" / f"{number}.md").write_text(f"# Page {number}\n\nWord{number}.\n")
    with Terminal("knowledge", "index", cwd=folder) as terminal:
        terminal.wait_for("indexing")
        terminal.wait_for("100%")
        assert 0 == terminal.wait()
    done = knowledge(folder, "index")
    assert "indexing" not in done.out + done.err
