"""The transaction of a call, when the call is given up before its tool knows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from heartbit.engines.transactions import CallTransaction
from heartbit.errors import ToolTimedOut


class Tables:
    """An open transaction that notes what is done to it."""

    connection = "connection"

    def __init__(self) -> None:
        self.notes: list[str] = []

    @contextmanager
    def open(self, seconds: float | None) -> Iterator[Tables]:
        """As a journal opens it."""
        try:
            yield self
        except Exception:
            self.notes.append("undone")
            raise
        self.notes.append("committed")

    def settle(self) -> None:
        """The tool has done its part."""
        self.notes.append("settled")

    def disconnect(self) -> None:
        """The tool can do nothing more."""
        self.notes.append("disconnected")

    def lost(self, error: BaseException) -> bool:
        """The database is there."""
        return False


@pytest.fixture
def tables() -> Tables:
    """Of one call."""
    return Tables()


def test_a_connection_is_taken_away_from_a_tool_that_does_not_know_yet_that_it_was_given_up(
    tables: Tables,
) -> None:
    """What it still did would be done outside of any transaction, on a connection of others."""

    async def scenario() -> None:
        call = CallTransaction(tables.open)
        with call:
            await call.during(None).__aenter__()
        assert ["disconnected", "undone"] == tables.notes

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [asyncio.CancelledError(), ToolTimedOut()])
def test_so_it_is_from_one_that_may_still_be_at_it_in_a_thread(
    tables: Tables, error: BaseException
) -> None:
    """Whoever waited for it does not any more."""

    async def scenario() -> None:
        call = CallTransaction(tables.open)
        with call, pytest.raises(type(error)):
            async with call.during(None):
                raise error

    asyncio.run(scenario())
    assert ["disconnected", "undone"] == tables.notes


def test_a_tool_that_has_ended_leaves_its_connection_to_others(tables: Tables) -> None:
    """Well or with an error; what is not committed is undone."""

    async def scenario() -> None:
        with CallTransaction(tables.open) as call:
            async with call.during(None):
                pass
            call.commit()
        with CallTransaction(tables.open) as call, pytest.raises(ZeroDivisionError):
            async with call.during(None):
                raise ZeroDivisionError

    asyncio.run(scenario())
    assert ["settled", "committed", "undone"] == tables.notes
