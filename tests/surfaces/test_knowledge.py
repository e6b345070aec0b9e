"""Agents that read, as a person configures them: answers with citations that can be checked."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

import pytest

from heartbit.config import Config, load
from heartbit.wiring import open_orchestrator
from tests.support.command_line import configure, heartbit
from tests.support.model_server import Call, ModelServer, Recorded, Reply
from tests.support.parity import Asked
from tests.support.repository import ROOT

KNOWLEDGE = """
[workspace]
root = "{root}"
[knowledge]
[[knowledge.sources]]
type = "glob"
pattern = "docs/**/*.md"
[[knowledge.sources]]
type = "file"
path = "README.md"
"""
QUESTIONS = {
    "What happens to an at_most_once call whose worker was lost?": "docs/how-to/effects.md",
    "How are schedules with cron expressions started by beat?": "docs/how-to/schedules.md",
    "How does somebody approve or deny the calls of an approval?": "docs/how-to/approvals.md",
}
FOUND = re.compile(
    r"^\[\d+\] (\S+?):(\d+)(?:-(\d+))?(?: \([^\n]*\))?\n(.*?)(?=\n\n\[\d+\] |\Z)", re.M | re.S
)


def model(request: Recorded) -> Reply:
    """Searches for the prompt, and answers with sentences of what was found and nothing else."""
    asked = Asked(request.json)
    if asked.turn == 1:
        prompt = str(request.json["messages"][0]["content"])
        return Reply(calls=(Call(id="s", name="knowledge_search", arguments={"query": prompt}),))
    quotes = [
        f'"{longest(text)}" {source}:{first}-{last or first}'
        for source, first, last, text in FOUND.findall(asked.last)
    ]
    return Reply(text="\n".join(quotes) or asked.last)


def longest(text: str) -> str:
    """The longest line of a passage: what the answer quotes."""
    return max((line.strip() for line in text.splitlines()), key=len)


def answer(url: str, root: Path, question: str, tmp_path: Path, more: str = "") -> str:
    """What the agent says."""
    configure(tmp_path, url, more=KNOWLEDGE.format(root=root) + more)
    done = heartbit("run", question, cwd=tmp_path)
    assert 0 == done.code, done.err
    return done.out


def checked(said: str, root: Path) -> list[str]:
    """The sources that an answer cites, each of which says what is quoted, in the lines given."""
    cited = re.findall(r'^"(.*)" (\S+):(\d+)-(\d+)$', said, re.MULTILINE)
    for quote, source, first, last in cited:
        lines = (root / source).read_text().split("\n")[int(first) - 1 : int(last)]
        assert quote in "\n".join(lines), (quote, source, first, last)
    return [source for _, source, *_ in cited]


@pytest.mark.slow
def test_answers_about_the_projects_own_docs_cite_lines_that_say_so(tmp_path: Path) -> None:
    """Deleting the file that is cited removes the citation, once it is looked for again."""
    root = tmp_path / "project"
    shutil.copytree(ROOT / "docs", root / "docs")
    shutil.copy(ROOT / "README.md", root)
    with ModelServer(model) as server:
        for question, source in QUESTIONS.items():
            said = answer(server.url, root, question, tmp_path)
            cited = checked(said, root)
            assert 5 == len(cited)
            assert source in cited
        (root / source).unlink()
        assert source not in checked(answer(server.url, root, question, tmp_path), root)


@pytest.mark.slow
def test_a_persisted_index_forgets_a_file_that_was_deleted(tmp_path: Path, postgres: str) -> None:
    """The same with documents that are kept in PostgreSQL from run to run."""
    root = tmp_path / "project"
    root.mkdir()
    (root / "README.md").write_text("# Leases\n\nA lease ends after fifteen seconds.\n")
    (root / "docs").mkdir()
    (root / "docs" / "a.md").write_text("# Old\n\nA lease ends after a minute.\n")
    database = f'[database]\nurl = "{postgres}"\n'
    with ModelServer(model) as server:
        said = answer(server.url, root, "When does a lease end?", tmp_path, database)
        assert {"README.md", "docs/a.md"} == set(checked(said, root))
        (root / "docs" / "a.md").unlink()
        said = answer(server.url, root, "When does a lease end?", tmp_path, database)
        assert ["README.md"] == checked(said, root)


def test_both_stores_make_the_same_requests(tmp_path: Path, postgres: str) -> None:
    """One table switches the store and nothing else."""
    bodies = []
    for database in ("", f'[database]\nurl = "{postgres}"\n'):
        with ModelServer(model) as server:
            configure(tmp_path, server.url, more=KNOWLEDGE.format(root=ROOT) + database)
            config = load(tmp_path / "heartbit.toml", {}).config

            async def ask(config: Config = config) -> None:
                async with open_orchestrator(config) as orchestrator:
                    await orchestrator.run("How are leases renewed?")

            asyncio.run(ask())
            bodies.append([request.json for request in server.requests])
    assert bodies[0] == bodies[1]


def test_what_is_wrong_with_a_source_is_told_once_and_keeps_nothing_else_out(
    tmp_path: Path,
) -> None:
    """The run goes on with the documents that can be read."""
    (tmp_path / "README.md").write_text("A lease ends.")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "picture.md").write_bytes(b"\0\1\2\0")
    with ModelServer(model) as server:
        configure(tmp_path, server.url, more=KNOWLEDGE.format(root=tmp_path))
        done = heartbit("run", "When does a lease end?", cwd=tmp_path)
    assert ["README.md"] == checked(done.out, tmp_path)
    assert 1 == done.err.count("warning: knowledge: docs/picture.md: It is a binary file.")


def test_without_documents_the_model_is_told_so(tmp_path: Path) -> None:
    """A clear sentence, no error."""
    with ModelServer(model) as server:
        configure(tmp_path, server.url, more="[knowledge]\n")
        done = heartbit("run", "Anything?", cwd=tmp_path)
    assert "Nothing found: no documents are indexed." in done.out


@pytest.mark.parametrize("configured", [True, False])
def test_the_tool_is_there_only_when_it_is_configured(tmp_path: Path, configured: bool) -> None:
    """And then for every agent."""
    with ModelServer([Reply(text="x")]) as server:
        configure(tmp_path, server.url, more="[knowledge]\n" if configured else "")
        heartbit("run", "Anything?", cwd=tmp_path)
    tools = [each["name"] for each in server.requests[0].json.get("tools", [])]
    assert configured == ("knowledge_search" in tools)
