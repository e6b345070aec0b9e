"""knowledge_search: passages with their places, for a model that has to cite."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import jsonschema
import psycopg
import pytest

from heartbit.core.chunking import Chunk
from heartbit.core.memory import Embedding
from heartbit.core.tool_profile import visible
from heartbit.errors import HeartbitError, NetworkFailure
from heartbit.knowledge.base import Knowledge
from heartbit.knowledge.index import Index
from heartbit.knowledge.report import Report
from heartbit.knowledge.sources import GlobSource
from heartbit.stores.database import Database
from heartbit.stores.knowledge.in_memory import InMemoryKnowledge
from heartbit.stores.knowledge.postgres import PostgresKnowledge
from heartbit.testing import HashEmbedder
from heartbit.tools.base import ToolContext
from heartbit.tools.knowledge import SPEC, TransactionalKnowledgeTool, knowledge_tool
from tests.support.knowledge import document

JOURNAL = Chunk(
    index=0,
    text="The journal is append-only.",
    heading="Architecture > Journal",
    first_line=12,
    last_line=40,
)


def search(knowledge: Knowledge, **arguments: Any) -> str:
    """The text of one call."""
    jsonschema.validate(arguments, SPEC.input_schema)
    output = asyncio.run(knowledge_tool(knowledge).call(arguments, ToolContext()))
    assert not output.is_error
    return output.content


def with_documents(*documents: Any) -> Knowledge:
    """A knowledge base with these documents."""
    store = InMemoryKnowledge()
    store.replace_documents(documents)
    return Knowledge(store)


def test_a_passage_is_given_under_its_place() -> None:
    """Rank, source, lines, headings, and then the text itself."""
    knowledge = with_documents(
        document("docs/architecture.md", chunks=(JOURNAL,)), document("b.md", "A journal, once.")
    )
    expected = (
        "2 passages found.\n\n"
        "[1] docs/architecture.md:12-40 (Architecture > Journal)\nThe journal is append-only.\n\n"
        "[2] b.md:1\nA journal, once."
    )
    assert expected == search(knowledge, query="append-only journal")
    assert search(knowledge, query="journal", source_filter="b").startswith("1 passage found.")
    assert search(knowledge, query="journal", limit=1).startswith("1 passage found.")


def test_what_has_no_lines_is_cited_without() -> None:
    """A page of a PDF, a part of a web page."""
    chunk = Chunk(index=0, text="lease", heading="page 3", first_line=0, last_line=0)
    assert "[1] a.pdf (page 3)\n" in search(
        with_documents(document("a.pdf", chunks=(chunk,))), query="lease"
    )


def test_nothing_found_is_a_clear_sentence() -> None:
    """No documents, none of that name, or none with these words."""
    knowledge = with_documents(document("a.md", "lease"))
    assert "no documents are indexed" in search(with_documents(), query="x")
    assert "begins with 'docs/'. There are a.md." in search(
        knowledge, query="lease", source_filter="docs/"
    )
    assert "no passage has any of these words" in search(knowledge, query="chord")
    assert "Nothing found" in search(knowledge, query=" \0\ud800%_")


def test_text_of_a_document_never_breaks_the_wire() -> None:
    """Half characters and control characters in texts, headings and names."""
    chunk = Chunk(index=0, text="lease \ud800 \0", heading="a\nb", first_line=1, last_line=1)
    said = search(with_documents(document("a\n[9] b.md", chunks=(chunk,))), query="lease")
    said.encode()
    assert "[1] a?[9] b.md:1 (a?b)\n" in said


@pytest.mark.parametrize(
    "wrong", [{}, {"query": ""}, {"query": "x", "limit": 21}, {"query": "x", "limit": 0}]
)
def test_arguments_out_of_range_are_refused_by_the_schema(wrong: dict[str, Any]) -> None:
    """Before the tool is called."""
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, SPEC.input_schema)


def test_the_model_is_shown_it_in_the_standard_profile() -> None:
    """It belongs to heartbit, and writes nothing of its own."""
    assert ((SPEC,), ()) == (visible((SPEC,), "standard"), visible((SPEC,), "conversational"))


class Failing(HashEmbedder):
    """A server that is away."""

    async def embed(self, texts: Any, kind: Any = "document") -> list[Embedding]:
        raise NetworkFailure("The provider could not be reached.")


def test_without_its_vector_a_query_is_searched_by_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With a line in the log, and no error."""
    store = InMemoryKnowledge()
    store.replace_documents([document("a.md", "lease")])
    with caplog.at_level(logging.WARNING):
        assert "[1] a.md:1" in search(Knowledge(store, embedder=Failing()), query="lease")
    assert "by words only" in caplog.text


def test_a_question_is_embedded_as_one(tmp_path: Path) -> None:
    """Some models want to know."""
    kinds = []

    class Noting(HashEmbedder):
        async def embed(self, texts: Any, kind: Any = "document") -> list[Embedding]:
            kinds.append(kind)
            return await super().embed(texts, kind)

    (tmp_path / "a.md").write_text("lease")
    store, embedder = InMemoryKnowledge(), Noting()
    made = Index(store, [GlobSource("*.md")], root=tmp_path, embedder=embedder)
    search(Knowledge(store, index=made, embedder=embedder), query="lease")
    assert ["document", "query"] == kinds


def test_many_searches_at_once_wait_for_one_indexing(tmp_path: Path) -> None:
    """And whoever gives up waiting does not end it for the others."""
    (tmp_path / "a.md").write_text("lease")
    store, reports = InMemoryKnowledge(), []
    made = Index(store, [GlobSource("*.md")], root=tmp_path)
    knowledge = Knowledge(store, index=made, on_report=reports.append)

    async def run() -> list[Any]:
        impatient = asyncio.create_task(knowledge.ready("x"))
        others = [asyncio.create_task(knowledge.ready("x")) for _ in range(5)]
        await asyncio.sleep(0)
        impatient.cancel()
        return await asyncio.gather(*others)

    assert [None] * 5 == asyncio.run(run())
    assert [Report(added=1, chunks=1)] == reports


def test_an_indexing_that_failed_is_tried_again_by_the_next_search(tmp_path: Path) -> None:
    """The model gets one sentence meanwhile."""
    (tmp_path / "a.md").write_text("lease")
    store = InMemoryKnowledge()
    made = Index(store, [GlobSource("*.md")], root=tmp_path)
    knowledge = Knowledge(store, index=made)
    original, failures = store.replace_documents, [HeartbitError("The database is away.")]

    def once(documents: Any) -> None:
        if failures:
            raise failures.pop()
        original(documents)

    store.replace_documents = once  # type: ignore[method-assign]

    async def run() -> list[str]:
        tool = knowledge_tool(knowledge)
        arguments = {"query": "lease"}
        return [(await tool.call(arguments, ToolContext())).content for _ in range(2)]

    first, second = asyncio.run(run())
    assert "The database is away." == first
    assert "[1] a.md:1" in second


def test_with_tables_a_search_is_part_of_the_calls_transaction(postgres: str) -> None:
    """What is slow is done before; the search sees what the transaction sees."""
    store = PostgresKnowledge(Database(postgres, pool_size=1))
    tool = knowledge_tool(Knowledge(store, embedder=HashEmbedder()))
    assert isinstance(tool, TransactionalKnowledgeTool)
    arguments = {"query": "lease"}
    prepared = asyncio.run(tool.prepare_call(arguments, ToolContext()))
    [expected] = asyncio.run(HashEmbedder().embed(["lease"]))
    assert expected == prepared
    with psycopg.connect(postgres) as connection:
        store.bound_to(connection).replace_documents([document("a.md", "lease")])
        context = ToolContext(connection=connection, prepared=prepared)
        assert "[1] a.md:1" in asyncio.run(tool.call(arguments, context)).content
        connection.rollback()
    store.close()
