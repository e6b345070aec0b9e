"""The tokeniser: what a text can be found by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbit.core.terms import (
    MAX_QUERY_TERMS,
    MAX_TERM_CHARACTERS,
    query_terms,
    term_counts,
    terms,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("The runs, the RUN.", ["the", "runs", "the", "run"]),
        ("task_acks_late = True", ["task", "acks", "late", "true"]),
        ("Straße ﬁne Ⅳ", ["strasse", "fine", "iv"]),
        ("80% of 3,000 rows", ["80", "of", "3", "000", "rows"]),
        ("東京タワー", ["東京", "京タ", "タワ", "ワー"]),
        ("at京at", ["at", "京", "at"]),
        ("x" * 100, ["x" * MAX_TERM_CHARACTERS]),
        ("\0 \ud800 a", ["a"]),
    ],
)
def test_a_text_is_found_by_its_words_whatever_their_form(text: str, expected: list[str]) -> None:
    """Case, compatibility forms, identifiers, numbers, and scripts without blanks."""
    assert expected == terms(text)


def test_a_query_has_its_first_terms_each_once() -> None:
    """However long it is: what comes later than that is not searched for."""
    assert ("late", "acks") == query_terms("late acks, LATE")
    words = [f"w{number}" for number in range(MAX_QUERY_TERMS + 50)]
    assert tuple(words[:MAX_QUERY_TERMS]) == query_terms(" ".join(["w0"] * 999 + words))


def test_art_does_not_match_start() -> None:
    """A term is a whole word, never a part of one."""
    assert {"start": 1} == term_counts("start")


def test_a_keyword_counts_twice_as_much_again() -> None:
    """Whoever named a keyword meant it."""
    assert {"late": 3, "acks": 2, "x": 1} == term_counts("late x", ["acks late"])


@given(st.text())
def test_terms_are_terms_of_themselves(text: str) -> None:
    """What was indexed once is found by the same words, in any text."""
    found = terms(text)
    assert all(0 < len(term) <= MAX_TERM_CHARACTERS for term in found)
    assert [[term] for term in found] == [terms(term)[:1] for term in found]
