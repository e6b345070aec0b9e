"""Connections to PostgreSQL: three pools per process, and named queries on them.

Nothing here keeps state in a session: no prepared statements, no settings that outlive their
transaction. So a pooler that hands connections from one transaction to the next may stand between.
"""

from __future__ import annotations

import math
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow, dict_row
from psycopg_pool import ConnectionPool, PoolTimeout

from heartbit.stores.failures import mapped
from heartbit.stores.sql import queries
from heartbit.stores.tool_tables import IDLE_SECONDS, TOOL_IDLE_SECONDS, ToolTables, as_it_was

Connection = psycopg.Connection[TupleRow]
Pool = ConnectionPool[Connection]

JOURNAL_CONNECTIONS = 8
TOOL_CONNECTIONS = 4
WAIT_SECONDS = 30.0
# A pool waits longer after each failure to connect, for minutes in the end. It shall give up early
# instead: whoever needs a connection finds out whether the server is back.
ASK_SECONDS = 2.0
# Milliseconds until the end of the transaction; 0 is no limit.
_LIMITS = """
    select set_config('idle_in_transaction_session_timeout', %(idle)s, true),
           set_config('statement_timeout', %(statement)s, true)
"""
# A network that swallows everything must not hold a worker for the minutes TCP would wait.
CONNECTION_DEFAULTS: dict[str, Any] = {
    "application_name": "heartbit",
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}


class Database:
    """The connections of one process to one database; nothing is connected before the first use.

    A forked child makes pools of its own. The renewal of leases has one connection to itself, and
    tools with tables of their own have theirs, so that neither waits behind the journal.
    """

    def __init__(self, url: str, *, pool_size: int = JOURNAL_CONNECTIONS) -> None:
        with mapped():
            self._parameters = parameters_of(url)
        self._sizes = {"journal": pool_size, "renewal": 1, "tools": TOOL_CONNECTIONS}
        self._pools: dict[str, Pool] = {}
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._asked_at = -math.inf
        self._answer: psycopg.Error | None = None

    def close(self) -> None:
        """Close all connections; a later use opens new ones."""
        with self._lock:
            pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.close()

    @contextmanager
    def connection(self, pool: str = "journal") -> Iterator[Connection]:
        """A connection in autocommit mode; what psycopg says of a failure becomes ours."""
        with mapped(), borrowed(self._pool(pool), self._take) as connection:
            yield connection

    @contextmanager
    def tool_tables(
        self, seconds: float | None = None, *, quick: bool = False
    ) -> Iterator[ToolTables]:
        """A transaction for a tool, on a connection that is kept for tools.

        It is committed at the end of the block; it ends by itself if nothing happens in it for too
        long, which comes sooner for a `quick` tool. A statement in it may take `seconds`.
        """
        idle = IDLE_SECONDS if quick else max(seconds or 0, TOOL_IDLE_SECONDS)
        with self._transaction("tools", idle, seconds) as connection:
            try:
                yield ToolTables(connection, quick=quick)
            finally:
                as_it_was(connection)

    def transaction(self) -> AbstractContextManager[Connection]:
        """A connection inside a transaction that ends by itself if its process is frozen in it.

        It would keep the rows of a run from everybody until it is woken.
        """
        return self._transaction("journal", IDLE_SECONDS)

    @contextmanager
    def _transaction(
        self, pool: str, idle_seconds: float, statement_seconds: float | None = None
    ) -> Iterator[Connection]:
        with self.connection(pool) as connection, connection.transaction():
            limits = {"idle": idle_seconds, "statement": statement_seconds or 0}
            connection.execute(_LIMITS, {k: f"{1000 * v:.0f}" for k, v in limits.items()})
            yield connection

    def value(self, query: str, **parameters: Any) -> Any:
        """The first column of the only row of a named query; None without a row."""
        with self.connection() as connection:
            return value(connection, query, **parameters)

    def rows(self, query: str, *, pool: str = "journal", **parameters: Any) -> list[TupleRow]:
        """All rows of a named query."""
        with self.connection(pool) as connection:
            return connection.execute(queries()[query], parameters).fetchall()

    def records(self, query: str, **parameters: Any) -> list[dict[str, Any]]:
        """All rows of a named query, by the names of their columns."""
        with self.connection() as connection:
            return records(connection, query, **parameters)

    def execute(self, query: str, **parameters: Any) -> int:
        """Run a named query; gives how many rows it touched."""
        with self.connection() as connection:
            return connection.execute(queries()[query], parameters).rowcount

    def _pool(self, name: str) -> Pool:
        with self._lock:
            if self._pid != os.getpid():
                self._pools, self._pid = {}, os.getpid()
            if name not in self._pools:
                _connect(
                    self._parameters
                ).close()  # a wrong url is told at once, not after a timeout
                self._pools[name] = self._make(self._sizes[name])
            return self._pools[name]

    def _make(self, size: int) -> Pool:
        return ConnectionPool(
            kwargs=self._parameters | {"autocommit": True, "prepare_threshold": None},
            min_size=min(1, size),
            max_size=size,
            open=True,
            timeout=WAIT_SECONDS,
            reconnect_timeout=ASK_SECONDS,
            num_workers=1,
        )

    def _take(self, pool: Pool) -> Connection:
        """A connection of a pool: waited for as long as the server would give one."""
        until = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                return pool.getconn(timeout=min(ASK_SECONDS, WAIT_SECONDS))
            except PoolTimeout as error:
                if (why := self._why_not()) is not None:
                    raise why from error
                if time.monotonic() >= until:
                    raise

    def _why_not(self) -> psycopg.Error | None:
        """Why the pool has no connection: None if the server would give one.

        Asked once for all who wait: a server that is only busy must not be flooded.
        """
        with self._asking:
            if time.monotonic() - self._asked_at >= ASK_SECONDS:
                self._answer = self._ask()
                self._asked_at = time.monotonic()
            return self._answer

    def _ask(self) -> psycopg.Error | None:
        try:
            _connect(self._parameters).close()
        except psycopg.Error as error:
            return error
        return None


def connect(url: str) -> Connection:
    """One connection of its own, in autocommit mode."""
    return _connect(parameters_of(url))


def parameters_of(url: str) -> dict[str, Any]:
    """What a url says, and our habits for what it does not say."""
    return CONNECTION_DEFAULTS | conninfo_to_dict(url)


def _connect(parameters: dict[str, Any]) -> Connection:
    return psycopg.connect(**parameters, autocommit=True)


def value(connection: Connection, query: str, **parameters: Any) -> Any:
    """The first column of the only row of a named query; None without a row."""
    row = connection.execute(queries()[query], parameters).fetchone()
    return row[0] if row else None


def records(connection: Connection, query: str, **parameters: Any) -> list[dict[str, Any]]:
    """All rows of a named query, by the names of their columns."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(queries()[query], parameters).fetchall()


@contextmanager
def borrowed(pool: Pool, take: Callable[[Pool], Connection]) -> Iterator[Connection]:
    """A connection of a pool that the server has not closed.

    The pool could check this itself, but waits longer after each closed one: all of them are, once
    the server was restarted.
    """
    connection = _alive(pool, take)
    try:
        with connection:
            yield connection
    finally:
        pool.putconn(connection)


def _alive(pool: Pool, take: Callable[[Pool], Connection]) -> Connection:
    for _ in range(pool.max_size + 2):
        connection = take(pool)
        if still_there(connection):
            return connection
        connection.close()
        pool.putconn(connection)
    raise psycopg.OperationalError("the server closes every connection")


def still_there(connection: Connection) -> bool:
    """Whether the server has not closed an idle connection: it only speaks unasked to say that.

    Looks at the socket and nothing else, which costs no round trip.
    """
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)
