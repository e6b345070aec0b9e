"""Documents in this process: gone when it ends.

All state is behind one lock; what is handed out is immutable.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from threading import Lock
from typing import Any, Self

from heartbit.core.chunking import Chunk
from heartbit.core.knowledge import (
    DEFAULT_LIMIT,
    ChunkText,
    Document,
    NewDocument,
    Passage,
    best,
    chunk_id,
)
from heartbit.core.memory import Embedding
from heartbit.core.ranking import Corpus, bm25
from heartbit.core.terms import query_terms
from heartbit.stores.knowledge.rows import counts_of
from heartbit.stores.memories.rows import plain
from heartbit.stores.memories.units import similarities, unit_of


@dataclass(frozen=True, slots=True)
class _Kept:
    """A chunk with what it is found by, besides its terms."""

    source: str
    chunk: Chunk
    length: int
    embedding: Embedding | None = None


class InMemoryKnowledge:
    """A knowledge store without a database. `clock` says what time it is, in UTC."""

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._lock = Lock()
        self._documents: dict[str, Document] = {}
        self._kept: dict[str, _Kept] = {}
        self._holding: defaultdict[str, dict[str, int]] = defaultdict(dict)

    @property
    def has_tables(self) -> bool:
        """It has none."""
        return False

    def bound_to(self, connection: Any) -> Self:
        """The same store: it has no transactions."""
        return self

    def documents(self, sources: Collection[str] | None = None) -> list[Document]:
        """As `KnowledgeStore.documents`."""
        with self._lock:
            wanted = self._documents if sources is None else set(map(plain, sources))
            found = [each for source, each in self._documents.items() if source in wanted]
        return sorted(found, key=lambda document: document.source)

    def replace_documents(self, documents: Sequence[NewDocument]) -> None:
        """As `KnowledgeStore.replace_documents`."""
        counted = [
            (document, [counts_of(each) for each in document.chunks]) for document in documents
        ]
        with self._lock:
            for document, counts in counted:
                self._drop(plain(document.source))
                self._put(document, counts)

    def confirm(self, source: str, *, etag: str | None, last_modified: str | None) -> None:
        """As `KnowledgeStore.confirm`."""
        with self._lock:
            if (old := self._documents.get(plain(source))) is not None:
                new = replace(old, etag=_plain(etag), last_modified=_plain(last_modified))
                self._documents[old.source] = new

    def remove_documents(self, sources: Collection[str]) -> list[str]:
        """As `KnowledgeStore.remove_documents`."""
        with self._lock:
            return [each for each in sorted(set(map(plain, sources))) if self._drop(each)]

    def remove_documents_except(self, sources: Collection[str]) -> list[str]:
        """As `KnowledgeStore.remove_documents_except`."""
        with self._lock:
            gone = sorted(self._documents.keys() - set(map(plain, sources)))
            return [each for each in gone if self._drop(each)]

    def search(
        self,
        query: str,
        *,
        source_filter: str | None = None,
        limit: int = DEFAULT_LIMIT,
        embedding: Embedding | None = None,
    ) -> list[Passage]:
        """As `KnowledgeStore.search`."""
        prefix = plain(source_filter or "")
        with self._lock:
            inside = {id_: x for id_, x in self._kept.items() if x.source.startswith(prefix)}
            found = best(
                self._by_words(query, inside),
                similarities(embedding, ((id_, x.embedding) for id_, x in inside.items())),
                limit,
                weight=embedding.weight if embedding else 0.0,
            )
            return [self._passage(inside[id_], relevance) for id_, relevance in found]

    def without_embedding(
        self, model: str, *, sources: Collection[str] | None = None, limit: int
    ) -> list[ChunkText]:
        """As `KnowledgeStore.without_embedding`."""
        wanted = None if sources is None else set(map(plain, sources))
        with self._lock:
            found = [
                (each.source, each.chunk)
                for each in self._kept.values()
                if (wanted is None or each.source in wanted)
                and (each.embedding is None or each.embedding.model != model)
            ]
        found.sort(key=lambda one: (one[0], one[1].index))
        return [
            ChunkText(source=source, number=x.index, text=x.text, heading=x.heading)
            for source, x in found[:limit]
        ]

    def embed(self, vectors: Sequence[tuple[ChunkText, Embedding]]) -> int:
        """As `KnowledgeStore.embed`."""
        done = 0
        with self._lock:
            for text, embedding in vectors:
                id_ = chunk_id(text.source, text.number)
                kept = self._kept.get(id_)
                if kept and (kept.chunk.text, kept.chunk.heading) == (text.text, text.heading):
                    self._kept[id_] = replace(kept, embedding=unit_of(embedding))
                    done += 1
        return done

    def prepare_model(self, model: str, dimension: int) -> None:
        """There is nothing to prepare."""

    def close(self) -> None:
        """There is nothing to let go of."""

    def _put(self, new: NewDocument, counts: Sequence[Mapping[str, int]]) -> None:
        source = plain(new.source)
        self._documents[source] = Document(
            source=source,
            title=new.title,
            content_hash=new.content_hash,
            recipe=new.recipe,
            etag=_plain(new.etag),
            last_modified=_plain(new.last_modified),
            indexed_at=self._clock(),
            chunks=len(new.chunks),
        )
        for chunk, found in zip(new.chunks, counts, strict=True):
            id_ = chunk_id(source, chunk.index)
            self._kept[id_] = _Kept(source, chunk, sum(found.values()))
            for term, count in found.items():
                self._holding[term][id_] = count

    def _drop(self, source: str) -> bool:
        document = self._documents.pop(source, None)
        for number in range(document.chunks if document else 0):
            kept = self._kept.pop(chunk_id(source, number))
            for term in counts_of(kept.chunk):
                self._holding[term].pop(chunk_id(source, number))
        return document is not None

    def _by_words(self, query: str, inside: Mapping[str, _Kept]) -> dict[str, float]:
        wanted = query_terms(query)
        holding = {term: self._holding.get(term, {}) for term in wanted}
        counts: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for term, found in holding.items():
            for id_ in found.keys() & inside.keys():
                counts[id_][term] = found[id_]
        corpus = _corpus(inside.values(), counts.values())
        idfs = corpus.idfs(wanted)
        return {id_: bm25(idfs, x, inside[id_].length, corpus) for id_, x in counts.items()}

    def _passage(self, kept: _Kept, relevance: float) -> Passage:
        chunk = kept.chunk
        return Passage(
            source=kept.source,
            title=self._documents[kept.source].title,
            number=chunk.index,
            text=chunk.text,
            heading=chunk.heading,
            first_line=chunk.first_line,
            last_line=chunk.last_line,
            relevance=relevance,
        )


def _corpus(inside: Collection[_Kept], counts: Iterable[Mapping[str, int]]) -> Corpus:
    frequencies: defaultdict[str, int] = defaultdict(int)
    for found in counts:
        for term in found:
            frequencies[term] += 1
    return Corpus(
        count=len(inside),
        average_length=sum(each.length for each in inside) / max(len(inside), 1),
        frequencies=frequencies,
    )


def _plain(text: str | None) -> str | None:
    return None if text is None else plain(text)
