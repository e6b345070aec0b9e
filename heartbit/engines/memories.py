"""What an engine does for an agent's memories beside the tools: at a summary, and at a run's end.

Models are asked and vectors computed first; then everything is written at once, in the transaction
that also keeps the event, where there is one. Nothing that fails here fails the run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from heartbit.core.commands import Consolidate, Summarise
from heartbit.core.consolidation import (
    MOST_MEMORIES,
    chosen,
    merged,
    most_common,
    problem,
    request,
)
from heartbit.core.events import MemoriesConsolidated
from heartbit.core.flushing import IMPORTANCE, STRENGTH, TAG, flushed
from heartbit.core.memory import Embedding, Memory, MemoryQuery, Namespace, memory_id
from heartbit.core.messages import Usage
from heartbit.core.state import RunState
from heartbit.engines.problems import describe, spent
from heartbit.providers.base import Provider
from heartbit.stores.memories.base import MemoryStore, NewMemory
from heartbit.tools.memory import Memories
from heartbit.tools.threads import in_thread

if TYPE_CHECKING:
    from heartbit.engines.perform import Outside

THREAD = "heartbit-memories"
WRITE_SECONDS = 30.0
NO_MEMORY = "no memory is configured where the run ended"

T = TypeVar("T")
_logger = logging.getLogger("heartbit.memories")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Draft:
    """A text that is to take the place of some memories, or why there is none."""

    sources: Sequence[Memory]
    text: str = ""
    problem: str | None = None
    usage: Usage = Usage()
    cost_usd: float | None = 0.0


async def consolidate(
    command: Consolidate, state: RunState, outside: Outside
) -> MemoriesConsolidated:
    """Put one memory in the place of several of the agent's that belong together."""
    drafts: list[_Draft] = []
    ids: Sequence[str] = ()
    replaced, trouble = 0, None
    try:
        drafts = await _drafts(state, outside)
        ids, replaced = await _put_together([each for each in drafts if each.text], outside)
    except Exception as error:
        trouble = describe(error)
    costs = [each.cost_usd for each in drafts]
    return MemoriesConsolidated(
        step=command.step,
        ids=tuple(ids),
        replaced=replaced,
        reason=trouble or next((each.problem for each in drafts if each.problem), None),
        usage=sum((each.usage for each in drafts), Usage()),
        cost_usd=None if None in costs else sum((c for c in costs if c is not None), 0.0),
    )


async def flush(command: Summarise, state: RunState, outside: Outside) -> None:
    """Remember what the tools gave in the part of a conversation that gets a summary."""
    memories = outside.memories
    if memories is None or state.definition.memory is None:
        return
    try:
        texts = await in_thread(partial(flushed, state, command.upto), THREAD)
        vectors = await memories.embeddings(texts, "document")
        if texts:
            await _written(partial(_keep, _owner(outside), texts, vectors), memories, outside)
    except Exception as error:
        where = f"run {outside.identity.run_id} step {command.step}"
        _logger.warning("What tools gave before %s is not remembered: %s", where, describe(error))


async def pruned(store: MemoryStore) -> int:
    """Delete what has faded from all memories, and give how many those were.

    A failure is a line in the log.
    """
    try:
        count = await in_thread(store.prune, THREAD)
    except Exception as error:
        _logger.warning("Faded memories could not be deleted: %s", describe(error))
        return 0
    if count:
        _logger.info("%d faded memories were deleted.", count)
    return count


async def _drafts(state: RunState, outside: Outside) -> list[_Draft]:
    """What models make of the agent's clusters, all of them asked at the same time."""
    if outside.memories is None:
        return [_Draft(sources=(), problem=NO_MEMORY)]
    look_up = partial(_clusters, outside.memories.store, _owner(outside))
    found = await in_thread(look_up, THREAD)
    provider = outside.provider(state.definition.provider)
    model = state.definition.model
    return await asyncio.gather(*(_draft(cluster, provider, model) for cluster in found))


def _clusters(store: MemoryStore, whose: Namespace) -> list[list[Memory]]:
    """Looking them up is no recall: it makes no memory stronger."""
    query = MemoryQuery(
        tenant_id=whose.tenant_id,
        user_id=whose.user_id,
        agent=whose.agent,
        memory_type="episodic",
        limit=MOST_MEMORIES,
    )
    return chosen(each.memory for each in store.recall(query, reinforce=False))


async def _draft(sources: Sequence[Memory], provider: Provider, model: str) -> _Draft:
    try:
        completion = await provider.complete(request(sources, model), None)
    except Exception as error:
        usage, cost_usd = spent(error)
        return _Draft(sources=sources, problem=describe(error), usage=usage, cost_usd=cost_usd)
    wrong = problem(completion)
    return _Draft(
        sources=sources,
        text="" if wrong else completion.message.text.strip(),
        problem=wrong,
        usage=completion.usage,
        cost_usd=completion.cost_usd,
    )


async def _put_together(drafts: Sequence[_Draft], outside: Outside) -> tuple[Sequence[str], int]:
    """The ids of the new memories, and how many others they have replaced."""
    memories = outside.memories
    if not drafts or memories is None:
        return (), 0
    vectors = await memories.embeddings([each.text for each in drafts], "document")
    return await _written(partial(_replace, drafts, vectors), memories, outside)


async def _written(work: Callable[[MemoryStore], T], memories: Memories, outside: Outside) -> T:
    """What `work` gives, done in the transaction of the event if the store has tables."""
    store, transaction = memories.store, outside.transaction
    if not store.has_tables or transaction is None:
        return await in_thread(partial(work, store), THREAD)
    async with transaction(WRITE_SECONDS) as connection:
        return await in_thread(partial(work, store.bound_to(connection)), THREAD)


def _replace(
    drafts: Sequence[_Draft], vectors: Sequence[Embedding | None], store: MemoryStore
) -> tuple[Sequence[str], int]:
    ids, replaced = [], 0
    for draft, vector in zip(drafts, vectors, strict=True):
        new, sources = _consolidated(draft), draft.sources
        there = store.get(new.namespace, [each.id for each in sources])
        if [each.content for each in there] != [each.content for each in sources]:
            continue  # forgotten or changed since they were looked up: the text is out of date
        replaced += len(store.consolidate(new, [each.id for each in sources], vector))
        ids.append(new.id)
    return ids, replaced


def _consolidated(draft: _Draft) -> NewMemory:
    """How confidential it is, is up to the store: as much as any of its sources."""
    sources = draft.sources
    whose = sources[0].namespace
    return NewMemory(
        id=memory_id(whose, "\n".join(sorted(each.id for each in sources)), "consolidated"),
        namespace=whose,
        content=draft.text,
        memory_type="semantic",
        category=most_common(each.category for each in sources),
        keywords=merged(each.keywords for each in sources),
        tags=merged(each.tags for each in sources),
        importance=max(each.importance for each in sources),
    )


def _keep(
    whose: Namespace,
    texts: Sequence[str],
    vectors: Sequence[Embedding | None],
    store: MemoryStore,
) -> None:
    """Store texts, but for those that are remembered already, whatever they say by now."""
    for text, vector in zip(texts, vectors, strict=True):
        id_ = memory_id(whose, text, TAG)
        if not store.get(whose, [id_]):
            new = NewMemory(
                id=id_,
                namespace=whose,
                content=text,
                category="fact",
                tags=(TAG,),
                importance=IMPORTANCE,
                strength=STRENGTH,
                confidentiality="internal",
            )
            store.store(new, vector)


def _owner(outside: Outside) -> Namespace:
    return Namespace(
        agent=outside.identity.agent, tenant_id=outside.tenant_id, user_id=outside.user_id
    )
