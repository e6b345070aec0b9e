"""Memories in PostgreSQL: candidates come from one statement, what is best is core's to say.

Vectors are compared by pgvector. Without it, memories are found by their words; nothing else is
different, and a server that gets it later uses the vectors that were stored meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from heartbit.core.memory import (
    REINFORCEMENT,
    Embedding,
    Memory,
    MemoryQuery,
    Namespace,
    Recalled,
    Weights,
    best,
    linked,
    with_linked,
)
from heartbit.core.ranking import CANDIDATES, relevance
from heartbit.core.terms import query_terms
from heartbit.errors import MemoryStoreError
from heartbit.stores.database import Connection, Database
from heartbit.stores.memories.base import NewMemory
from heartbit.stores.memories.entries import consolidated, new_memory, relinked, updated
from heartbit.stores.memories.rows import (
    columns,
    entry_of,
    filters,
    found_by,
    memory_of,
    place,
    plain,
    scores,
    vector_of,
)
from heartbit.stores.memories.statements import (
    Row,
    execute,
    fetch,
    meaning_of,
    select,
    statement_of,
    value_of,
    wait_for_turn,
)
from heartbit.stores.memories.vectors import Vectors

PAGE = 500
CONNECTIONS = 2
INDEX_FROM = 1_000
"""With fewer vectors than that of a model, all of them are compared in a few milliseconds."""


class PostgresMemories:
    """A memory store in a database that `heartbit migrate` has brought up to date."""

    def __init__(
        self,
        database: Database,
        *,
        connection: Connection | None = None,
        vectors: Vectors | None = None,
    ) -> None:
        self._database = database
        self._bound = connection
        self._vectors = vectors or Vectors(database)

    @classmethod
    def at(cls, url: str) -> Self:
        """A store in the database that a url leads to."""
        return cls(Database(url, pool_size=CONNECTIONS))

    @property
    def has_tables(self) -> bool:
        """Yes: a tool's writes are kept with its result."""
        return True

    def bound_to(self, connection: Any) -> Self:
        """The same store inside an open transaction of its database."""
        return type(self)(self._database, connection=connection, vectors=self._vectors)

    @contextmanager
    def in_turn(self, namespace: Namespace) -> Iterator[Self]:
        """As `MemoryStore.in_turn`."""
        with self._transaction() as connection:
            wait_for_turn(connection, *place(namespace).values())
            yield self.bound_to(connection)

    def store(self, memory: NewMemory, embedding: Embedding | None = None) -> None:
        """As `MemoryStore.store`."""
        with self._transaction() as connection:
            _store(connection, memory, embedding)

    def store_all(self, memories: Iterable[NewMemory]) -> int:
        """As `MemoryStore.store_all`."""
        count = 0
        with self._transaction() as connection:
            for count, each in enumerate(memories, 1):  # noqa: B007 - how many there were
                _store(connection, each, None)
        return count

    def recall(
        self,
        query: MemoryQuery,
        *,
        embedding: Embedding | None = None,
        weights: Weights | None = None,
        reinforce: bool = True,
    ) -> list[Recalled]:
        """As `MemoryStore.recall`."""
        by = weights or Weights()
        compared = embedding if embedding and query.text.strip() and self._vectors.usable else None
        with self._transaction() as connection:
            if compared:
                self._vectors.search_widely(connection)
            rows = _candidates(connection, query, compared, by)
            if not rows:
                return []
            now = rows[0]["now"]
            found = relevance(
                scores(rows, "by_words"),
                scores(rows, "by_meaning"),
                weight=compared.weight if compared else 0.0,
            )
            memories = [memory_of(row) for row in rows]
            if query.text.strip():
                kept = best([m for m in memories if m.id in found], found, now, by, query.limit)
                others = _inside(connection, query, sorted(linked(kept)))
                recalled = with_linked(kept, others, now, by, query.limit)
            else:
                recalled = best(memories, {}, now, by, query.limit)
            if reinforce and recalled:
                ids = sorted(each.memory.id for each in recalled)
                tenant = plain(query.tenant_id or "")
                more = REINFORCEMENT
                execute(
                    connection, "memory_reinforce", tenant_id=tenant, ids=ids, now=now, more=more
                )
        return recalled

    def get(self, namespace: Namespace, ids: Sequence[str]) -> list[Memory]:
        """As `MemoryStore.get`."""
        with self._transaction() as connection:
            rows = select(connection, "memory_get", **place(namespace), ids=_plain(ids))
        by_id = {row["id"]: memory_of(row) for row in rows}
        return [by_id[each] for each in dict.fromkeys(_plain(ids)) if each in by_id]

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
        with self._transaction() as connection:
            for old in _own(connection, namespace, [id_]):
                changed = updated(old, content, keywords, summary)
                execute(
                    connection,
                    "memory_change",
                    **_key(changed),
                    **found_by(changed),
                    **vector_of(embedding),
                )
                return True
        return False

    def forget(self, namespace: Namespace, id_: str) -> bool:
        """As `MemoryStore.forget`."""
        with self._transaction() as connection:
            found = _own(connection, namespace, [id_])
            _delete(connection, plain(namespace.tenant_id or ""), [m.id for m in found])
        return bool(found)

    def link(self, namespace: Namespace, one: str, other: str) -> bool:
        """As `MemoryStore.link`."""
        with self._transaction() as connection:
            found = _own(connection, namespace, [one, other])
            if len(found) < 2:
                return False
            first, second = found
            for memory, related in ((first, second.id), (second, first.id)):
                ids = list(dict.fromkeys([*memory.related_ids, related]))
                execute(connection, "memory_relink", **_key(memory), related_ids=ids)
        return True

    def consolidate(
        self, memory: NewMemory, source_ids: Sequence[str], embedding: Embedding | None = None
    ) -> list[str]:
        """As `MemoryStore.consolidate`."""
        with self._transaction() as connection:
            locked = {each.id: each for each in _own(connection, memory.namespace, source_ids)}
            sources = [locked[each] for each in dict.fromkeys(_plain(source_ids)) if each in locked]
            if len(sources) > 1:
                _store(connection, consolidated(memory, sources), embedding)
                tenant = plain(memory.namespace.tenant_id or "")
                gone = [each for each in locked if each != plain(memory.id)]
                _delete(connection, tenant, gone, instead=plain(memory.id))
        return [each.id for each in sources]

    def prune(
        self,
        *,
        namespace: Namespace | None = None,
        min_strength: float = 0.1,
        min_age_hours: float = 24.0,
    ) -> int:
        """As `MemoryStore.prune`."""
        where = place(namespace) if namespace else {"tenant_id": "", "user_id": "", "agent": None}
        done = 0
        with self._transaction() as connection:
            for row in select(
                connection,
                "memory_faded",
                **where,
                min_strength=min_strength,
                min_age_hours=min_age_hours,
            ):
                done += len(row["ids"])
                _delete(connection, row["tenant_id"], row["ids"])
        return done

    def export(
        self, *, tenant_id: str | None = None, user_id: str | None = None, agent: str | None = None
    ) -> Iterator[Memory]:
        """As `MemoryStore.export`."""
        query = filters(MemoryQuery(tenant_id=tenant_id, user_id=user_id, agent=agent))
        where = {name: query[name] for name in ("tenant_id", "user_id", "agent")}
        after = ""
        while True:
            with self._transaction() as connection:
                rows = select(connection, "memory_export", **where, after=after, limit=PAGE)
            yield from map(memory_of, rows)
            if len(rows) < PAGE:
                return
            after = rows[-1]["id"]

    def unreflected(self, namespace: Namespace) -> int:
        """As `MemoryStore.unreflected`."""
        with self._transaction() as connection:
            [row] = select(connection, "memory_unreflected", **place(namespace))
        return int(row["importance"])

    def unembedded(self, model: str) -> int:
        """As `MemoryStore.unembedded`."""
        with self._transaction() as connection:
            [row] = select(connection, "memory_unembedded", model=plain(model))
        return int(row["count"])

    def without_embedding(self, model: str, *, limit: int, after: str = "") -> list[Memory]:
        """As `MemoryStore.without_embedding`."""
        with self._transaction() as connection:
            rows = select(
                connection, "memory_not_embedded", model=plain(model), limit=limit, after=after
            )
        return [memory_of(row) for row in rows]

    def embed(self, vectors: Sequence[tuple[Memory, Embedding]]) -> int:
        """As `MemoryStore.embed`."""
        with self._transaction() as connection:
            return sum(
                execute(
                    connection,
                    "memory_embed",
                    **_key(memory),
                    entry=entry_of(memory),
                    **vector_of(embedding),
                )
                for memory, embedding in sorted(vectors, key=lambda one: one[0].id)
            )

    def tend_indexes(self, model: str) -> None:
        """As `MemoryStore.tend_indexes`."""
        with self._transaction() as connection:
            counts = {row["key"]: row["count"] for row in select(connection, "memory_models")}
        for key, count in counts.items():
            name, _, dimension = key.rpartition("/")
            if name == plain(model) and count >= INDEX_FROM:
                self._vectors.index(key, int(dimension))
        self._vectors.drop_others(counts)

    def close(self) -> None:
        """Close the connections, unless they are somebody else's."""
        if self._bound is None:
            self._database.close()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        if self._bound is not None:
            yield self._bound  # in the hands of whoever opened it, savepoints included
            return
        with self._database.connection() as connection, connection.transaction():
            yield connection


def _candidates(
    connection: Connection,
    query: MemoryQuery,
    compared: Embedding | None,
    weights: Weights,
) -> list[Row]:
    if not query.text.strip():
        return select(
            connection,
            "memory_best",
            **filters(query),
            limit=query.limit or None,
            recency=weights.recency,
            importance=weights.importance,
            strength=weights.strength,
        )
    parameters = {
        **filters(query),
        "terms": list(query_terms(query.text)),
        "candidates": CANDIDATES,
        "vector": list(compared.vector) if compared else None,
    }
    statement = statement_of("memory_candidates", meaning_of(compared))
    return fetch(connection, statement, parameters)


def _store(connection: Connection, new: NewMemory, embedding: Embedding | None) -> None:
    now = value_of(connection, "select heartbit_now()")
    memory = new_memory(new, now)
    put = select(
        connection,
        "memory_put",
        **columns(memory),
        **vector_of(embedding),
        created_at=memory.created_at,
        last_accessed=memory.last_accessed,
        access_count=memory.access_count,
    )
    if not put:
        raise MemoryStoreError(f"The id {new.id} belongs to a memory of somebody else.")


def _inside(connection: Connection, query: MemoryQuery, ids: Sequence[str]) -> list[Memory]:
    if not ids:
        return []
    rows = select(connection, "memory_inside", **filters(query), ids=list(ids))
    return [memory_of(row) for row in rows]


def _own(connection: Connection, namespace: Namespace, ids: Sequence[str]) -> list[Memory]:
    """Memories of a namespace, locked in the order of their ids."""
    rows = select(connection, "memory_own", **place(namespace), ids=_plain(ids))
    return [memory_of(row) for row in rows]


def _delete(
    connection: Connection, tenant_id: str, ids: Sequence[str], instead: str | None = None
) -> None:
    if not ids:
        return
    for row in select(connection, "memory_linking", tenant_id=tenant_id, ids=list(ids)):
        links = relinked(row["id"], row["related_ids"], set(ids), instead)
        execute(
            connection,
            "memory_relink",
            tenant_id=tenant_id,
            id=row["id"],
            related_ids=list(links),
        )
    execute(connection, "memory_delete", tenant_id=tenant_id, ids=list(ids))


def _key(memory: Memory) -> dict[str, str]:
    return {"tenant_id": place(memory.namespace)["tenant_id"], "id": plain(memory.id)}


def _plain(ids: Sequence[str]) -> list[str]:
    return [plain(each) for each in ids]
