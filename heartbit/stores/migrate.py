"""Bring a database to the schema of this heartbit: forward only, and by one process at a time.

A migration is applied once, in a transaction of its own together with the note that it was. A file
whose first line is `-- no transaction` is for what PostgreSQL refuses inside one: its statements,
each of which ends with a semicolon at the end of a line, run one by one and must bear to run again.

The connection must lead to the server itself: a pooler would not keep the lock.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from heartbit.errors import JournalError
from heartbit.stores.database import Connection, connect
from heartbit.stores.failures import mapped
from heartbit.stores.sql import migrations

LOCK = 0x6865617274626974  # "heartbit"
POLL_SECONDS = 0.1
NO_TRANSACTION = "-- no transaction\n"

_TABLE = """
create table if not exists schema_migrations (
    version integer primary key,
    name text not null,
    checksum text not null,
    applied_at timestamptz not null default clock_timestamp()
)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Migration:
    """One numbered file."""

    version: int
    name: str
    sql: str

    @property
    def label(self) -> str:
        """How people call it."""
        return f"{self.version:04}_{self.name}"

    @property
    def checksum(self) -> str:
        """What tells whether it was edited."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def in_transaction(self) -> bool:
        """Whether PostgreSQL can take it back as a whole."""
        return not self.sql.startswith(NO_TRANSACTION)


def migrate(url: str, *, sleep: Callable[[float], None] = time.sleep) -> list[str]:
    """Apply what is missing, and give the labels of what was applied.

    Raises:
        JournalError: what stands in the way, in one sentence. Migrations before it are applied.
    """
    known = _known()
    with _connected(url) as connection, _locked(connection, sleep):
        connection.execute(_TABLE)
        missing = _missing(connection, known)
        for migration in missing:
            _apply(connection, migration)
    return [migration.label for migration in missing]


def pending(url: str) -> list[str]:
    """The labels of the migrations that the database still needs; changes nothing.

    Raises:
        JournalError: the database cannot be asked, or its migrations are not those of this
            heartbit.
    """
    with _connected(url) as connection:
        return [migration.label for migration in _missing(connection, _known())]


def _known() -> tuple[Migration, ...]:
    return tuple(Migration(version=v, name=name, sql=sql) for v, name, sql in migrations())


@contextmanager
def _connected(url: str) -> Iterator[Connection]:
    with mapped(), connect(url) as connection:
        yield connection


@contextmanager
def _locked(connection: Connection, sleep: Callable[[float], None]) -> Iterator[None]:
    # Not pg_advisory_lock: one who waits inside it holds a snapshot, and an index that is built
    # concurrently by the holder would wait for that.
    while not _first(connection, "select pg_try_advisory_lock(%s)", LOCK):
        sleep(POLL_SECONDS)
    try:
        yield
    finally:
        if not connection.broken:
            connection.execute("select pg_advisory_unlock(%s)", [LOCK])


def _missing(connection: Connection, known: Sequence[Migration]) -> list[Migration]:
    applied = _applied(connection)
    by_version = {migration.version: migration for migration in known}
    for version, (name, checksum) in applied.items():
        if version not in by_version:
            raise JournalError(
                f"The database has the migration {version:04}_{name}, which this heartbit does "
                "not know: upgrade heartbit."
            )
        if by_version[version].checksum != checksum:
            raise JournalError(
                f"The migration {by_version[version].label} was edited after it was applied to "
                "the database: put the file back, and make a new migration of the change."
            )
    return [migration for migration in known if migration.version not in applied]


def _applied(connection: Connection) -> dict[int, tuple[str, str]]:
    if not _first(connection, "select to_regclass('schema_migrations') is not null"):
        return {}
    rows = connection.execute("select version, name, checksum from schema_migrations")
    return {version: (name, checksum) for version, name, checksum in rows}


def _apply(connection: Connection, migration: Migration) -> None:
    if migration.in_transaction:
        with connection.transaction():
            _run(connection, migration, migration.sql)
            _note(connection, migration)
        return
    for statement in migration.sql.removeprefix(NO_TRANSACTION).split(";\n"):
        if statement.strip():
            _run(connection, migration, statement)
    _note(connection, migration)


def _run(connection: Connection, migration: Migration, statement: str) -> None:
    try:
        connection.execute(statement.encode())
    except psycopg.errors.DuplicateTable as error:
        raise JournalError(
            f"The migration {migration.label} finds a table of its own there already; the "
            "database was not set up by `heartbit migrate`: use an empty one."
        ) from error


def _note(connection: Connection, migration: Migration) -> None:
    connection.execute(
        "insert into schema_migrations (version, name, checksum) values (%s, %s, %s)",
        [migration.version, migration.name, migration.checksum],
    )


def _first(connection: Connection, query: str, *parameters: int) -> bool:
    row = connection.execute(query.encode(), parameters or None).fetchone()
    return row is not None and bool(row[0])
