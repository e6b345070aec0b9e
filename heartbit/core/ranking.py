"""How matches are ranked: BM25 by words, cosine by meaning, and both fused.

Numbers in, numbers out; ties are broken by id, and scores are compared to nine decimals, so that
every store ranks alike.

BM25 with k1 = 1.2 and b = 0.75, and the inverse document frequency that cannot be negative:
Robertson and Zaragoza, "The Probabilistic Relevance Framework" (2009), as Lucene computes it.
Reciprocal rank fusion: Cormack, Clarke and Büttcher (2009), with k = 50 and a weight.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest

K1 = 1.2
B = 0.75
RRF_K = 50
CANDIDATES = 100
"""How many matches of each ranking are fused."""
MEANING_WEIGHT = 2.0
"""How much a rank by meaning counts, one by words counting 1, unless an embedder says otherwise.

Chosen on one half of a collection and shown on the other: `benchmarks/retrieval.py`.
"""
DECIMALS = 9


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """What is to be known of all texts that are searched: how many, how long, which terms where.

    `average_length` is in terms; `frequencies` says how many of the texts hold a term.
    """

    count: int
    average_length: float
    frequencies: Mapping[str, int]

    def idfs(self, query: Iterable[str]) -> dict[str, float]:
        """How much each term of a query tells: the rarer, the more."""
        holding = {term: self.frequencies.get(term, 0) for term in query}
        return {
            term: math.log(1.0 + (self.count - found + 0.5) / (found + 0.5))
            for term, found in holding.items()
        }


def bm25(
    idfs: Mapping[str, float], counts: Mapping[str, int], length: int, corpus: Corpus
) -> float:
    """The score of a text by the terms of a query, which `idfs` has; 0 if it holds none of them."""
    norm = K1 * (1.0 - B + B * length / max(corpus.average_length, 1.0))
    found = [(idf, counts[term]) for term, idf in idfs.items() if term in counts]
    return sum([idf * count * (K1 + 1.0) / (count + norm) for idf, count in found])


def unit(vector: Sequence[float]) -> tuple[float, ...]:
    """The same direction at length 1; empty if there is none, since all numbers are 0."""
    length = math.hypot(*vector)
    return tuple(each / length for each in vector) if length else ()


def similarity(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """The cosine of two units, from -1 to 1; 0 if they cannot be compared.

    The square of their distance is 2 less twice the cosine. That is what the standard library does
    fastest: 2 microseconds for 384 numbers, where adding up their products takes 5.
    """
    if not one or len(one) != len(other):
        return 0.0
    return 1.0 - math.dist(one, other) ** 2 / 2.0


def ranked(scores: Mapping[str, float], *, limit: int = CANDIDATES) -> list[str]:
    """Ids by their scores, the best first; what scores nothing is no match."""
    found = [(-round(score, DECIMALS), each) for each, score in scores.items() if score > 0]
    return [each for score, each in nsmallest(limit, found) if score < 0]


def fused(
    words: Sequence[str], meaning: Sequence[str], *, weight: float = MEANING_WEIGHT
) -> dict[str, float]:
    """One relevance from two rankings of ids, the second one's ranks times `weight`.

    The best of all has 1. Only ranks are looked at: similarities of one model say nothing about
    those of another, and do not show whether a model knows meanings; the weight has to say so.
    """
    scores: dict[str, float] = {}
    for counts, ranking in ((1.0, words), (weight, meaning)):
        for rank, each in enumerate(ranking, 1):
            scores[each] = scores.get(each, 0.0) + counts / (RRF_K + rank)
    return normalised(scores)


def relevance(
    by_words: Mapping[str, float],
    by_meaning: Mapping[str, float],
    *,
    weight: float = MEANING_WEIGHT,
) -> dict[str, float]:
    """How relevant the best candidates are, from 0 to 1: their scores, or both rankings fused.

    Without any similarities the words decide alone, and by how much.
    """
    words = ranked(by_words)
    if not by_meaning:
        return normalised({each: by_words[each] for each in words})
    return fused(words, ranked(by_meaning), weight=weight)


def normalised(scores: Mapping[str, float]) -> dict[str, float]:
    """Scores from 0 to 1, by the best one."""
    best = max(scores.values(), default=0.0)
    return {each: score / best for each, score in scores.items()} if best > 0 else dict(scores)
