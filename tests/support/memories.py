"""Memories for tests: many of them, with vectors that anybody can compute."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

from heartbit.core.memory import Confidentiality, Embedding, Namespace
from heartbit.stores.memories.base import NewMemory
from heartbit.testing import HashEmbedder

ME = Namespace(agent="writer", tenant_id="t", user_id="u")
_TEXT = """
worker queue lease journal retry broker redis postgres celery agent turn tool call model token
stream approval deadline cancel chord beat schedule vector memory recall strength tenant user
budget price cost latency crash kill signal commit event step attempt
"""
WORDS = tuple(_TEXT.split())
CATEGORIES = ("fact", "observation", "preference", "procedure")
LEVELS: tuple[Confidentiality, ...] = ("public", "internal", "confidential", "restricted")


def vector_of(text: str, *, dimension: int = 32, model: str = "hash") -> Embedding:
    """A vector in which texts with words in common are near to each other."""
    embedder = HashEmbedder(dimension=dimension, model=model)
    return Embedding(model=model, vector=embedder.vector(text))


def new(id_: str, content: str = "Late acks.", **fields: Any) -> NewMemory:
    """A memory of the writer's."""
    given: dict[str, Any] = {"namespace": ME, "content": content} | fields
    return NewMemory(id=id_, **given)


def many(count: int, *, seed: int = 7) -> list[NewMemory]:
    """Memories of three agents, two users and two tenants, with links; always the same."""
    chance = random.Random(seed)
    today = datetime.now(UTC).replace(microsecond=0)
    made = []
    for number in range(count):
        namespace = Namespace(
            agent=chance.choice(("writer", "write", "writer:x")),
            tenant_id=chance.choice(("t", "t2")),
            user_id=chance.choice(("u", "u", "u2")),
        )
        made.append(
            NewMemory(
                id=f"m{number:04}",
                namespace=namespace,
                content=" ".join(chance.choices(WORDS, k=chance.randint(3, 30))),
                category=chance.choice(CATEGORIES),
                tags=tuple(chance.sample(("a", "b", "c"), k=chance.randint(0, 2))),
                keywords=tuple(chance.sample(WORDS, k=chance.randint(0, 3))),
                importance=chance.randint(1, 10),
                strength=chance.random(),
                confidentiality=chance.choice(LEVELS),
                related_ids=tuple(f"m{chance.randrange(count):04}" for _ in range(2)),
                created_at=today - timedelta(minutes=chance.randrange(60_000)),
            )
        )
    return made
