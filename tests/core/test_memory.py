"""What is recalled first, from whose memories, and how memories fade."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbit.core.memory import (
    CONFIDENTIALITY,
    Memory,
    MemoryQuery,
    Namespace,
    Recalled,
    Weights,
    best,
    highest,
    linked,
    reinforced,
    score,
    strength_at,
)

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def memory(id_: str = "m", agent: str = "writer", **fields: Any) -> Memory:
    """A memory of just now."""
    new = Memory(
        id=id_,
        namespace=Namespace(agent=agent),
        content="Late acks.",
        created_at=NOW,
        last_accessed=NOW,
    )
    return replace(new, **fields)


def only(**part: float) -> Weights:
    """Weights for one part of the score."""
    return Weights(**{"recency": 0.0, "importance": 0.0, "relevance": 0.0, "strength": 0.0} | part)


def test_the_score_weighs_recency_importance_relevance_and_strength() -> None:
    """A fresh memory of importance 10 that fits best and is strong scores 1."""
    assert 1.0 == score(memory(importance=10), 1.0, NOW, Weights())
    assert 0.25 + 0.2 == pytest.approx(score(memory(importance=1), 0.0, NOW, Weights()))


def test_recency_halves_in_69_hours_and_the_future_is_now() -> None:
    """exp(-0.01 per hour) since the memory was made."""
    old = memory(created_at=NOW - timedelta(hours=69.3147))
    early = memory(created_at=NOW + timedelta(days=9))
    assert 0.5 == pytest.approx(score(old, 0, NOW, only(recency=1)), abs=1e-5)
    assert 1.0 == score(early, 0, NOW, only(recency=1))


@pytest.mark.parametrize(("importance", "expected"), [(1, 0), (10, 1), (0, 0), (99, 1)])
def test_importance_goes_from_1_to_10(importance: int, expected: float) -> None:
    """Whatever a model says."""
    assert expected == score(memory(importance=importance), 0, NOW, only(importance=1))


def test_strength_fades_from_the_last_recall_and_a_recall_brings_some_back() -> None:
    """Half in 138.6 hours; a fifth more with a recall, never above 1."""
    faded = memory(last_accessed=NOW - timedelta(hours=138.629))
    assert 0.5 == pytest.approx(strength_at(faded, NOW), abs=1e-5)
    assert 0.7 == pytest.approx(reinforced(faded, NOW), abs=1e-5)
    assert 1.0 == reinforced(memory(strength=0.95), NOW)


def test_what_is_never_recalled_becomes_weak_enough_to_be_pruned() -> None:
    """Effective strength counts, not the stored one, which never falls by itself."""
    forgotten = memory(last_accessed=NOW - timedelta(hours=461))
    assert 1.0 == forgotten.strength
    assert strength_at(forgotten, NOW) < 0.1


@pytest.mark.parametrize("other", ["writer", "writ", "Write", "write:x", "write "])
def test_an_agent_named_write_never_touches_writer(other: str) -> None:
    """Namespaces are compared as a whole, never by how they begin."""
    assert not MemoryQuery(agent="write").admits(memory(agent=other), NOW)
    assert MemoryQuery(agent=other).admits(memory(agent=other), NOW)


def test_all_agents_of_a_user_does_not_mean_other_users_or_tenants() -> None:
    """Without an agent the tenant and the user still decide."""
    everybody = MemoryQuery(tenant_id="t", user_id="u")
    mine = Namespace(agent="a", tenant_id="t", user_id="u")
    assert everybody.admits(memory(namespace=mine), NOW)
    for where in ({"tenant_id": "t2"}, {"user_id": "u2"}, {"tenant_id": None}, {"user_id": None}):
        assert not everybody.admits(memory(namespace=replace(mine, **where)), NOW)


@pytest.mark.parametrize(
    ("condition", "fits", "fails"),
    [
        ({"category": "fact"}, {"category": "fact"}, {"category": "procedure"}),
        ({"tags": ("a", "b")}, {"tags": ("b", "c")}, {"tags": ("c",)}),
        ({"memory_type": "semantic"}, {"memory_type": "semantic"}, {"memory_type": "episodic"}),
        ({"min_strength": 0.5}, {"strength": 0.5}, {"strength": 0.4}),
        (
            {"max_confidentiality": "internal"},
            {"confidentiality": "internal"},
            {"confidentiality": "confidential"},
        ),
    ],
)
def test_each_filter_admits_what_fits_and_nothing_else(
    condition: dict[str, Any], fits: dict[str, Any], fails: dict[str, Any]
) -> None:
    """Of tags, any one is enough."""
    query = MemoryQuery(agent="writer", **condition)
    assert query.admits(memory(**fits), NOW)
    assert not query.admits(memory(**fails), NOW)


def test_memories_with_equal_scores_come_in_the_order_of_their_ids() -> None:
    """In every store the same."""
    found = best([memory("b"), memory("c"), memory("a")], {"c": 1.0}, NOW, Weights(), 2)
    assert ["c", "a"] == [each.memory.id for each in found]
    assert 3 == len(best([memory("b"), memory("c"), memory("a")], {}, NOW, Weights(), 0))


def test_a_linked_memory_is_half_as_relevant_as_what_links_to_it() -> None:
    """By the most relevant one; what was recalled itself keeps its own relevance."""
    kept = [
        Recalled(memory=memory("a", related_ids=("b", "c")), score=1, relevance=0.4),
        Recalled(memory=memory("b", related_ids=("c",)), score=1, relevance=0.8),
    ]
    assert {"c": 0.4} == linked(kept)


def test_what_is_made_of_several_memories_is_as_confidential_as_the_strictest() -> None:
    """Consolidation never makes anything public."""
    assert "confidential" == highest(["public", "confidential", "internal"])
    assert "public" == highest([])


@given(st.lists(st.sampled_from(CONFIDENTIALITY), min_size=1))
def test_the_highest_level_is_one_of_them_and_none_is_higher(levels: list) -> None:
    """The order is that of CONFIDENTIALITY."""
    top = highest(levels)
    assert top in levels
    assert all(CONFIDENTIALITY.index(each) <= CONFIDENTIALITY.index(top) for each in levels)
