"""Documents and chunks as rows: what goes into the columns, and what comes out of them. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from heartbit.core.chunking import Chunk
from heartbit.core.knowledge import ChunkText, Document, NewDocument, Passage, searched_text
from heartbit.core.terms import term_counts
from heartbit.stores.memories.rows import plain


def counts_of(chunk: Chunk) -> Mapping[str, int]:
    """The terms that a chunk is found by."""
    return term_counts(searched_text(chunk.heading, chunk.text))


def document_columns(new: NewDocument) -> dict[str, Any]:
    """The columns of a document."""
    return {
        "source": plain(new.source),
        "title": json.dumps(new.title),
        "content_hash": new.content_hash,
        "recipe": plain(new.recipe),
        **validators(new.etag, new.last_modified),
    }


def validators(etag: str | None, last_modified: str | None) -> dict[str, str | None]:
    """The columns of what a server says."""
    return {
        "etag": None if etag is None else plain(etag),
        "last_modified": None if last_modified is None else plain(last_modified),
    }


def chunk_rows(collection: str, document: NewDocument) -> Iterator[tuple[Any, ...]]:
    """The rows of a document's chunks, in the order of `knowledge_copy`."""
    source = plain(document.source)
    for chunk in document.chunks:
        counts = counts_of(chunk)
        yield (
            collection,
            source,
            chunk.index,
            entry_of(chunk.text, chunk.heading),
            chunk.first_line,
            chunk.last_line,
            list(counts),
            list(counts.values()),
            sum(counts.values()),
        )


def entry_of(text: str, heading: str) -> str:
    """The JSON text of a chunk."""
    return json.dumps({"text": text, "heading": heading})


def document_of(row: Mapping[str, Any]) -> Document:
    """The document of a row."""
    return Document(**{**row, "title": json.loads(row["title"])})


def chunk_text_of(row: Mapping[str, Any]) -> ChunkText:
    """What the chunk of a row says."""
    return ChunkText(source=row["source"], number=row["number"], **json.loads(row["entry"]))


def passage_of(row: Mapping[str, Any], relevance: float) -> Passage:
    """The chunk of a row as it was found."""
    return Passage(
        source=row["source"],
        title=json.loads(row["title"]),
        number=row["number"],
        first_line=row["first_line"],
        last_line=row["last_line"],
        relevance=relevance,
        **json.loads(row["entry"]),
    )
