"""What is said of how well documents are found was measured, and it still holds."""

from __future__ import annotations

import asyncio
import re

import pytest

from benchmarks.docstrings import Collection, Question, collection
from benchmarks.retrieval import END, HEADER, LARGEST_LOSS, PAGE, START
from benchmarks.searching import answered, by_words, embed, fill, hybrid, quality, vectors_of
from heartbit.core.ranking import MEANING_WEIGHT
from heartbit.stores.knowledge.in_memory import InMemoryKnowledge
from heartbit.testing import HashEmbedder

BLOCK = PAGE.read_text().partition(START + "\n")[2].partition("\n" + END)[0]
ROW = re.compile(r"^\| (?P<who>[^|]*) ?\| (?P<how>[^|]+) \| (0\.\d{3}) \| (?P<ndcg>0\.\d{3}) \|$")


def rows() -> dict[tuple[str, str], float]:
    """nDCG@10 by vectors and search, as the page has it."""
    found = [ROW.match(line) for line in BLOCK.splitlines()]
    return {(x["who"].strip(), x["how"].strip()): float(x["ndcg"]) for x in found if x}


def test_the_page_shows_all_three_searches_with_the_weights_that_are_used() -> None:
    """A weight that was changed without measuring again would not be found."""
    told = rows()
    assert BLOCK.startswith(HEADER)
    assert ("", "BM25") in told
    for who, weight in (("`HashEmbedder`", 0.02), ("all-MiniLM-L6-v2", MEANING_WEIGHT)):
        assert {(who, "vectors"), (who, f"hybrid, weight {weight:g}")} <= told.keys()


def test_the_page_claims_what_its_figures_say() -> None:
    """Vectors that know nothing cost at most 0.02; those of a model of meaning find more."""
    told = rows()
    assert told["`HashEmbedder`", "hybrid, weight 0.02"] >= told["", "BM25"] - LARGEST_LOSS
    assert told["all-MiniLM-L6-v2", "hybrid, weight 2"] > told["", "BM25"]


def test_vectors_that_know_nothing_of_meaning_cost_next_to_nothing() -> None:
    """On the docstrings of one package; words alone find enough there to have much to lose."""
    small = collection("email")
    store = InMemoryKnowledge()
    fill(store, small)
    asyncio.run(embed([store], HashEmbedder()))
    vectors = asyncio.run(vectors_of(small.questions, HashEmbedder()))
    words = quality(small.questions, by_words(store, small.questions))
    both = quality(small.questions, hybrid(store, small.questions, vectors))
    assert 0.3 < words.ndcg < 0.95
    assert both.ndcg >= words.ndcg - LARGEST_LOSS


def test_a_collection_is_the_same_each_time_and_its_questions_are_not_in_the_answers() -> None:
    """Half of the questions are for choosing; an answer is what follows the question."""
    one, same = collection("email"), collection("email")
    assert one.fingerprint == same.fingerprint != Collection({}, ()).fingerprint
    assert {0, 1} == {each.half for each in one.questions}
    for question in one.questions:
        assert not any(one.documents[name].startswith(question.text) for name in question.answers)


def test_quality_is_that_of_the_textbook() -> None:
    """By hand: found third and seventh, 1/log2(4) and 1/log2(8) over 1 and over 1 + 1/log2(3)."""
    first, second = Question("one", frozenset({"c"})), Question("two", frozenset({"g", "z"}))
    found = {each.text: [f"{name}#0" for name in "abcdefghijklm"] for each in (first, second)}
    assert (1.0, 0.5) == quality([first], found)
    recall, ndcg = quality([second], found)
    assert 0.0 == recall
    assert pytest.approx((1 / 3) / (1 + 0.63093), abs=1e-4) == ndcg


def test_a_document_stands_where_its_first_chunk_does() -> None:
    """Ten documents, however many chunks of one come first."""
    assert ["a", "b#x"] == answered(["a#0", "a#1", "b#x#0", "a#2"])
    assert 10 == len(answered(f"{number}#0" for number in range(20)))
