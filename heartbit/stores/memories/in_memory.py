"""Memories in this process: gone when it ends.

All state is behind one lock; what is handed out is immutable.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Any, Self

from heartbit.core.memory import (
    Embedding,
    Memory,
    MemoryQuery,
    Namespace,
    Recalled,
    Weights,
    best,
    linked,
    reinforced,
    strength_at,
    with_linked,
)
from heartbit.core.ranking import Corpus, bm25, relevance
from heartbit.core.terms import query_terms
from heartbit.errors import MemoryStoreError
from heartbit.stores.memories.base import NewMemory
from heartbit.stores.memories.entries import consolidated, indexed, new_memory, relinked, updated
from heartbit.stores.memories.units import similarities, unit_of


@dataclass(frozen=True, slots=True)
class _Kept:
    """A memory with what it is found by."""

    memory: Memory
    counts: Mapping[str, int]
    length: int
    embedding: Embedding | None


class _Space:
    """The memories of one namespace, and which of them hold a term."""

    def __init__(self) -> None:
        self.kept: dict[str, _Kept] = {}
        self.holding: defaultdict[str, set[str]] = defaultdict(set)

    def put(self, kept: _Kept) -> None:
        self.drop(kept.memory.id)
        self.kept[kept.memory.id] = kept
        for term in kept.counts:
            self.holding[term].add(kept.memory.id)

    def drop(self, id_: str) -> None:
        if (old := self.kept.pop(id_, None)) is not None:
            for term in old.counts:
                self.holding[term].discard(id_)


class InMemoryMemories:
    """A memory store without a database. `clock` says what time it is, in UTC."""

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._lock, self._turn = Lock(), Lock()
        self._spaces: dict[Namespace, _Space] = {}
        self._places: dict[tuple[str | None, str], Namespace] = {}

    @property
    def has_tables(self) -> bool:
        """No: this process is all it has."""
        return False

    def bound_to(self, connection: Any) -> Self:
        """The same store: it has no transactions."""
        return self

    @contextmanager
    def in_turn(self, namespace: Namespace) -> Iterator[Self]:
        """As `MemoryStore.in_turn`, but for all namespaces at once."""
        with self._turn:
            yield self

    def store(self, memory: NewMemory, embedding: Embedding | None = None) -> None:
        """As `MemoryStore.store`."""
        with self._lock:
            self._store(memory, embedding)

    def store_all(self, memories: Iterable[NewMemory]) -> int:
        """As `MemoryStore.store_all`."""
        given = list(memories)
        with self._lock:
            for each in given:
                self._check_place(each)
            for each in given:
                self._store(each, None)
        return len(given)

    def recall(
        self,
        query: MemoryQuery,
        *,
        embedding: Embedding | None = None,
        weights: Weights | None = None,
        reinforce: bool = True,
    ) -> list[Recalled]:
        """As `MemoryStore.recall`."""
        now, by = self._clock(), weights or Weights()
        with self._lock:
            spaces = [space for where, space in self._spaces.items() if query.covers(where)]
            inside = _inside(spaces, query, now)
            if query.text.strip():
                found = _relevance(spaces, inside, query.text, embedding)
                matches = [inside[each].memory for each in found]
                kept = best(matches, found, now, by, query.limit)
                others = [inside[each].memory for each in linked(kept) if each in inside]
                recalled = with_linked(kept, others, now, by, query.limit)
            else:
                recalled = best((x.memory for x in inside.values()), {}, now, by, query.limit)
            if reinforce:
                self._reinforce([each.memory for each in recalled], now)
        return recalled

    def get(self, namespace: Namespace, ids: Sequence[str]) -> list[Memory]:
        """As `MemoryStore.get`."""
        with self._lock:
            found = [self._find(namespace, each) for each in ids]
        return [each.memory for each in found if each is not None]

    def update(
        self,
        namespace: Namespace,
        id_: str,
        content: str,
        *,
        keywords: Sequence[str] = (),
        summary: str | None = None,
        embedding: Embedding | None = None,
    ) -> bool:
        """As `MemoryStore.update`."""
        with self._lock:
            if (old := self._find(namespace, id_)) is None:
                return False
            self._put(updated(old.memory, content, keywords, summary), embedding)
        return True

    def forget(self, namespace: Namespace, id_: str) -> bool:
        """As `MemoryStore.forget`."""
        with self._lock:
            if self._find(namespace, id_) is None:
                return False
            self._delete(namespace.tenant_id, {id_})
        return True

    def link(self, namespace: Namespace, one: str, other: str) -> bool:
        """As `MemoryStore.link`."""
        with self._lock:
            first, second = self._find(namespace, one), self._find(namespace, other)
            if first is None or second is None or one == other:
                return False
            self._relate(first, other)
            self._relate(second, one)
        return True

    def consolidate(
        self, memory: NewMemory, source_ids: Sequence[str], embedding: Embedding | None = None
    ) -> list[str]:
        """As `MemoryStore.consolidate`."""
        where = memory.namespace
        with self._lock:
            ids = dict.fromkeys(source_ids)
            sources = [x.memory for each in ids if (x := self._find(where, each))]
            gone = [each.id for each in sources]
            if len(gone) < 2:
                return gone
            self._store(consolidated(memory, sources), embedding)
            self._delete(where.tenant_id, {*gone} - {memory.id}, instead=memory.id)
        return gone

    def prune(
        self,
        *,
        namespace: Namespace | None = None,
        min_strength: float = 0.1,
        min_age_hours: float = 24.0,
    ) -> int:
        """As `MemoryStore.prune`."""
        now = self._clock()
        before = now - timedelta(hours=min_age_hours)
        with self._lock:
            faded = [
                each.memory
                for each in self._all()
                if namespace in (None, each.memory.namespace)
                and each.memory.created_at < before
                and strength_at(each.memory, now) < min_strength
            ]
            for memory in faded:
                self._delete(memory.namespace.tenant_id, {memory.id})
        return len(faded)

    def export(
        self, *, tenant_id: str | None = None, user_id: str | None = None, agent: str | None = None
    ) -> Iterator[Memory]:
        """As `MemoryStore.export`."""
        query = MemoryQuery(tenant_id=tenant_id, user_id=user_id, agent=agent)
        now = self._clock()
        with self._lock:
            found = [x.memory for x in self._all() if query.admits(x.memory, now)]
        return iter(sorted(found, key=lambda memory: memory.id))

    def unreflected(self, namespace: Namespace) -> int:
        """As `MemoryStore.unreflected`."""
        with self._lock:
            space = self._spaces.get(namespace)
            memories = [kept.memory for kept in space.kept.values()] if space else []
        thought = [each.created_at for each in memories if each.memory_type != "episodic"]
        since = max(thought, default=datetime.min.replace(tzinfo=UTC))
        return sum(
            each.importance
            for each in memories
            if each.memory_type == "episodic" and each.created_at > since
        )

    def unembedded(self, model: str) -> int:
        """As `MemoryStore.unembedded`."""
        return len(self.without_embedding(model))

    def without_embedding(
        self, model: str, *, limit: int | None = None, after: str = ""
    ) -> list[Memory]:
        """As `MemoryStore.without_embedding`."""
        with self._lock:
            found = [
                each.memory
                for each in self._all()
                if each.embedding is None or each.embedding.model != model
            ]
        ids = sorted((each for each in found if each.id > after), key=lambda memory: memory.id)
        return ids[:limit]

    def embed(self, vectors: Sequence[tuple[Memory, Embedding]]) -> int:
        """As `MemoryStore.embed`."""
        done = 0
        with self._lock:
            for memory, embedding in vectors:
                kept = self._find(memory.namespace, memory.id)
                if kept is not None and kept.memory.content == memory.content:
                    self._put(kept.memory, embedding)
                    done += 1
        return done

    def tend_indexes(self, model: str) -> None:
        """There are none."""

    def close(self) -> None:
        """There is nothing to let go of."""

    def _all(self) -> Iterator[_Kept]:
        return (kept for space in self._spaces.values() for kept in space.kept.values())

    def _store(self, new: NewMemory, embedding: Embedding | None) -> None:
        self._check_place(new)
        where = self._places.setdefault((new.namespace.tenant_id, new.id), new.namespace)
        memory = new_memory(new, self._clock())
        if (old := self._find(where, new.id)) is not None:
            memory = replace(
                memory,
                created_at=old.memory.created_at,
                last_accessed=old.memory.last_accessed,
                access_count=old.memory.access_count,
            )
        self._put(memory, embedding)

    def _check_place(self, new: NewMemory) -> None:
        where = self._places.get((new.namespace.tenant_id, new.id), new.namespace)
        if where != new.namespace:
            raise MemoryStoreError(f"The id {new.id} belongs to a memory of somebody else.")

    def _put(self, memory: Memory, embedding: Embedding | None) -> None:
        counts = indexed(memory)
        space = self._spaces.setdefault(memory.namespace, _Space())
        space.put(_Kept(memory, counts, sum(counts.values()), unit_of(embedding)))

    def _find(self, namespace: Namespace, id_: str) -> _Kept | None:
        space = self._spaces.get(namespace)
        return space.kept.get(id_) if space else None

    def _relate(self, kept: _Kept, other: str) -> None:
        ids = tuple(dict.fromkeys([*kept.memory.related_ids, other]))
        self._change(replace(kept.memory, related_ids=ids))

    def _change(self, memory: Memory) -> None:
        """What a memory is found by stays as it is."""
        kept = self._spaces[memory.namespace].kept
        kept[memory.id] = replace(kept[memory.id], memory=memory)

    def _reinforce(self, memories: Iterable[Memory], now: datetime) -> None:
        for memory in memories:
            self._change(
                replace(
                    memory,
                    strength=reinforced(memory, now),
                    access_count=memory.access_count + 1,
                    last_accessed=now,
                )
            )

    def _delete(self, tenant_id: str | None, ids: set[str], instead: str | None = None) -> None:
        for id_ in ids:
            self._spaces[self._places.pop((tenant_id, id_))].drop(id_)
        for kept in list(self._all()):
            memory = kept.memory
            if memory.namespace.tenant_id == tenant_id and not ids.isdisjoint(memory.related_ids):
                links = relinked(memory.id, memory.related_ids, ids, instead)
                self._change(replace(memory, related_ids=links))


def _inside(spaces: Iterable[_Space], query: MemoryQuery, now: datetime) -> dict[str, _Kept]:
    """All memories that the filters admit, by id."""
    found = {id_: kept for space in spaces for id_, kept in space.kept.items()}
    if not query.is_selective:
        return found
    return {id_: kept for id_, kept in found.items() if query.admits(kept.memory, now)}


def _relevance(
    spaces: Iterable[_Space], inside: Mapping[str, _Kept], text: str, embedding: Embedding | None
) -> dict[str, float]:
    """How much memories have to do with a query, by words and by meaning."""
    query = query_terms(text)
    holding = {
        term: [id_ for space in spaces for id_ in space.holding.get(term, ()) if id_ in inside]
        for term in query
    }
    corpus = Corpus(
        count=len(inside),
        average_length=sum(x.length for x in inside.values()) / max(len(inside), 1),
        frequencies={term: len(found) for term, found in holding.items()},
    )
    idfs = corpus.idfs(query)
    by_words = {
        id_: bm25(idfs, inside[id_].counts, inside[id_].length, corpus)
        for id_ in {id_ for found in holding.values() for id_ in found}
    }
    by_meaning = similarities(embedding, ((id_, x.embedding) for id_, x in inside.items()))
    return relevance(by_words, by_meaning, weight=embedding.weight if embedding else 0.0)
