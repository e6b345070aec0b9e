"""Documents in PostgreSQL: candidates come from one statement, what is best is core's to say.

Vectors are compared by pgvector. Without it, chunks are found by their words.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

from psycopg import sql
from psycopg.rows import dict_row

from heartbit.core.knowledge import (
    DEFAULT_LIMIT,
    ChunkText,
    Document,
    NewDocument,
    Passage,
    best,
)
from heartbit.core.memory import Embedding
from heartbit.core.ranking import CANDIDATES
from heartbit.core.terms import query_terms
from heartbit.stores.database import Connection, Database
from heartbit.stores.knowledge.rows import (
    chunk_rows,
    chunk_text_of,
    document_columns,
    document_of,
    entry_of,
    passage_of,
    validators,
)
from heartbit.stores.memories.rows import model_key, model_of, plain, scores, vector_of
from heartbit.stores.memories.vectors import Vectors, vector_type
from heartbit.stores.sql import queries

Row = dict[str, Any]
TABLE = "knowledge_chunks"
CONNECTIONS = 2


class PostgresKnowledge:
    """A knowledge store in a database that `heartbit migrate` has brought up to date.

    Collections in one database know nothing of each other.
    """

    def __init__(
        self,
        database: Database,
        *,
        collection: str = "default",
        connection: Connection | None = None,
        vectors: Vectors | None = None,
    ) -> None:
        self._database = database
        self._collection = plain(collection)
        self._bound = connection
        self._vectors = vectors or Vectors(database, TABLE)

    @classmethod
    def at(cls, url: str, *, collection: str = "default") -> Self:
        """A store in the database that a url leads to."""
        return cls(Database(url, pool_size=CONNECTIONS), collection=collection)

    @property
    def has_tables(self) -> bool:
        """It is in a database."""
        return True

    def bound_to(self, connection: Any) -> Self:
        """The same store inside an open transaction of its database."""
        return type(self)(
            self._database,
            collection=self._collection,
            connection=connection,
            vectors=self._vectors,
        )

    def documents(self, sources: Collection[str] | None = None) -> list[Document]:
        """As `KnowledgeStore.documents`."""
        wanted = None if sources is None else _plain(sources)
        with self._transaction() as connection:
            return [
                document_of(row)
                for row in self._rows(connection, "knowledge_documents", sources=wanted)
            ]

    def replace_documents(self, documents: Sequence[NewDocument]) -> None:
        """As `KnowledgeStore.replace_documents`."""
        # Rows are locked in the order of their names, and the last one of a name is what counts.
        given = {plain(each.source): each for each in documents}
        ordered = [given[source] for source in sorted(given)]
        with self._transaction() as connection:
            for each in ordered:
                self._run(connection, "knowledge_put", **document_columns(each))
            self._run(connection, "knowledge_clear", sources=sorted(given))
            with (
                connection.cursor() as cursor,
                cursor.copy(queries()["knowledge_copy"].encode()) as copy,
            ):
                for each in ordered:
                    for row in chunk_rows(self._collection, each):
                        copy.write_row(row)

    def confirm(self, source: str, *, etag: str | None, last_modified: str | None) -> None:
        """As `KnowledgeStore.confirm`."""
        said = validators(etag, last_modified)
        with self._transaction() as connection:
            self._run(connection, "knowledge_confirm", source=plain(source), **said)

    def remove_documents(self, sources: Collection[str]) -> list[str]:
        """As `KnowledgeStore.remove_documents`."""
        return self._removed("knowledge_remove", sources)

    def remove_documents_except(self, sources: Collection[str]) -> list[str]:
        """As `KnowledgeStore.remove_documents_except`."""
        return self._removed("knowledge_remove_except", sources)

    def search(
        self,
        query: str,
        *,
        source_filter: str | None = None,
        limit: int = DEFAULT_LIMIT,
        embedding: Embedding | None = None,
    ) -> list[Passage]:
        """As `KnowledgeStore.search`."""
        compared = embedding if embedding and self._vectors.usable else None
        parameters = {
            "collection": self._collection,
            "source_filter": plain(source_filter) if source_filter else None,
            "terms": list(query_terms(query)),
            "candidates": CANDIDATES,
            "vector": list(compared.vector) if compared else None,
        }
        with self._transaction() as connection:
            if compared:
                self._vectors.search_widely(connection)
            statement = _statement("knowledge_candidates", _meaning(compared))
            rows = {row["id"]: row for row in _fetched(connection, statement, parameters)}
        found = list(rows.values())
        order = best(
            scores(found, "by_words"),
            scores(found, "by_meaning"),
            limit,
            weight=compared.weight if compared else 0.0,
        )
        return [passage_of(rows[id_], relevance) for id_, relevance in order]

    def without_embedding(
        self, model: str, *, sources: Collection[str] | None = None, limit: int
    ) -> list[ChunkText]:
        """As `KnowledgeStore.without_embedding`."""
        wanted = None if sources is None else _plain(sources)
        asked = {"model": plain(model), "sources": wanted, "limit": limit}
        with self._transaction() as connection:
            rows = self._rows(connection, "knowledge_not_embedded", **asked)
        return [chunk_text_of(row) for row in rows]

    def embed(self, vectors: Sequence[tuple[ChunkText, Embedding]]) -> int:
        """As `KnowledgeStore.embed`."""
        ordered = sorted(vectors, key=lambda one: (one[0].source, one[0].number))
        with self._transaction() as connection:
            return sum(
                self._run(
                    connection,
                    "knowledge_embed",
                    source=plain(text.source),
                    number=text.number,
                    entry=entry_of(text.text, text.heading),
                    **vector_of(embedding),
                )
                for text, embedding in ordered
            )

    def prepare_model(self, model: str, dimension: int) -> None:
        """See to it that the vectors of a model are compared quickly. Idempotent; takes a while."""
        self._vectors.index(model_key(model, dimension), dimension)

    def close(self) -> None:
        """Close the connections, unless they are somebody else's."""
        if self._bound is None:
            self._database.close()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        if self._bound is not None:
            yield self._bound  # in the hands of whoever opened it, savepoints included
            return
        with self._database.connection() as connection, connection.transaction():
            yield connection

    def _removed(self, name: str, sources: Collection[str]) -> list[str]:
        with self._transaction() as connection:
            rows = self._rows(connection, name, sources=_plain(sources))
        return sorted(row["source"] for row in rows)

    def _rows(self, connection: Connection, name: str, **parameters: Any) -> list[Row]:
        given = {"collection": self._collection} | parameters
        return _fetched(connection, _statement(name), given)

    def _run(self, connection: Connection, name: str, **parameters: Any) -> int:
        given = {"collection": self._collection} | parameters
        return connection.execute(_statement(name), given).rowcount


def _plain(sources: Collection[str]) -> list[str]:
    return [plain(each) for each in sources]


def _meaning(embedding: Embedding | None) -> sql.Composable:
    if embedding is None:
        return sql.SQL(queries()["knowledge_no_meaning"])
    return sql.SQL(queries()["knowledge_meaning"]).format(
        type=sql.SQL(vector_type(len(embedding.vector))), model=sql.Literal(model_of(embedding))
    )


def _statement(name: str, meaning: sql.Composable | None = None) -> sql.Composed:
    """A named query with the parts that several of them share."""
    given = queries()
    filters = sql.SQL(given["knowledge_filters"])
    return sql.SQL(given[name]).format(filters=filters, meaning=meaning or sql.SQL(""))


def _fetched(
    connection: Connection, statement: sql.Composed, parameters: Mapping[str, Any]
) -> list[Row]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement, parameters).fetchall()
