"""From text to the terms it is searched by: one tokeniser for every store and every search.

Pure: what a text is indexed by depends on nothing but the text.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice

MAX_TERM_CHARACTERS = 64
"""Longer words (hashes, encoded data) are cut: nobody searches for their ends."""

MAX_QUERY_TERMS = 256
"""A question has fewer; a whole document for a query would be looked up word by word."""

_WORD = re.compile(r"[^\W_]+")
# Scripts that are written without blanks between words: Thai to Khmer, kana, Han, Hangul excepted.
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]+")


def terms(text: str) -> list[str]:
    """The terms of a text, in order and with repetitions.

    Letters and digits in a row are a word; case and compatibility forms don't count. Where a script
    puts no blanks between words, each pair of neighbouring characters is a term.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = _WORD.findall(folded)
    if not _UNSPACED.search(folded):  # most texts, and a third of the time
        return [word[:MAX_TERM_CHARACTERS] for word in words]
    return [term for word in words for term in _split(word)]


def query_terms(text: str) -> tuple[str, ...]:
    """What is searched for with a text: its first terms, each once, up to MAX_QUERY_TERMS."""
    return tuple(islice(dict.fromkeys(terms(text)), MAX_QUERY_TERMS))


def term_counts(text: str, keywords: Iterable[str] = (), *, weight: int = 2) -> Mapping[str, int]:
    """How often each term occurs; one of a keyword counts `weight` times more."""
    counts = Counter(terms(text))
    for term in (term for keyword in keywords for term in terms(keyword)):
        counts[term] += weight
    return counts


def _split(word: str) -> Iterable[str]:
    start = 0
    for run in _UNSPACED.finditer(word):
        yield from _cut(word[start : run.start()])
        yield from _pairs(run[0])
        start = run.end()
    yield from _cut(word[start:])


def _cut(word: str) -> Iterable[str]:
    if word:
        yield word[:MAX_TERM_CHARACTERS]


def _pairs(run: str) -> Iterable[str]:
    if len(run) == 1:
        return [run]
    return (run[i : i + 2] for i in range(len(run) - 1))
