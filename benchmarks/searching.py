"""What a collection is searched by, and how good the answers are: recall@5 and nDCG@10."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from benchmarks.docstrings import Collection, Question
from heartbit.core.chunking import Chunk, chunks
from heartbit.core.knowledge import NewDocument, Passage, chunk_id, searched_text
from heartbit.core.memory import Embedding
from heartbit.core.ranking import CANDIDATES, fused, ranked
from heartbit.providers.embedder import Embedder
from heartbit.stores.knowledge.base import KnowledgeStore

RECALL_AT = 5
NDCG_AT = 10
BATCH = 200
EVERYTHING = 2 * CANDIDATES

Vectors = Mapping[str, Embedding]
Rankings = Mapping[str, Sequence[str]]
"""Ids of chunks, the best first, for the text of a question."""


class Quality(NamedTuple):
    """Means over questions, from 0 to 1."""

    recall: float
    ndcg: float


def fill(store: KnowledgeStore, collection: Collection) -> None:
    """Index all documents, each under its name as a heading."""
    store.replace_documents([_document(*each) for each in collection.documents.items()])


async def embed(stores: Sequence[KnowledgeStore], embedder: Embedder) -> None:
    """Give every chunk of stores that hold the same a vector, in place of another model's.

    Vectors get no index: it would be an approximation, and not the same one in every run.
    """
    while todo := stores[0].without_embedding(embedder.model, limit=BATCH):
        vectors = await embedder.embed([searched_text(x.heading, x.text) for x in todo])
        for store in stores:
            store.embed(list(zip(todo, vectors, strict=True)))


async def vectors_of(questions: Sequence[Question], embedder: Embedder) -> Vectors:
    """The vectors of questions by their texts."""
    texts = [each.text for each in questions]
    return dict(zip(texts, await embedder.embed(texts, "query"), strict=True))


def by_words(store: KnowledgeStore, questions: Iterable[Question]) -> Rankings:
    """What shares words with each question."""
    return {q.text: _ids(store.search(q.text, limit=CANDIDATES)) for q in questions}


def by_meaning(store: KnowledgeStore, questions: Iterable[Question], vectors: Vectors) -> Rankings:
    """What is near to each question's vector."""
    return {
        q.text: _ids(store.search("", limit=CANDIDATES, embedding=vectors[q.text]))
        for q in questions
    }


def hybrid(store: KnowledgeStore, questions: Iterable[Question], vectors: Vectors) -> Rankings:
    """What a search for each question gives."""
    return {
        q.text: _ids(store.search(q.text, limit=EVERYTHING, embedding=vectors[q.text]))
        for q in questions
    }


def weighted(words: Rankings, meaning: Rankings, weight: float) -> Rankings:
    """What such a search would give if a rank by meaning counted so much."""
    return {
        text: ranked(fused(words[text], meaning[text], weight=weight), limit=EVERYTHING)
        for text in meaning
    }


def quality(questions: Iterable[Question], found: Rankings) -> Quality:
    """How well documents were found: each counts where its first chunk stands."""
    each = [(q.answers, answered(found[q.text])) for q in questions]
    return Quality(
        recall=statistics.fmean(_recall(right, given) for right, given in each),
        ndcg=statistics.fmean(_ndcg(right, given) for right, given in each),
    )


def answered(chunk_ids: Iterable[str]) -> list[str]:
    """The first documents that chunks belong to."""
    return list(dict.fromkeys(each.rpartition("#")[0] for each in chunk_ids))[:NDCG_AT]


def _recall(right: frozenset[str], given: Sequence[str]) -> float:
    return len(right.intersection(given[:RECALL_AT])) / len(right)


def _ndcg(right: frozenset[str], given: Sequence[str]) -> float:
    gains = [_gain(rank) for rank, each in enumerate(given, 1) if each in right]
    return sum(gains) / sum(_gain(rank) for rank in range(1, min(len(right), NDCG_AT) + 1))


def _gain(rank: int) -> float:
    return 1 / math.log2(1 + rank)


def _ids(passages: Iterable[Passage]) -> list[str]:
    return [chunk_id(each.source, each.number) for each in passages]


def _document(name: str, text: str) -> NewDocument:
    return NewDocument(
        source=name, title=name, content_hash="", recipe="", chunks=_chunks(name, text)
    )


def _chunks(name: str, text: str) -> tuple[Chunk, ...]:
    return tuple(replace(each, heading=name) for each in chunks(text, markdown=False))
