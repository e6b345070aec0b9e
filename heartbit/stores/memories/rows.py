"""Memories as rows: what goes into the columns, and what comes out of them. Pure.

The entry is JSON text, which keeps every Python string. Columns that are filtered by hold text that
any database can keep; the same is done to what they are compared with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from heartbit.core.memory import CONFIDENTIALITY, Embedding, Memory, MemoryQuery, Namespace, allowed
from heartbit.stores.memories.entries import indexed

_KEPT_IN_ENTRY = (
    "content",
    "category",
    "memory_type",
    "tags",
    "keywords",
    "summary",
    "source_ids",
    "confidentiality",
)


def plain(text: str) -> str:
    """A text that any database can keep: NUL and half characters have become question marks."""
    return text.replace("\0", "?").encode("utf-8", "replace").decode()


def place(namespace: Namespace) -> dict[str, str]:
    """The columns of a namespace."""
    return {
        "tenant_id": plain(namespace.tenant_id or ""),
        "user_id": plain(namespace.user_id or ""),
        "agent": plain(namespace.agent),
    }


def entry_of(memory: Memory) -> str:
    """The JSON text of a memory: what does not change by its being recalled."""
    return json.dumps({name: getattr(memory, name) for name in _KEPT_IN_ENTRY})


def found_by(memory: Memory) -> dict[str, Any]:
    """The columns that searches look at."""
    counts = indexed(memory)
    return {
        "entry": entry_of(memory),
        "terms": list(counts),
        "counts": list(counts.values()),
        "length": sum(counts.values()),
    }


def columns(memory: Memory) -> dict[str, Any]:
    """All columns of a new memory but its vector and its time."""
    return {
        **place(memory.namespace),
        **found_by(memory),
        "id": plain(memory.id),
        "category": plain(memory.category),
        "memory_type": memory.memory_type,
        "confidentiality": memory.confidentiality,
        "tags": [plain(tag) for tag in memory.tags],
        "importance": memory.importance,
        "strength": memory.strength,
        "related_ids": [plain(each) for each in memory.related_ids],
    }


def vector_of(embedding: Embedding | None) -> dict[str, Any]:
    """The columns of a vector."""
    if embedding is None:
        return {"embedding": None, "embedding_model": None}
    return {"embedding": list(embedding.vector), "embedding_model": model_of(embedding)}


def model_of(embedding: Embedding) -> str:
    """What vectors must have in common to be compared, and to be in one index."""
    return model_key(embedding.model, len(embedding.vector))


def model_key(model: str, dimension: int) -> str:
    """The same for a model whose vectors have that length."""
    return f"{plain(model)}/{dimension}"


def filters(query: MemoryQuery) -> dict[str, Any]:
    """The parameters of a query's conditions; None is no condition."""
    levels = allowed(query.max_confidentiality)
    return {
        "tenant_id": plain(query.tenant_id or ""),
        "user_id": plain(query.user_id or ""),
        "agent": None if query.agent is None else plain(query.agent),
        "category": None if query.category is None else plain(query.category),
        "memory_type": query.memory_type,
        "tags": [plain(tag) for tag in query.tags] or None,
        "levels": None if levels == CONFIDENTIALITY else list(levels),
        "min_strength": query.min_strength if query.min_strength > 0 else None,
    }


def memory_of(row: Mapping[str, Any]) -> Memory:
    """The memory of a row."""
    entry = json.loads(row["entry"])
    return Memory(
        id=row["id"],
        namespace=Namespace(
            tenant_id=row["tenant_id"] or None,
            user_id=row["user_id"] or None,
            agent=row["agent"],
        ),
        importance=row["importance"],
        strength=row["strength"],
        access_count=row["access_count"],
        created_at=row["created_at"],
        last_accessed=row["last_accessed"],
        related_ids=tuple(row["related_ids"]),
        **{name: _value(entry[name]) for name in _KEPT_IN_ENTRY},
    )


def scores(rows: Sequence[Mapping[str, Any]], name: str) -> dict[str, float]:
    """One of the scores of candidates, by id."""
    return {row["id"]: row[name] for row in rows if row[name] is not None}


def _value(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
