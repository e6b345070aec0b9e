"""One PostgreSQL server for all processes of a test session: the first who asks starts it.

The processes of a session meet in a directory. Each user holds a shared lock on a file there; the
one who started the server waits, when it is done, until nobody else holds it, and stops it. The
locks are the kernel's: a killed process lets go of its own.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from heartbit.embedded import EmbeddedPostgres

SCHEMA = Path(__file__).parents[2] / "heartbit" / "stores" / "sql" / "schema.sql"
TEMPLATE = "with_schema"


class SharedPostgres:
    """A server that is there from `join` to `leave`."""

    def __init__(self, meeting: Path) -> None:
        self._meeting = meeting
        self._server: EmbeddedPostgres | None = None
        self._data: Path | None = None
        self._users: int | None = None

    def join(self) -> str:
        """The url of the server, started and given the template database if nobody did."""
        address = self._meeting / "postgres.url"
        with _locked(self._meeting / "postgres.start"):
            self._users = os.open(self._meeting / "postgres.users", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._users, fcntl.LOCK_SH)
            if not address.exists():
                self._start()
                address.write_text(self._url())
            return address.read_text()

    def leave(self) -> None:
        """Stop using the server; who started it ends it when the last one has left."""
        if self._users is None:
            return
        if self._server is not None:
            fcntl.flock(self._users, fcntl.LOCK_EX)
            (self._meeting / "postgres.url").unlink(missing_ok=True)
            self._server.stop()
        if self._data is not None:
            shutil.rmtree(self._data)
        os.close(self._users)
        self._users = None

    def _start(self) -> None:
        # Not below pytest's directory: as root the server is another user, who may not enter it.
        self._data = Path(tempfile.mkdtemp(prefix="heartbit-postgres-"))
        self._server = EmbeddedPostgres(self._data, durable=False)
        self._server.start()
        with psycopg.connect(create_database(self._url(), TEMPLATE), autocommit=True) as connection:
            connection.execute(SCHEMA.read_bytes())

    def _url(self) -> str:
        assert self._server is not None
        return self._server.url


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def create_database(server: str, name: str, *, template: str = "template1") -> str:
    """Make a database on the server of this url, and give its url."""
    statement = sql.SQL("create database {} template {}")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
    return f"{server.rpartition('/')[0]}/{name}"


def drop_database(server: str, name: str) -> None:
    """Remove a database, whoever is still connected to it."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("drop database {} (force)").format(sql.Identifier(name)))


# Deleting a few rows takes a fraction of what truncating takes, and of what many rows leave behind.
DELETE_ALL_ROWS = """
do $$
declare
    name regclass;
begin
    perform pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid() and state <> 'idle';
    for name in
        select c.oid from pg_class c
        where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
            and c.relname <> 'schema_migrations'
    loop
        if pg_relation_size(name) > 1000000 then
            execute format('truncate %s cascade', name);
        else
            execute format('delete from %s', name);
        end if;
    end loop;
end $$
"""


def delete_all_rows(database: str) -> None:
    """Empty every table; what a test left in the middle of a transaction is ended first."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("set session_replication_role = replica")  # no trigger objects
        connection.execute(DELETE_ALL_ROWS)
