"""What agents remember, and how well: entries, where they belong, and what is recalled first.

Pure: time comes in as an argument. The score is that of Park et al., "Generative Agents" (2023),
with the strength of a memory as its fourth part.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from heapq import nsmallest
from typing import Final, Literal

from heartbit.core.ranking import DECIMALS, MEANING_WEIGHT

MemoryType = Literal["episodic", "semantic", "reflection"]
Confidentiality = Literal["public", "internal", "confidential", "restricted"]
CONFIDENTIALITY: Final[tuple[Confidentiality, ...]] = (
    "public",
    "internal",
    "confidential",
    "restricted",
)
"""From what everybody may see to what few may."""

RECENCY_DECAY_PER_HOUR = 0.01
STRENGTH_DECAY_PER_HOUR = 0.005
REINFORCEMENT = 0.2
LINK_RELEVANCE = 0.5
"""How relevant a memory is that is only linked to a relevant one, by that one's relevance."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Namespace:
    """Whose memories: three names, each compared as a whole, so that none is a prefix of another.

    None stands for what belongs to no tenant, or to no user in particular.
    """

    agent: str
    tenant_id: str | None = None
    user_id: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Embedding:
    """A vector and the model it is of: vectors of two models are never compared.

    `weight` is how much a ranking by it counts beside the one by words, which counts 1. Nothing in
    a vector tells what it is worth, so whoever made it says so.
    """

    model: str
    vector: tuple[float, ...]
    weight: float = MEANING_WEIGHT


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """One entry. `importance` is 1 to 10, `strength` 0 to 1 as it was at `last_accessed`."""

    id: str
    namespace: Namespace
    content: str
    created_at: datetime
    last_accessed: datetime
    category: str = "fact"
    memory_type: MemoryType = "episodic"
    tags: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    summary: str | None = None
    importance: int = 5
    strength: float = 1.0
    access_count: int = 0
    related_ids: tuple[str, ...] = ()
    source_ids: tuple[str, ...] = ()
    confidentiality: Confidentiality = "public"


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryQuery:
    """What is to be recalled; every condition that is given must hold, of `tags` any.

    `agent` None means the memories of all agents of the same tenant and user. `limit` 0 is none.
    """

    tenant_id: str | None = None
    user_id: str | None = None
    agent: str | None = None
    text: str = ""
    category: str | None = None
    tags: tuple[str, ...] = ()
    memory_type: MemoryType | None = None
    min_strength: float = 0.0
    max_confidentiality: Confidentiality = "restricted"
    limit: int = 10

    def covers(self, namespace: Namespace) -> bool:
        """Whether it asks for memories of this namespace."""
        whose = (namespace.tenant_id, namespace.user_id)
        return whose == (self.tenant_id, self.user_id) and self.agent in (None, namespace.agent)

    @property
    def is_selective(self) -> bool:
        """Whether anything but the namespace decides."""
        return bool(
            self.category is not None
            or self.tags
            or self.memory_type is not None
            or self.min_strength > 0
            or self.max_confidentiality != CONFIDENTIALITY[-1]
        )

    def admits(self, memory: Memory, now: datetime) -> bool:
        """Whether a memory is inside all of the filters."""
        return (
            self.covers(memory.namespace)
            and self.category in (None, memory.category)
            and self.memory_type in (None, memory.memory_type)
            and (not self.tags or not set(self.tags).isdisjoint(memory.tags))
            and memory.confidentiality in allowed(self.max_confidentiality)
            and (self.min_strength <= 0 or strength_at(memory, now) >= self.min_strength)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """How much each part of a score counts."""

    recency: float = 0.25
    importance: float = 0.25
    relevance: float = 0.3
    strength: float = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class Recalled:
    """A memory that was recalled, and why it stands where it does."""

    memory: Memory
    score: float
    relevance: float = field(default=0.0)


def memory_id(namespace: Namespace, text: str, salt: str = "") -> str:
    """An id made of whose memory it is and of a text: whoever stores it again replaces it."""
    parts = (namespace.tenant_id or "", namespace.user_id or "", namespace.agent, text)
    whole = "\0".join(parts).encode("utf-8", "surrogatepass") + salt.encode()
    return f"m{hashlib.sha256(whole).hexdigest()[:12]}"


def allowed(highest: Confidentiality) -> tuple[Confidentiality, ...]:
    """The levels up to one."""
    return CONFIDENTIALITY[: CONFIDENTIALITY.index(highest) + 1]


def highest(levels: Iterable[Confidentiality]) -> Confidentiality:
    """The strictest of some levels: what is made of several memories is as secret as any."""
    return max(levels, key=CONFIDENTIALITY.index, default="public")


def strength_at(memory: Memory, now: datetime) -> float:
    """How strong a memory still is: what is not recalled fades, by half in 5.8 days."""
    return memory.strength * math.exp(-STRENGTH_DECAY_PER_HOUR * _hours(memory.last_accessed, now))


def reinforced(memory: Memory, now: datetime) -> float:
    """The strength of a memory that was just recalled."""
    return min(1.0, strength_at(memory, now) + REINFORCEMENT)


def score(memory: Memory, relevance: float, now: datetime, weights: Weights) -> float:
    """How much a memory should be recalled now; with weights that sum to 1, from 0 to 1."""
    total = (
        weights.recency * math.exp(-RECENCY_DECAY_PER_HOUR * _hours(memory.created_at, now))
        + weights.importance * (min(max(memory.importance, 1), 10) - 1) / 9
        + weights.relevance * min(max(relevance, 0.0), 1.0)
        + weights.strength * min(max(strength_at(memory, now), 0.0), 1.0)
    )
    return round(total, DECIMALS)


def best(
    memories: Iterable[Memory],
    relevance: Mapping[str, float],
    now: datetime,
    weights: Weights,
    limit: int,
) -> list[Recalled]:
    """Memories by their scores, the best first, `limit` at most (0: all)."""
    scored = [
        (-score(each, relevance.get(each.id, 0.0), now, weights), each.id, each)
        for each in memories
    ]
    first = nsmallest(limit, scored) if limit else sorted(scored)
    return [
        Recalled(memory=each, score=-worth, relevance=round(relevance.get(id_, 0.0), DECIMALS))
        for worth, id_, each in first
    ]


def linked(kept: Sequence[Recalled]) -> dict[str, float]:
    """The relevance of memories that are linked to recalled ones and were not recalled."""
    own = {each.memory.id for each in kept}
    found: dict[str, float] = {}
    for each in kept:
        for other in each.memory.related_ids:
            if other not in own:
                found[other] = max(found.get(other, 0.0), each.relevance * LINK_RELEVANCE)
    return found


def with_linked(
    kept: Sequence[Recalled],
    others: Iterable[Memory],
    now: datetime,
    weights: Weights,
    limit: int,
) -> list[Recalled]:
    """Recalled memories and those `others` that are linked to them, by their scores again."""
    relevance = linked(kept)
    more = [each for each in others if each.id in relevance]
    relevance |= {each.memory.id: each.relevance for each in kept}
    return best([*(each.memory for each in kept), *more], relevance, now, weights, limit)


def _hours(since: datetime, now: datetime) -> float:
    return max((now - since).total_seconds(), 0.0) / 3600
