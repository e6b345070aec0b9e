"""What a tool does to tables of its own, inside a transaction that somebody else ends.

The tool gets a psycopg connection, whose `commit` and `rollback` psycopg itself refuses in here.
Whatever else it may have done to the transaction, or to the settings of the connection, is found
out or undone before anything of ours is written in it.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from heartbit.errors import ToolError

if TYPE_CHECKING:
    from heartbit.stores.database import Connection

CANCEL_SECONDS = 2.0
# Longer than any statement can hang in a network that swallows everything.
PATIENCE_SECONDS = 25.0
IDLE_TOO_LONG = "25P03"
# How long a transaction may do nothing: a tool may compute, heartbit has no reason to.
TOOL_IDLE_SECONDS = 60
IDLE_SECONDS = 5
# What would only fail at the commit fails here, where it is still the tool's own error.
_SETTLE = f"""
    set constraints all immediate;
    reset all;
    set local idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'
"""
_PROBLEMS = {
    TransactionStatus.IDLE: "it ended its transaction itself, so that what it wrote may be kept; a "
    "transactional tool must leave commit and rollback to heartbit.",
    TransactionStatus.INERROR: "a statement of it failed, and it went on; nothing was written. Use "
    "`with context.connection.transaction():` around what may fail.",
    TransactionStatus.ACTIVE: "it left a statement unfinished; nothing was written.",
    TransactionStatus.UNKNOWN: "its connection was closed; nothing was written.",
}


def as_it_was(connection: Connection) -> None:
    """Undo what a tool may have set on the connection object, which others use after it."""
    connection.row_factory = tuple_row
    connection.cursor_factory = psycopg.Cursor
    connection.prepare_threshold = None


class ToolTables:
    """The transaction of one call of a tool."""

    def __init__(self, connection: Connection, *, quick: bool = False) -> None:
        self.connection = connection
        self._quick = quick

    def settle(self) -> None:
        """The tool has done its part.

        Raises:
            ToolError: what it has done cannot be kept.
        """
        connection = self.connection
        status = connection.info.transaction_status
        if status == TransactionStatus.ACTIVE:
            connection.close()  # its lock may be held for ever
        if problem := _PROBLEMS.get(status):
            raise ToolError(f"The tool is broken: {problem}")
        as_it_was(connection)
        try:
            connection.execute(_SETTLE)
        except psycopg.Error as error:
            raise ToolError(f"{type(error).__name__}: {error}") from error

    def disconnect(self) -> None:
        """Take the connection away from a tool that was given up and may still be at it.

        It is closed when no statement is under way in any thread.
        """
        lock, until = self.connection.lock, time.monotonic() + PATIENCE_SECONDS
        while not (mine := lock.acquire(timeout=CANCEL_SECONDS / 10)) and time.monotonic() < until:
            with suppress(psycopg.Error):
                self.connection.cancel_safe(timeout=CANCEL_SECONDS)
        self.connection.close()
        if mine:
            lock.release()

    def lost(self, error: BaseException) -> bool:
        """Whether the tool failed with `error` because the database was lost on the way.

        A quick tool does nothing for too long only if its process could not.
        """
        idle = getattr(error, "sqlstate", None) == IDLE_TOO_LONG
        return self.connection.broken and (self._quick or not idle)
