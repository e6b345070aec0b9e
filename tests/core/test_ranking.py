"""How matches are ranked: rare words count more, long texts less, and rankings are fused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbit.core.ranking import (
    Corpus,
    bm25,
    fused,
    normalised,
    ranked,
    relevance,
    similarity,
    unit,
)

CORPUS = Corpus(count=100, average_length=10.0, frequencies={"rare": 1, "common": 90})
VECTORS = st.lists(st.floats(-1e3, 1e3, allow_subnormal=False), min_size=3, max_size=3)


def test_bm25_gives_the_textbook_value() -> None:
    """k1 = 1.2, b = 0.75, by hand: idf x tf x 2.2 / (tf + 1.2 x (0.25 + 0.75 x 20 / 10))."""
    idf = math.log(1 + (100 - 1 + 0.5) / (1 + 0.5))
    expected = idf * 3 * 2.2 / (3 + 1.2 * (0.25 + 0.75 * 2))
    assert expected == pytest.approx(bm25(CORPUS.idfs(["rare"]), {"rare": 3}, 20, CORPUS))


def test_a_rare_word_counts_more_than_a_common_one() -> None:
    """Without document frequencies both would be worth the same."""
    rare, common = (bm25(CORPUS.idfs([w]), {w: 1}, 10, CORPUS) for w in ("rare", "common"))
    assert rare > 10 * common > 0


def test_a_word_of_every_text_never_counts_against_one() -> None:
    """The classical formula turns negative there."""
    everywhere = Corpus(count=3, average_length=1.0, frequencies={"the": 3})
    assert bm25(everywhere.idfs(["the"]), {"the": 1}, 1, everywhere) > 0


def test_nothing_in_common_scores_nothing_and_is_no_match() -> None:
    """Whatever scores zero has no place in a ranking."""
    assert 0 == bm25(CORPUS.idfs(["rare"]), {"start": 4}, 4, CORPUS)
    assert ["b", "c"] == ranked({"a": 0.0, "b": 2.0, "c": 1.0, "d": -1.0})


def test_equal_scores_are_ranked_by_id_also_when_they_differ_by_rounding() -> None:
    """Two stores add up in different orders and must agree all the same."""
    assert ["a", "b"] == ranked({"b": 0.1 + 0.2, "a": 0.3})


def test_what_both_rankings_find_comes_before_what_one_of_them_ranks_first() -> None:
    """1/52 + 1/52 is more than 1/51."""
    found = fused(["a", "x"], ["b", "x"], weight=1.0)
    assert ["x", "a", "b"] == sorted(found, key=lambda each: (-found[each], each))
    assert 1.0 == found["x"]


def test_a_rank_by_meaning_counts_as_much_as_its_weight_says() -> None:
    """By hand: 2/51 for what meaning ranks first, 1/51 for what words do; without a word: 2."""
    assert {"a": 0.5, "b": 1.0} == fused(["a"], ["b"], weight=2.0) == fused(["a"], ["b"])
    assert {"a": 1.0, "b": 0.5} == relevance({"a": 3.0}, {"b": 0.9}, weight=0.5)


def test_an_embedder_of_little_weight_finds_more_and_overrules_no_words() -> None:
    """It is asked all the same: what shares no word with the query comes last, not never."""
    words = [f"w{place:02}" for place in range(10)]
    found = fused(words, ["x", *reversed(words)], weight=0.02)
    assert words[:2] == ranked(found)[:2]
    assert "x" == ranked(found)[-1]


def test_without_vectors_the_words_decide_and_by_how_much() -> None:
    """A rank alone would make the tenth match nearly as relevant as the first."""
    assert {"a": 1.0, "b": 0.25} == relevance({"a": 4.0, "b": 1.0, "c": 0.0}, {})
    assert {"a", "b", "c"} == relevance({"a": 4.0, "b": 1.0}, {"c": 0.9, "d": -0.9}).keys()


def test_one_ranking_is_fused_into_its_own_order() -> None:
    """Without vectors the words decide alone."""
    found = fused(["a", "b", "c"], [])
    assert ["a", "b", "c"] == sorted(found, key=lambda each: -found[each])


def test_relevance_is_measured_by_the_best_match() -> None:
    """However small the scores of a corpus are."""
    assert {"a": 1.0, "b": 0.5} == normalised({"a": 0.02, "b": 0.01})
    assert {"a": 0.0} == normalised({"a": 0.0})


def test_vectors_that_cannot_be_compared_are_not_similar() -> None:
    """Another model's length, or no direction at all."""
    assert ((), ()) == (unit([0.0, 0.0]), unit([]))
    assert [0.0, 0.0, 0.0] == [
        similarity((1.0,), (1.0, 0.0)),
        similarity(unit([0.0, 0.0]), (1.0, 0.0)),
        similarity((), ()),
    ]


def test_similarity_is_the_cosine_of_two_directions() -> None:
    """By hand, and however long the vectors were."""
    one, other = unit([3.0, 4.0]), unit([400.0, 300.0])
    assert 0.96 == pytest.approx(similarity(one, other), abs=1e-12)
    assert -1.0 == pytest.approx(similarity(one, unit([-3e-9, -4e-9])), abs=1e-12)


@given(VECTORS, VECTORS)
def test_similarity_is_symmetric_and_at_most_one(one: list[float], other: list[float]) -> None:
    """From -1 to 1, but for rounding."""
    units = unit(one), unit(other)
    assert similarity(*units) == similarity(*reversed(units))
    assert abs(similarity(*units)) <= 1 + 1e-9
