"""What can be looked up in documents, and how it is cited.

Pure: documents are read and kept elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from heartbit.core.chunking import Chunk
from heartbit.core.ranking import DECIMALS, MEANING_WEIGHT, ranked, relevance

DEFAULT_LIMIT = 5
MAX_LIMIT = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class NewDocument:
    """A document to be kept, cut into chunks.

    `source` is what it is cited by: a path or an address. `content_hash` tells whether it has
    changed, `recipe` how its text was taken out and cut; `etag` and `last_modified` are what a web
    server gave with it.
    """

    source: str
    title: str
    content_hash: str
    recipe: str
    chunks: tuple[Chunk, ...]
    etag: str | None = None
    last_modified: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A document that is kept; `chunks` is how many it has."""

    source: str
    title: str
    content_hash: str
    recipe: str
    etag: str | None
    last_modified: str | None
    indexed_at: datetime
    chunks: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkText:
    """A chunk by its place, and what it says."""

    source: str
    number: int
    text: str
    heading: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Passage:
    """A chunk that was found; `relevance` is 1 for the best one.

    Lines count from 1. They are 0 where the text was taken out of something that has no lines.
    """

    source: str
    title: str
    number: int
    text: str
    heading: str
    first_line: int
    last_line: int
    relevance: float = 0.0

    @property
    def citation(self) -> str:
        """Where it stands: `docs/architecture.md:12-40 (Architecture > Journal)`."""
        first, last = self.first_line, self.last_line
        lines = f":{first}" if first == last else f":{first}-{last}"
        heading = f" ({self.heading})" if self.heading else ""
        return f"{self.source}{lines if first else ''}{heading}"


def chunk_id(source: str, number: int) -> str:
    """The name of a chunk that ties are broken by."""
    return f"{source}#{number:08}"


def searched_text(heading: str, text: str) -> str:
    """What a chunk is found by: what it says, below which headings."""
    return f"{heading}\n{text}" if heading else text


def best(
    by_words: Mapping[str, float],
    by_meaning: Mapping[str, float],
    limit: int,
    *,
    weight: float = MEANING_WEIGHT,
) -> Sequence[tuple[str, float]]:
    """The ids of the best candidates with their relevance, the best first.

    `weight` is how much a rank by meaning counts.
    """
    found = relevance(by_words, by_meaning, weight=weight)
    return [(each, round(found[each], DECIMALS)) for each in ranked(found, limit=limit)]
