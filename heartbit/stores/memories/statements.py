"""Named queries about memories, with the parts that several of them share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from psycopg import sql
from psycopg.rows import dict_row

from heartbit.core.memory import Embedding
from heartbit.stores.database import Connection
from heartbit.stores.memories.rows import model_of
from heartbit.stores.memories.vectors import vector_type
from heartbit.stores.sql import queries

Row = dict[str, Any]


def meaning_of(embedding: Embedding | None) -> sql.Composable:
    """The part of a search that looks for what is near to a vector; without one for nothing."""
    if embedding is None:
        return sql.SQL(queries()["memory_no_meaning"])
    return sql.SQL(queries()["memory_meaning"]).format(
        type=sql.SQL(vector_type(len(embedding.vector))), model=sql.Literal(model_of(embedding))
    )


def statement_of(name: str, meaning: sql.Composable | None = None) -> sql.Composed:
    """A named query with the parts that several of them share."""
    given = queries()
    return sql.SQL(given[name]).format(
        columns=sql.SQL(given["memory_columns"]),
        filters=sql.SQL(given["memory_filters"]),
        meaning=meaning or sql.SQL(""),
    )


def select(connection: Connection, name: str, **parameters: Any) -> list[Row]:
    """The rows of a named query."""
    return fetch(connection, statement_of(name), parameters)


def fetch(
    connection: Connection, statement: sql.Composed, parameters: Mapping[str, Any]
) -> list[Row]:
    """The rows of a statement."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement, parameters).fetchall()


def execute(connection: Connection, name: str, **parameters: Any) -> int:
    """Do a named query, and give how many rows it was about."""
    return connection.execute(statement_of(name), parameters).rowcount


def wait_for_turn(connection: Connection, *names: str) -> None:
    """Keep everybody else waiting who waits for the same names, until the transaction ends."""
    given = json.dumps(["heartbit.memories", *names])
    connection.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [given])


def value_of(connection: Connection, query: str) -> Any:
    """The only value of a query."""
    row = connection.execute(query.encode()).fetchone()
    return row[0] if row else None
