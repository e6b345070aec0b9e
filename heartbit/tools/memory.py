"""The tools with which agents remember: five for an agent's own memories, two for shared ones.

Whose memories are meant is in the context of the call and never in its arguments, so that no agent
can ask for those of another user. With a database, what a tool writes is kept in the transaction
that also keeps its result; vectors are computed before that is opened.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from heartbit.core.consolidation import LINK_OVERLAP, merged, overlap
from heartbit.core.memory import (
    Embedding,
    Memory,
    MemoryQuery,
    Namespace,
    Recalled,
    Weights,
    highest,
    memory_id,
)
from heartbit.core.messages import Json
from heartbit.core.tools import ToolOutput, ToolSpec
from heartbit.errors import ConfigError, MemoryStoreError, ProviderError, ToolError
from heartbit.providers.embedder import Embedder, TextKind
from heartbit.stores.memories.base import MemoryStore, NewMemory
from heartbit.tools.base import Tool, ToolContext
from heartbit.tools.memory_specs import MEMORY_SPECS
from heartbit.tools.threads import in_thread

SHOWN_CHARACTERS = 1_000
RELATED = 20
SHARED_LEVEL = "internal"
SHARED = "shared"
_ONE = ("category", "summary", "importance", "confidentiality")
_SEVERAL = ("tags", "keywords")
_STAYS = (*_ONE, *_SEVERAL, "memory_type", "related_ids", "source_ids")

_logger = logging.getLogger("heartbit.memories")


@dataclass(frozen=True, kw_only=True, slots=True)
class Memories:
    """Where an agent's memories are, and how they are found.

    After memories that are together as important as `reflection_threshold` an agent is told that
    it is time to reflect; None never tells. `consolidate_on_exit`: when a run of it has succeeded,
    one memory takes the place of several that belong together.
    """

    store: MemoryStore
    embedder: Embedder | None = None
    weights: Weights = field(default_factory=Weights)
    reflection_threshold: int | None = None
    consolidate_on_exit: bool = False

    async def embedding(self, text: str, kind: TextKind) -> Embedding | None:
        """The vector of a text; None, with a line in the log, if it cannot be had."""
        return (await self.embeddings([text], kind))[0] if text.strip() else None

    async def embeddings(self, texts: Sequence[str], kind: TextKind) -> list[Embedding | None]:
        """The vectors of some texts; None for all of them, with a line in the log, likewise."""
        if self.embedder is None or not texts:
            return [None] * len(texts)
        try:
            return [*await self.embedder.embed(texts, kind)]
        except (ProviderError, ConfigError) as error:
            _logger.warning("A memory is found by its words only: %s", error.message)
            return [None] * len(texts)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Call:
    """One call of a tool: what it may use."""

    memories: Memories
    store: MemoryStore
    arguments: Json
    context: ToolContext
    embedding: Embedding | None

    @property
    def namespace(self) -> Namespace:
        """Whose memories are meant."""
        context = self.context
        return Namespace(agent=context.agent, tenant_id=context.tenant_id, user_id=context.user_id)


Work = Callable[[_Call], str]


class MemoryTool:
    """A tool whose function blocks, and runs in a thread; `embeds` names what its vector is of."""

    def __init__(
        self, spec: ToolSpec, memories: Memories, work: Work, embeds: str, kind: TextKind
    ) -> None:
        self.spec = spec
        self._memories = memories
        self._work = work
        self._embeds = embeds
        self._kind: TextKind = kind

    async def call(self, arguments: Json, context: ToolContext) -> ToolOutput:
        """Do the work on validated arguments."""
        return await self._called(arguments, context, await self._embedding(arguments))

    async def _embedding(self, arguments: Json) -> Embedding | None:
        return await self._memories.embedding(str(arguments.get(self._embeds, "")), self._kind)

    async def _called(
        self, arguments: Json, context: ToolContext, embedding: Embedding | None
    ) -> ToolOutput:
        store = self._memories.store
        call = _Call(
            memories=self._memories,
            store=store.bound_to(context.connection) if context.connection else store,
            arguments=arguments,
            context=context,
            embedding=embedding,
        )
        try:
            return ToolOutput(content=await in_thread(partial(self._work, call), self.spec.name))
        except (ToolError, MemoryStoreError) as failure:
            return ToolOutput(content=failure.message, is_error=True)


class TransactionalMemoryTool(MemoryTool):
    """The same on a store with tables: in the transaction that its result is kept in."""

    async def prepare_call(self, arguments: Json, context: ToolContext) -> Embedding | None:
        """Compute the vector before the transaction is opened."""
        return await self._embedding(arguments)

    async def call(self, arguments: Json, context: ToolContext) -> ToolOutput:
        """Do the work on validated arguments."""
        return await self._called(arguments, context, context.prepared)


def memory_tools(memories: Memories) -> tuple[Tool, ...]:
    """The seven tools over some memories."""
    kind = TransactionalMemoryTool if memories.store.has_tables else MemoryTool
    return tuple(
        kind(MEMORY_SPECS[name], memories, work, embeds, of)
        for name, (work, embeds, of) in _WORK.items()
    )


def _store(call: _Call) -> str:
    return f"Stored memory {_put(call)}.{_hint(call)}"


def _recall(call: _Call) -> str:
    return _listed(_recalled(call, agent=call.context.agent, highest="restricted"))


def _update(call: _Call) -> str:
    given = call.arguments
    id_ = given["id"]
    if not call.store.update(
        call.namespace,
        id_,
        given["content"],
        keywords=given.get("keywords", ()),
        summary=given.get("summary"),
        embedding=call.embedding,
    ):
        raise ToolError(_unknown(id_))
    return f"Updated memory {id_}."


def _forget(call: _Call) -> str:
    id_ = call.arguments["id"]
    if not call.store.forget(call.namespace, id_):
        raise ToolError(_unknown(id_))
    return f"Forgot memory {id_}."


def _consolidate(call: _Call) -> str:
    ids = list(dict.fromkeys(call.arguments["source_ids"]))
    sources = call.store.get(call.namespace, ids)
    missing = [each for each in ids if each not in {source.id for source in sources}]
    if len(sources) < 2:
        raise ToolError(
            f"Nothing was changed: consolidating takes two memories at least, and there is no "
            f"{_series(missing)}."
        )
    new = _new(
        call,
        memory_type="semantic",
        tags=merged([call.arguments.get("tags", ()), *(each.tags for each in sources)]),
        keywords=merged([each.keywords for each in sources]),
    )
    call.store.consolidate(new, ids, call.embedding)
    text = f"Consolidated {len(sources)} memories into {new.id}."
    return f"{text} There is no {_series(missing)}." if missing else text


def _shared_read(call: _Call) -> str:
    agent = call.arguments.get("agent")
    return _listed(_recalled(call, agent=agent, highest=SHARED_LEVEL), agents=True)


def _shared_write(call: _Call) -> str:
    tags = merged([[SHARED], call.arguments.get("tags", ())])
    return f"Stored memory {_put(call, tags=tags)} for all agents."


def _new(call: _Call, **fields: object) -> NewMemory:
    """What is remembered already keeps what is not said anew, and is never less confidential."""
    given = call.arguments
    content = given["content"]
    if not content.strip():
        raise ToolError("There is nothing to remember: content is empty.")
    values = {name: given[name] for name in _ONE if given.get(name) is not None}
    values |= {name: tuple(given[name]) for name in _SEVERAL if given.get(name) is not None}
    values |= fields
    id_, old = _place(call, content)
    if old is not None:
        values = {name: getattr(old, name) for name in _STAYS} | values
        levels = [old.confidentiality, values.get("confidentiality", old.confidentiality)]
        values["confidentiality"] = highest(levels)
    return NewMemory(id=id_, namespace=call.namespace, content=content, **values)


def _place(call: _Call, content: str) -> tuple[str, Memory | None]:
    """An id made of what is remembered, so that the same fact twice is one memory: and that one."""
    number = 0
    while True:
        id_ = memory_id(call.namespace, content, str(number))
        found = call.store.get(call.namespace, [id_])
        if not found or found[0].content == content:
            return id_, found[0] if found else None
        number += 1


def _put(call: _Call, **fields: object) -> str:
    """Store and link a memory; of two calls at the same time the second one sees the first."""
    with call.store.in_turn(call.namespace) as store:
        alone = replace(call, store=store)
        new = _new(alone, **fields)
        store.store(new, call.embedding)
        for each in sorted(related.id for related in _related(alone, new)):
            store.link(call.namespace, new.id, each)
    return new.id


def _related(call: _Call, new: NewMemory) -> list[Memory]:
    """Memories with keywords in common; looking them up is no recall and makes none stronger."""
    if not new.keywords:
        return []
    query = MemoryQuery(
        tenant_id=call.context.tenant_id,
        user_id=call.context.user_id,
        agent=call.context.agent,
        text=" ".join(new.keywords),
        limit=RELATED,
    )
    found = [each.memory for each in call.store.recall(query, reinforce=False)]
    return [
        each
        for each in found
        if each.id != new.id and overlap(each.keywords, new.keywords) >= LINK_OVERLAP
    ]


def _hint(call: _Call) -> str:
    threshold = call.memories.reflection_threshold
    if threshold is None or call.store.unreflected(call.namespace) < threshold:
        return ""
    return (
        " Much has been remembered since you last reflected: recall what belongs together and "
        "consolidate it."
    )


def _recalled(call: _Call, *, agent: str | None, highest: str) -> list[Recalled]:
    given = call.arguments
    query = MemoryQuery(
        tenant_id=call.context.tenant_id,
        user_id=call.context.user_id,
        agent=agent,
        text=given["query"],
        category=given.get("category"),
        tags=tuple(given.get("tags", ())),
        max_confidentiality=highest,  # type: ignore[arg-type]
        limit=given.get("limit", 10),
    )
    return call.store.recall(query, embedding=call.embedding, weights=call.memories.weights)


def _listed(found: Sequence[Recalled], *, agents: bool = False) -> str:
    if not found:
        return "No memories found."
    return "\n".join(
        f"{rank}. {_line(each.memory, agents=agents)}" for rank, each in enumerate(found, 1)
    )


def _line(memory: Memory, *, agents: bool) -> str:
    """Nothing in it depends on the clock, so that the same memories are the same text."""
    marks = [memory.category, f"importance {memory.importance}"]
    marks += [memory.memory_type] if memory.memory_type != "episodic" else []
    marks += [memory.confidentiality] if memory.confidentiality != "public" else []
    marks += [f"tags {', '.join(memory.tags)}"] if memory.tags else []
    who = f"{memory.namespace.agent}: " if agents else ""
    content = memory.content
    if len(content) > SHOWN_CHARACTERS:
        content = f"{content[:SHOWN_CHARACTERS]}... ({len(content):,} characters)"
    return f"[{memory.id}] {who}{content} ({'; '.join(marks)})"


def _unknown(id_: str) -> str:
    return f"There is no memory {id_!r}; memory_recall tells the ids."


def _series(ids: Sequence[str]) -> str:
    return ", ".join(map(repr, ids)) or "second one"


_WORK: Mapping[str, tuple[Work, str, TextKind]] = {
    "memory_store": (_store, "content", "document"),
    "memory_recall": (_recall, "query", "query"),
    "memory_update": (_update, "content", "document"),
    "memory_forget": (_forget, "", "document"),
    "memory_consolidate": (_consolidate, "content", "document"),
    "shared_memory_read": (_shared_read, "query", "query"),
    "shared_memory_write": (_shared_write, "content", "document"),
}
