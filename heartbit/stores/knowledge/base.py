"""The knowledge store's protocol: what every place that documents are kept in can do.

Every method is one transaction, or part of the transaction of the `connection` that a store was
bound to. Nothing here reads a document or asks a network: texts and vectors are handed in.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol, Self

from heartbit.core.knowledge import DEFAULT_LIMIT, ChunkText, Document, NewDocument, Passage
from heartbit.core.memory import Embedding


class KnowledgeStore(Protocol):
    """Documents by their sources, in chunks. Texts, titles and headings are any Python strings.

    Sources, entity tags and dates lose what no database can keep: NUL and half characters.
    """

    @property
    def has_tables(self) -> bool:
        """Whether it is in a database, so that a search can be part of a transaction."""

    def bound_to(self, connection: Any) -> Self:
        """The same store inside an open transaction of its database (psycopg).

        A store without tables gives itself.
        """

    def documents(self, sources: Collection[str] | None = None) -> list[Document]:
        """All documents, or those with these sources, by their sources."""

    def replace_documents(self, documents: Sequence[NewDocument]) -> None:
        """Keep documents in the place of what was kept of the same sources: all, or none of it.

        Their chunks have no vectors yet.
        """

    def confirm(self, source: str, *, etag: str | None, last_modified: str | None) -> None:
        """Note what a server says of a document that has not changed."""

    def remove_documents(self, sources: Collection[str]) -> list[str]:
        """Drop documents; gives the sources that there were, in order."""

    def remove_documents_except(self, sources: Collection[str]) -> list[str]:
        """Drop every document that is not of these; gives the sources of those, in order."""

    def search(
        self,
        query: str,
        *,
        source_filter: str | None = None,
        limit: int = DEFAULT_LIMIT,
        embedding: Embedding | None = None,
    ) -> list[Passage]:
        """The chunks that fit a query best, the best first.

        Found is what shares a term with it or is near to its `embedding`, in documents whose source
        begins with the `source_filter`.
        """

    def without_embedding(
        self, model: str, *, sources: Collection[str] | None = None, limit: int
    ) -> list[ChunkText]:
        """Chunks that have no vector of this model yet: of all documents, or of some."""

    def embed(self, vectors: Sequence[tuple[ChunkText, Embedding]]) -> int:
        """Store vectors of chunks that have not changed since; how many those were."""

    def prepare_model(self, model: str, dimension: int) -> None:
        """See to it that the vectors of a model are compared quickly. Idempotent."""

    def close(self) -> None:
        """Let go of connections."""
