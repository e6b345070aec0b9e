"""The memory store's protocol: what every place that memories are kept in can do.

Every method is one transaction, or part of the transaction of the `connection` that a store was
bound to. Nothing here asks a network: vectors are computed before, and handed in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, Self

from heartbit.core.memory import (
    Confidentiality,
    Embedding,
    Memory,
    MemoryQuery,
    MemoryType,
    Namespace,
    Recalled,
    Weights,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class NewMemory:
    """A memory to be stored. The store's clock says when; the last three are those of an import."""

    id: str
    namespace: Namespace
    content: str
    category: str = "fact"
    memory_type: MemoryType = "episodic"
    tags: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    summary: str | None = None
    importance: int = 5
    strength: float = 1.0
    related_ids: tuple[str, ...] = ()
    source_ids: tuple[str, ...] = ()
    confidentiality: Confidentiality = "public"
    created_at: datetime | None = None
    last_accessed: datetime | None = None
    access_count: int = 0


class MemoryStore(Protocol):
    """Memories by namespace. An id is looked for inside of the namespace that is given only.

    Ids are unique within a tenant; a stored text is any Python string and comes back as it was.
    """

    @property
    def has_tables(self) -> bool:
        """Whether it can take part in a transaction of its database."""

    def bound_to(self, connection: Any) -> Self:
        """The same store inside an open transaction of its database (psycopg).

        A store without tables gives itself.
        """

    def in_turn(self, namespace: Namespace) -> AbstractContextManager[Self]:
        """The same store in one transaction; whoever asks for it meanwhile waits for its end.

        So what is read of a namespace still holds when something is stored for it.
        """

    def store(self, memory: NewMemory, embedding: Embedding | None = None) -> None:
        """Keep a memory; one with the same id and namespace is replaced, but keeps its age.

        Raises:
            MemoryStoreError: the id belongs to another namespace of the tenant.
        """

    def store_all(self, memories: Iterable[NewMemory]) -> int:
        """Keep many memories, all or none; how many they are.

        Raises:
            MemoryStoreError: as `store`, and whatever `memories` raises.
        """

    def recall(
        self,
        query: MemoryQuery,
        *,
        embedding: Embedding | None = None,
        weights: Weights | None = None,
        reinforce: bool = True,
    ) -> list[Recalled]:
        """The best memories inside the filters, the best first.

        With a text, what shares a term with it or is near to its `embedding` is found, and what is
        linked to that; without one, everything is. `reinforce`: what is given becomes stronger, its
        access is counted. Internal look-ups leave it off, so that only real recalls count.
        """

    def get(self, namespace: Namespace, ids: Sequence[str]) -> list[Memory]:
        """The memories with these ids that there are, in the order of the ids; reinforces none."""

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
        """Change what a memory says, and all it is found by; false if there is none.

        Keywords, a summary and a vector that are not given were those of the old content: they go.
        """

    def forget(self, namespace: Namespace, id_: str) -> bool:
        """Delete a memory and all links to it; false if there is none."""

    def link(self, namespace: Namespace, one: str, other: str) -> bool:
        """Relate two memories, both ways; false unless both are there. Idempotent."""

    def consolidate(
        self,
        memory: NewMemory,
        source_ids: Sequence[str],
        embedding: Embedding | None = None,
    ) -> list[str]:
        """Put one memory in the place of several, at once, and give the ids of those there were.

        Links to the sources become links to it, and it is as confidential as the strictest of them.
        With fewer than two of the sources there, nothing is changed.
        """

    def prune(
        self,
        *,
        namespace: Namespace | None = None,
        min_strength: float = 0.1,
        min_age_hours: float = 24.0,
    ) -> int:
        """Delete what has faded, by its strength as it is now and not as it was stored; how many.

        Without a namespace: everywhere.
        """

    def export(
        self, *, tenant_id: str | None = None, user_id: str | None = None, agent: str | None = None
    ) -> Iterator[Memory]:
        """All memories of a tenant's user (of one agent), by their ids."""

    def unreflected(self, namespace: Namespace) -> int:
        """How important together the episodic memories are that came since the last other one."""

    def unembedded(self, model: str) -> int:
        """How many memories of all namespaces have no vector of this model yet."""

    def without_embedding(self, model: str, *, limit: int, after: str = "") -> list[Memory]:
        """Some of those, in the order of their ids, from behind the id `after`."""

    def embed(self, vectors: Sequence[tuple[Memory, Embedding]]) -> int:
        """Store vectors of memories that have not changed since; how many those were."""

    def tend_indexes(self, model: str) -> None:
        """Have vectors of this model compared quickly, and drop what served another one only.

        Takes a while where there is much to index; nothing else waits for it.
        """

    def close(self) -> None:
        """Let go of connections."""
