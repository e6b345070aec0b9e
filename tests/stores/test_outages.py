"""A database that was away is used again soon after it is back, and missed soon while it is not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from heartbit.errors import JournalUnavailable
from heartbit.stores import database
from heartbit.stores.database import Database
from heartbit.stores.postgres import PostgresJournal
from tests.support.canvas import until
from tests.support.proxy import Proxy


@pytest.fixture
def line(postgres: str) -> Iterator[Proxy]:
    """The way to the database."""
    proxy = Proxy.before(postgres)
    yield proxy
    proxy.close()


@pytest.mark.slow
def test_a_database_that_was_away_for_long_is_used_at_once_when_it_is_back(
    postgres: str, line: Proxy
) -> None:
    """The pools do not wait longer and longer: an outcome, or a lease, may be at stake."""
    journal = PostgresJournal(line.url(postgres))
    assert () == journal.list_runs()
    while _answers(journal):
        line.refuse()  # again, because a pool may just have been connecting
    away_since = time.monotonic()
    while time.monotonic() - away_since < 10:
        asked_at = time.monotonic()
        with pytest.raises(JournalUnavailable, match="cannot be reached"):
            journal.list_runs()
        assert time.monotonic() - asked_at < 5
    line.mend()
    back_since = time.monotonic()
    until(lambda: _answers(journal))
    assert time.monotonic() - back_since < 3
    assert () == journal.stopped_runs([])
    journal.close()


def _answers(journal: PostgresJournal) -> bool:
    try:
        return () == journal.list_runs()
    except JournalUnavailable:
        return False


def test_many_who_wait_for_a_connection_ask_the_server_once(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process whose pool is busy does not use up the connections of others."""
    monkeypatch.setattr(database, "ASK_SECONDS", 0.2)
    monkeypatch.setattr(database, "WAIT_SECONDS", 0.1)
    asked: list[Database] = []

    def ask(asking: Database) -> None:
        asked.append(asking)

    monkeypatch.setattr(Database, "_ask", ask)
    journal = PostgresJournal(postgres, pool_size=1)

    def wait() -> None:
        with pytest.raises(JournalUnavailable, match="are in use"):
            journal.list_runs()

    with journal.transaction(), ThreadPoolExecutor(20) as pool:
        for each in [pool.submit(wait) for _ in range(20)]:
            each.result()
    journal.close()
    assert len(asked) < 5
