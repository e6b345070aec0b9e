"""What a database can do with vectors, which depends on its pgvector: the types, and the indexes.

Vectors are kept as arrays of numbers, which need no extension, and compared as vectors.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection
from contextlib import suppress

import psycopg
from psycopg import sql

from heartbit.stores.database import Connection, Database

OLDEST = (0, 7)
"""The oldest release that is used: its types and its casts."""
GOES_ON = (0, 8)
"""The first release whose index goes on searching while filters leave too few."""
HALF_VECTORS_ABOVE = 2_000
"""Longer vectors can only be indexed with half the precision."""
LONGEST_INDEXED = 4_000
LONGEST_NAME = 63
"""Bytes of a name in PostgreSQL; it cuts longer ones, and two models might share an index then."""
SEARCHED = 200
"""How many neighbours an index looks at; more than are ever asked for."""
COMPARISON_COST = 0.05
"""What to compare two numbers costs in a search for vectors, by the planner's `cpu_operator_cost`.

At its own 0.0025 it takes comparing all of 7,000 vectors, casts included, for cheaper than the
index: 20 ms and more instead of 3.
"""

_RELEASE = "select extversion from pg_extension where extname = 'vector'"
_INDEXES = """
select c.relname, i.indisvalid from pg_index i join pg_class c on c.oid = i.indexrelid
 where i.indrelid = %s::regclass and starts_with(c.relname, %s)
"""
_INDEX = """
create index concurrently if not exists {name} on {table} using hnsw
((embedding::{type}) {operators}) where embedding_model = {key}
"""
_logger = logging.getLogger("heartbit.memories")


class Vectors:
    """The vectors of one table. Nothing is asked before it is needed, and then once."""

    def __init__(self, database: Database, table: str = "memories") -> None:
        self._database = database
        self._table = table
        self._release: tuple[int, ...] | None = None

    @property
    def usable(self) -> bool:
        """Whether vectors can be compared; the first no is told in the log."""
        if self._release is None:
            self._release = self._ask()
            if self._release < OLDEST:
                _logger.warning(
                    "The database has no pgvector of %s or newer: texts are found by their words "
                    "only. Install the extension `vector` to find them by meaning.",
                    ".".join(map(str, OLDEST)),
                )
        return self._release >= OLDEST

    def index(self, key: str, dimension: int) -> None:
        """Index the vectors of a model, unless they are already, or are too long for it."""
        if not self.usable or dimension > LONGEST_INDEXED:
            return
        name = self._name(key)
        if self._indexes().get(name) is False:
            self._drop(name)  # whoever made it did not come to its end
        statement = sql.SQL(_INDEX).format(
            name=sql.Identifier(name),
            table=sql.Identifier(self._table),
            type=sql.SQL(vector_type(dimension)),
            operators=sql.SQL(f"{vector_type(dimension).partition('(')[0]}_cosine_ops"),
            key=sql.Literal(key),
        )
        with self._database.connection() as connection:
            connection.execute(statement)

    def drop_others(self, keys: Collection[str]) -> None:
        """Drop the indexes of all models but these."""
        for name in self._indexes().keys() - {self._name(key) for key in keys}:
            self._drop(name)

    def search_widely(self, connection: Connection) -> None:
        """For this transaction: an index is used, and gives as many neighbours as are asked for.

        Before pgvector 0.8 it gives fewer if filters leave out most of what it looks at.
        """
        settings = {
            "hnsw.ef_search": str(SEARCHED),
            "cpu_operator_cost": str(COMPARISON_COST),
            "jit": "off",  # what is taken for costly would be compiled, for longer than it runs
        }
        if self._release is not None and self._release >= GOES_ON:
            settings["hnsw.iterative_scan"] = "strict_order"
        for_now = "select set_config(name, value, true) from unnest(%s::text[], %s::text[])"
        names, values = list(settings), list(settings.values())
        connection.execute(f"{for_now} as s (name, value)", [names, values])

    def _name(self, key: str) -> str:
        name = f"{self._table}_vector_{key}"
        if len(name.encode()) <= LONGEST_NAME:
            return name
        return f"{self._table}_vector_{hashlib.sha256(key.encode()).hexdigest()[:32]}"

    def _indexes(self) -> dict[str, bool]:
        """The indexes over vectors, and whether each can be used."""
        with self._database.connection() as connection:
            found = connection.execute(_INDEXES, [self._table, f"{self._table}_vector_"])
            return {str(name): bool(valid) for name, valid in found.fetchall()}

    def _drop(self, name: str) -> None:
        statement = sql.SQL("drop index concurrently if exists {}").format(sql.Identifier(name))
        with self._database.connection() as connection:
            connection.execute(statement)

    def _ask(self) -> tuple[int, ...]:
        with self._database.connection() as connection:
            if (found := connection.execute(_RELEASE).fetchone()) is None:
                with suppress(psycopg.Error):  # not installed, not ours to make, or just made
                    connection.execute("create extension if not exists vector")
                found = connection.execute(_RELEASE).fetchone()
        return _numbers(found[0]) if found else ()


def vector_type(dimension: int) -> str:
    """The type that vectors of a length are compared as."""
    kind = "vector" if dimension <= HALF_VECTORS_ABOVE else "halfvec"
    return f"{kind}({dimension})"


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split(".") if part.isdigit())
