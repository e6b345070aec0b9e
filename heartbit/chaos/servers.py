"""Throw-away servers for chaos: never the database or the broker of a configuration."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from heartbit.embedded import EmbeddedPostgres, EmbeddedValkey
from heartbit.stores.copies import copy_database
from heartbit.stores.migrate import migrate


@dataclass(frozen=True, kw_only=True, slots=True)
class Servers:
    """A PostgreSQL and a Valkey of our own, and a directory for everything else."""

    directory: Path
    database: str
    broker: str
    _numbers: Iterator[int]

    def make_database(self) -> str:
        """The url of a new database with our tables."""
        return copy_database(self.database, f"chaos{next(self._numbers)}")


@contextmanager
def open_servers() -> Iterator[Servers]:
    """Servers that are gone, with their data, after the block.

    Raises:
        ConfigError: the wheels of the `embedded` extra are not installed.
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="heartbit-chaos-")))
        directory.chmod(0o711)  # root's PostgreSQL is another user
        postgres = EmbeddedPostgres(directory / "postgres", durable=False)
        valkey = EmbeddedValkey(directory / "valkey", durable=False)
        database = stack.enter_context(postgres).url
        migrate(database)
        broker = stack.enter_context(valkey).url
        yield Servers(directory=directory, database=database, broker=broker, _numbers=count(1))
