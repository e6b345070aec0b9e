"""The tool `knowledge_search`: passages of documents, each with where it stands.

What is slow (reading what has changed, the vector of a query) is done before a call's transaction
is opened; the search itself is part of it where documents are kept in a database.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

from heartbit.core.knowledge import DEFAULT_LIMIT, MAX_LIMIT, Passage
from heartbit.core.memory import Embedding
from heartbit.core.messages import Json
from heartbit.core.tools import ToolOutput, ToolSpec
from heartbit.errors import HeartbitError
from heartbit.tools.base import Tool, ToolContext
from heartbit.tools.builtin.text import encodable, printable
from heartbit.tools.threads import in_thread

NAME = "knowledge_search"
SPEC = ToolSpec(
    name=NAME,
    description=(
        "Search the documents of the knowledge base, by words and, where that is set up, by "
        "meaning. Gives the passages that fit best, each under its place, for example "
        "`guide/setup.md:12-40 (Setup > Database)`: name the place of what you quote or rely on."
    ),
    input_schema={
        "type": "object",
        "properties": {
            "query": {
                "type": "string",
                "minLength": 1,
                "description": "What is looked for: the words that matter, or a question.",
            },
            "source_filter": {
                "type": "string",
                "description": "Only documents whose names begin like this, for example `docs/`.",
            },
            "limit": {
                "type": "integer",
                "minimum": 1,
                "maximum": MAX_LIMIT,
                "description": f"The most passages to give (default {DEFAULT_LIMIT}).",
            },
        },
        "required": ["query"],
        "additionalProperties": False,
    },
    ref=f"builtin:{NAME}",
    effect="transactional",
    inline=True,
)


class Searchable(Protocol):
    """Documents that can be searched."""

    @property
    def has_tables(self) -> bool:
        """Whether a search can be part of a transaction."""

    async def ready(self, query: str) -> Embedding | None:
        """Have the documents indexed, and give the vector of a query if it has one."""

    def search(
        self,
        query: str,
        *,
        source_filter: str | None,
        limit: int,
        embedding: Embedding | None,
        connection: Any = None,
    ) -> Sequence[Passage]:
        """The best passages, the best first; blocks."""

    def sources(self, connection: Any = None) -> Sequence[str]:
        """The names of all documents; blocks."""


class KnowledgeTool:
    """The tool over some documents."""

    def __init__(self, knowledge: Searchable, spec: ToolSpec = SPEC) -> None:
        self.spec = spec
        self._knowledge = knowledge

    async def call(self, arguments: Json, context: ToolContext) -> ToolOutput:
        """Search on validated arguments."""
        try:
            embedding = await self._knowledge.ready(arguments["query"])
        except HeartbitError as error:
            return ToolOutput(content=error.message, is_error=True)
        return await self._found(arguments, context, embedding)

    async def _found(
        self, arguments: Json, context: ToolContext, embedding: Embedding | None
    ) -> ToolOutput:
        search = partial(_answer, self._knowledge, arguments, embedding, context.connection)
        return ToolOutput(content=encodable(await in_thread(search, self.spec.name)))


class TransactionalKnowledgeTool(KnowledgeTool):
    """The same on a store with tables: in the transaction that its result is kept in."""

    async def prepare_call(self, arguments: Json, context: ToolContext) -> Embedding | None:
        """Do what is slow before the transaction is opened."""
        return await self._knowledge.ready(arguments["query"])

    async def call(self, arguments: Json, context: ToolContext) -> ToolOutput:
        """Search on validated arguments."""
        return await self._found(arguments, context, context.prepared)


def knowledge_tool(knowledge: Searchable) -> Tool:
    """The tool over some documents."""
    made = TransactionalKnowledgeTool if knowledge.has_tables else KnowledgeTool
    return made(knowledge)


def _answer(
    knowledge: Searchable, arguments: Json, embedding: Embedding | None, connection: Any
) -> str:
    found = knowledge.search(
        arguments["query"],
        source_filter=arguments.get("source_filter"),
        limit=arguments.get("limit", DEFAULT_LIMIT),
        embedding=embedding,
        connection=connection,
    )
    if found:
        return shown(found)
    return _nothing(knowledge.sources(connection), arguments.get("source_filter"))


def shown(found: Sequence[Passage]) -> str:
    """Passages as a model reads them."""
    count = "1 passage" if len(found) == 1 else f"{len(found)} passages"
    blocks = (
        f"[{rank}] {printable(each.citation)}\n{each.text}" for rank, each in enumerate(found, 1)
    )
    return "\n\n".join([f"{count} found.", *blocks])


def _nothing(sources: Sequence[str], source_filter: str | None) -> str:
    if not sources:
        return "Nothing found: no documents are indexed. `heartbit knowledge index` does that."
    if source_filter and not any(each.startswith(source_filter) for each in sources):
        return (
            f"Nothing found: no document's name begins with {source_filter!r}. There are "
            f"{_some(sources)}."
        )
    return "Nothing found: no passage has any of these words. Try others that say the same."


def _some(sources: Sequence[str]) -> str:
    names = ", ".join(printable(each) for each in sources[:10])
    return f"{names} and {len(sources) - 10:,} more" if len(sources) > 10 else names
