"""What becomes of a memory when it is stored, the same in every store. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from heartbit.core.memory import Memory, highest
from heartbit.core.terms import term_counts
from heartbit.stores.memories.base import NewMemory


def new_memory(new: NewMemory, now: datetime) -> Memory:
    """A memory as it is stored for the first time."""
    return Memory(
        id=new.id,
        namespace=new.namespace,
        content=new.content,
        created_at=new.created_at or now,
        last_accessed=new.last_accessed or new.created_at or now,
        access_count=new.access_count,
        category=new.category,
        memory_type=new.memory_type,
        tags=new.tags,
        keywords=new.keywords,
        summary=new.summary,
        importance=min(max(new.importance, 1), 10),
        strength=min(max(new.strength, 0.0), 1.0),
        related_ids=new.related_ids,
        source_ids=new.source_ids,
        confidentiality=new.confidentiality,
    )


def updated(memory: Memory, content: str, keywords: Sequence[str], summary: str | None) -> Memory:
    """A memory that says something else; what was made of the old content goes with it."""
    return replace(memory, content=content, keywords=tuple(keywords), summary=summary)


def consolidated(memory: NewMemory, sources: Sequence[Memory]) -> NewMemory:
    """A memory that takes the place of others: it has their links and is as secret as any."""
    own = {each.id for each in sources} | {memory.id}
    links = dict.fromkeys(
        other
        for others in (memory.related_ids, *(each.related_ids for each in sources))
        for other in others
        if other not in own
    )
    return replace(
        memory,
        related_ids=tuple(links),
        source_ids=tuple(each.id for each in sources),
        confidentiality=highest(
            [memory.confidentiality, *(each.confidentiality for each in sources)]
        ),
    )


def relinked(
    id_: str, related_ids: Sequence[str], gone: set[str], instead: str | None
) -> tuple[str, ...]:
    """The links of a memory without those to others that are gone."""
    ids = (instead if each in gone else each for each in related_ids)
    return tuple(dict.fromkeys(each for each in ids if each is not None and each != id_))


def indexed(memory: Memory) -> Mapping[str, int]:
    """The terms that a memory is found by."""
    text = memory.content if memory.summary is None else f"{memory.content}\n{memory.summary}"
    return term_counts(text, memory.keywords)
