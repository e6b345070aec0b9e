"""Transactional tools of durable runs: one transaction with the journal, whatever happens to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

import heartbit
from heartbit import ToolContext
from heartbit.core.events import LateResult, ToolReturned
from heartbit.core.messages import ToolResult
from heartbit.core.request import ModelRequest
from heartbit.core.tools import DELEGATE
from heartbit.errors import JournalUnavailable
from heartbit.providers.scripted import Reply, call
from heartbit.stores import database as connections
from heartbit.tools.base import Tool
from tests.support.workshop import TABLES, Workshop, agent, execute, rooms, workshop

CALL = "1/tool/0"
EXPIRE = "update steps set lease_expires_at = heartbit_now() - interval '1 second'"
FULL_DISK = """
    create or replace function full_disk() returns trigger language plpgsql as $$
    begin
        if new.type = 'tool_returned' then
            raise exception using errcode = '53100', message = 'no space';
        end if;
        return new;
    end $$;
    create trigger full_disk before insert on run_events for each row execute function full_disk();
"""


@pytest.fixture
def database(postgres: str) -> str:
    """A database with the tables of the tools."""
    execute(postgres, TABLES)
    return postgres


class Booking:
    """A tool that books room a; in the middle of each call something happens."""

    def __init__(self) -> None:
        self.calls = 0
        self.meanwhile: Callable[[ToolContext], object] = lambda context: None

        @heartbit.tool(effect="transactional")
        def book(context: ToolContext) -> str:
            self.calls += 1
            context.connection.execute("insert into bookings (room) values ('a')")
            self.meanwhile(context)
            return f"attempt {context.attempt}"

        self.tool: Tool = book


@heartbit.tool(effect="pure")
def look() -> str:
    """Look around."""
    return "a lake"


def until_the_tool(shop: Workshop) -> None:
    """The model has asked for the calls; their messages are still to be delivered."""
    shop.deliver()


def again(shop: Workshop, database: str) -> None:
    """The lease of the lost attempt is over, and another message comes."""
    execute(database, EXPIRE)
    shop.engine.step(shop.run_id, CALL)
    shop.deliver_all()


def test_an_outcome_that_comes_after_another_attempt_leaves_nothing(database: str) -> None:
    """It was rolled back, so it is no late result either."""
    booking = Booking()
    with workshop(database, [booking.tool], call("book")) as shop:
        until_the_tool(shop)
        take_over = "update steps set attempt = attempt + 1 where step = %s"
        booking.meanwhile = lambda context: execute(database, take_over, CALL)
        shop.deliver_all()
        assert [] == rooms(database)
        assert not [e for e in shop.events if isinstance(e, ToolReturned | LateResult)]
        booking.meanwhile = lambda context: None
        again(shop, database)
        assert "attempt 3" == shop.result().content
    assert ["a"] == rooms(database)


def test_events_in_between_do_not_make_the_tool_run_again(database: str) -> None:
    """The append is thought over in the same transaction."""
    booking = Booking()
    with workshop(database, [booking.tool, look], call("book"), call("look")) as shop:
        until_the_tool(shop)
        look_first = shop.outbox.messages.pop()
        booking.meanwhile = lambda context: shop.engine.step(*look_first[1:])
        shop.deliver_all()
        assert "attempt 1 | a lake" == shop.engine.output(shop.run_id).result
    assert 1 == booking.calls
    assert ["a"] == rooms(database)


def test_an_append_that_is_refused_takes_the_writes_along(database: str) -> None:
    """A full disk: nothing is written, and the call is done again later."""
    booking = Booking()
    with workshop(database, [booking.tool], call("book")) as shop:
        until_the_tool(shop)
        execute(database, FULL_DISK)
        try:
            with pytest.raises(JournalUnavailable):
                shop.deliver()
        finally:
            execute(database, "drop trigger full_disk on run_events")
        assert [] == rooms(database)
        again(shop, database)
        assert "attempt 2" == shop.engine.output(shop.run_id).result
    assert ["a"] == rooms(database)
    assert 2 == booking.calls


def _kill_own_backend(database: str) -> Callable[[ToolContext], object]:
    def kill(context: ToolContext) -> None:
        [pid] = context.connection.execute("select pg_backend_pid()").fetchone()
        execute(database, "select pg_terminate_backend(%s)", pid)
        context.connection.execute("select 1")

    return kill


def test_a_call_whose_database_is_lost_on_the_way_is_done_again(database: str) -> None:
    """The model never hears of it."""
    booking = Booking()
    with workshop(database, [booking.tool], call("book")) as shop:
        until_the_tool(shop)
        booking.meanwhile = _kill_own_backend(database)
        with pytest.raises(JournalUnavailable, match="nothing of it was written"):
            shop.deliver()
        booking.meanwhile = lambda context: None
        again(shop, database)
        assert "attempt 2" == shop.engine.output(shop.run_id).result
    assert ["a"] == rooms(database)


def test_a_tool_that_leaves_its_transaction_idle_is_told(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Doing it again would end the same way."""
    monkeypatch.setattr(connections, "TOOL_IDLE_SECONDS", 0.05)
    booking = Booking()

    def dream(context: ToolContext) -> None:
        time.sleep(0.3)  # what the limit is about
        context.connection.execute("select 1")

    booking.meanwhile = dream
    with workshop(database, [booking.tool], call("book")) as shop:
        shop.deliver_all()
        assert shop.result().is_error
        assert "idle" in shop.result().content
    assert [] == rooms(database)


def test_no_connection_in_time_is_the_journals_failure_and_not_the_tools(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call has not begun; it is done when there is one again."""
    monkeypatch.setattr(connections, "WAIT_SECONDS", 0.05)
    monkeypatch.setattr(connections, "TOOL_CONNECTIONS", 1)
    booking = Booking()
    with workshop(database, [booking.tool], call("book")) as shop:
        until_the_tool(shop)
        with shop.journal.tool_transaction(), pytest.raises(JournalUnavailable, match="in use"):
            shop.deliver()
        assert 0 == booking.calls
        again(shop, database)
        assert ["a"] == rooms(database)


def test_a_call_that_ends_a_sub_run_takes_its_parent_along(database: str) -> None:
    """The writes, the end of the sub-run and the parent's next step are one transaction."""
    booking = Booking()
    sub = agent(booking.tool, max_turns=1)

    def say(request: ModelRequest) -> Reply:
        results = any(isinstance(p, ToolResult) for m in request.messages for p in m.parts)
        if DELEGATE not in [tool.name for tool in request.tools]:
            return call("book")
        return "done" if results else call(DELEGATE, tasks=[{"agent": "solo", "task": "Book."}])

    with workshop(database, [booking.tool], say=say, delegates=(sub,)) as shop:
        seen: list[str] = []
        booking.meanwhile = lambda context: seen.extend(e.type for e in shop.events)
        shop.deliver_all()
        assert "sub_run_finished" not in seen
        assert ("succeeded", "done") == (
            shop.engine.output(shop.run_id).status,
            shop.engine.output(shop.run_id).result,
        )
        [child] = [row for row in shop.journal.tree(shop.run_id) if row.parent_run_id]
        assert "failed" == child.status  # it had one turn, and needed two
    assert ["a"] == rooms(database)


@pytest.mark.parametrize("batch_seconds", [None, 30.0], ids=["each", "batched"])
def test_every_mode_books_once(database: str, batch_seconds: float | None) -> None:
    """Two calls side by side, each in its own transaction."""
    booking = Booking()
    calls: list[Any] = [call("book"), call("book"), call("look")]
    with workshop(database, [booking.tool, look], *calls, batch_seconds=batch_seconds) as shop:
        shop.deliver_all()
        assert "attempt 1 | attempt 1 | a lake" == shop.engine.output(shop.run_id).result
    assert ["a", "a"] == rooms(database)
