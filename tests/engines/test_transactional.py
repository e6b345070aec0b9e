"""Tools that write to tables of their own: kept together with their result, or not at all."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

import heartbit
from heartbit import Agent, Orchestrator, ToolContext
from heartbit.core.events import Event, RunFinished, ToolReturned
from heartbit.core.tools import ToolOutput
from heartbit.errors import ConfigError, ToolError
from heartbit.providers.scripted import ScriptedProvider, call
from heartbit.tools.base import Tool
from tests.support.parity import canonical
from tests.support.workshop import TABLES, answers, execute, rooms, standalone, workshop

Engine = Callable[..., list[Event]]


@pytest.fixture
def database(postgres: str) -> str:
    """A database with the tables of the tools."""
    execute(postgres, TABLES)
    return postgres


def in_a_fleet(database: str, tools: list[Tool], *calls: Any, **limits: Any) -> list[Event]:
    """The journal of a durable run."""
    with workshop(database, tools, *calls, **limits) as shop:
        shop.deliver_all()
        return list(shop.events)


both = pytest.mark.parametrize("engine", [standalone, in_a_fleet])


def said(events: list[Event]) -> list[str]:
    """The results of all calls, by position; errors are marked."""
    found = [each for each in events if isinstance(each, ToolReturned)]
    found.sort(key=lambda each: each.step)
    return [f"error: {each.content}" if each.is_error else each.content for each in found]


def book_into(connection: Any, room: str) -> None:
    """Write what a booking is."""
    connection.execute("insert into bookings (room) values (%s)", [room])


@heartbit.tool(effect="transactional")
def book(room: str, context: ToolContext) -> str:
    """Book a room."""
    book_into(context.connection, room)
    return f"booked {room}"


@both
def test_what_a_tool_writes_is_kept(engine: Engine, database: str) -> None:
    """The same code on both engines."""
    events = engine(database, [book], call("book", room="a"))
    assert ["booked a"] == said(events)
    assert ["a"] == rooms(database)
    assert isinstance(events[-1], RunFinished)


@heartbit.tool(effect="transactional")
def book_and_fail(room: str, context: ToolContext) -> str:
    """Book a room, and think better of it."""
    book_into(context.connection, room)
    raise ToolError(f"{room} is too small")


@heartbit.tool(effect="transactional")
def book_and_refuse(room: str, context: ToolContext) -> ToolOutput:
    """Book a room, and say that it was not possible."""
    book_into(context.connection, room)
    return ToolOutput(content=f"{room} is taken", is_error=True)


@heartbit.tool(effect="transactional")
def book_twice(room: str, context: ToolContext) -> str:
    """Book a room and break a rule of the table, as many find out from the database only."""
    book_into(context.connection, room)
    context.connection.execute("insert into rooms (room) values (%s), (%s)", [room, room])
    return "twice"


@heartbit.tool(effect="transactional")
def book_unknown(room: str, context: ToolContext) -> str:
    """Book a room that does not exist, which the database looks at only in the end."""
    context.connection.execute(
        "insert into bookings (room, references_room) values (%s, 'no such room')", [room]
    )
    return "booked"


@heartbit.tool(effect="transactional")
def book_and_return_oddly(room: str, context: ToolContext) -> object:
    """Book a room, and return what has no JSON form."""
    book_into(context.connection, room)
    return object()


@both
@pytest.mark.parametrize(
    ("tool", "message"),
    [
        (book_and_fail, "error: a is too small"),
        (book_and_refuse, "error: a is taken"),
        (book_twice, "error: UniqueViolation: duplicate key value"),
        (book_unknown, "error: ForeignKeyViolation: insert or update"),
        (book_and_return_oddly, "error: book_and_return_oddly has written nothing"),
    ],
    ids=lambda value: value.spec.name if hasattr(value, "spec") else "",
)
def test_a_call_that_ends_with_an_error_has_written_nothing(
    engine: Engine, database: str, tool: Tool, message: str
) -> None:
    """The model is told, and the run goes on."""
    events = engine(database, [tool], call(tool.spec.name, room="a"))
    assert said(events)[0].startswith(message)
    assert [] == rooms(database)
    assert isinstance(events[-1], RunFinished)


@heartbit.tool(effect="transactional")
def book_carefully(room: str, context: ToolContext) -> str:
    """Try something that fails, in a part of its own."""
    book_into(context.connection, room)
    try:
        with context.connection.transaction():
            context.connection.execute("insert into rooms values ('x'), ('x')")
    except psycopg.errors.UniqueViolation:
        return "only one"
    return "both"


@both
def test_a_tool_may_undo_parts_of_its_work(engine: Engine, database: str) -> None:
    """A transaction within the transaction is a savepoint."""
    assert ["only one"] == said(
        engine(database, [book_carefully], call("book_carefully", room="a"))
    )
    assert ["a"] == rooms(database)
    assert [] == execute(database, "select room from rooms")


def misbehaving(act: Callable[[Any], object]) -> Tool:
    """A tool that books, and then does to its connection what it must not."""

    @heartbit.tool(effect="transactional", name="misbehave")
    def misbehave(context: ToolContext) -> str:
        book_into(context.connection, "a")
        act(context.connection)
        return "well"

    return misbehave


def _swallow(connection: Any) -> None:
    try:
        connection.execute("select 1 / 0")
    except psycopg.Error:
        return


def _leave_open(connection: Any) -> None:
    connection.abandoned = connection.cursor().stream("select generate_series(1, 10)")
    next(connection.abandoned)


@both
@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda connection: connection.commit(), "Explicit commit() forbidden"),
        (lambda connection: connection.rollback(), "Explicit rollback() forbidden"),
        (lambda connection: connection.close(), "its connection was closed; nothing was written"),
        (_swallow, "a statement of it failed, and it went on; nothing was written"),
        (_leave_open, "it left a statement unfinished; nothing was written"),
    ],
    ids=["commit", "rollback", "close", "swallow", "leave-open"],
)
def test_what_a_tool_must_not_do_is_an_error_and_nothing_is_written(
    engine: Engine, database: str, act: Callable[[Any], object], message: str
) -> None:
    """And the next tool is not disturbed."""
    tools = [misbehaving(act), book]
    events = engine(database, tools, call("misbehave"), call("book", room="b"))
    broken, booked = said(events)
    assert broken.startswith("error: ")
    assert message in broken
    assert "booked b" == booked
    assert ["b"] == rooms(database)


@both
def test_a_tool_that_commits_by_itself_is_told_that_it_may_have_written(
    engine: Engine, database: str
) -> None:
    """Nobody can take that back."""
    tool = misbehaving(lambda connection: connection.execute("commit"))
    [broken] = said(engine(database, [tool], call("misbehave")))
    assert "it ended its transaction itself, so that what it wrote may be kept" in broken


def _spoil(connection: Any) -> None:
    connection.row_factory = dict_row
    connection.cursor_factory = psycopg.ClientCursor
    connection.execute("set search_path to nowhere")
    connection.execute("set local synchronous_commit to off")


@both
def test_what_a_tool_sets_disturbs_neither_its_journal_nor_the_next_tool(
    engine: Engine, database: str
) -> None:
    """Settings of the session, and of the connection object."""
    tools = [misbehaving(_spoil), book]
    calls = [call("misbehave"), *(call("book", room=str(n)) for n in range(8))]
    assert ["well", *(f"booked {n}" for n in range(8))] == said(engine(database, tools, *calls))
    assert ["0", "1", "2", "3", "4", "5", "6", "7", "a"] == rooms(database)


@heartbit.tool(effect="transactional", timeout_seconds=0.3)
def book_slowly(room: str, context: ToolContext) -> str:
    """Book a room, and wait for the database."""
    book_into(context.connection, room)
    context.connection.execute("select pg_sleep(30)")
    return "booked"


RELEASE = threading.Event()


@heartbit.tool(effect="transactional", timeout_seconds=0.3)
def book_absently(room: str, context: ToolContext) -> str:
    """Book a room, forget the time, and go on."""
    RELEASE.wait(20)
    book_into(context.connection, room)
    return "booked"


@both
@pytest.mark.parametrize("tool", [book_slowly, book_absently], ids=["statement", "elsewhere"])
def test_a_tool_that_takes_too_long_writes_nothing_whatever_it_does_later(
    engine: Engine, database: str, tool: Tool
) -> None:
    """It is given up; its connection is closed, and nobody else gets it."""
    RELEASE.clear()
    calls = [call(tool.spec.name, room="a"), call("book", room="b")]
    slow, booked = said(engine(database, [tool, book], *calls))
    RELEASE.set()
    # either limit may strike first: that of the call, or that of its statement
    assert "timed out" in slow or "statement timeout" in slow
    assert "booked b" == booked
    assert ["b"] == rooms(database)
    ours = "select 1 from pg_stat_activity where query = 'select pg_sleep(30)' and state = 'active'"
    until = time.monotonic() + 5
    while execute(database, ours):
        assert time.monotonic() < until, "the statement goes on"


@heartbit.tool(effect="transactional")
def book_prepared(room: str, seats: int, context: ToolContext) -> str:
    """Book a room whose name was looked up before."""
    book_into(context.connection, context.prepared)
    return f"booked {context.prepared} for {seats}"


@book_prepared.prepare
async def look_up(room: str, context: ToolContext) -> str:
    """Find the room's full name, outside of any transaction."""
    if room == "broken":
        raise ToolError("no such room")
    return f"{room.upper()} connection={context.connection} prepared={context.prepared}"


@both
def test_slow_work_is_prepared_before_the_transaction(engine: Engine, database: str) -> None:
    """It gets arguments and context, and no connection."""
    events = engine(database, [book_prepared], call("book_prepared", room="a", seats=2))
    assert ["booked A connection=None prepared=None for 2"] == said(events)
    assert ["A connection=None prepared=None"] == rooms(database)


@both
def test_what_cannot_be_prepared_is_an_error_result(engine: Engine, database: str) -> None:
    """The tool itself is not called."""
    events = engine(database, [book_prepared], call("book_prepared", room="broken", seats=2))
    assert ["error: no such room"] == said(events)


@both
def test_more_calls_at_once_than_there_are_connections_wait_their_turn(
    engine: Engine, database: str
) -> None:
    """Each has a transaction of its own."""
    calls = [call("book", room=f"{n:02}") for n in range(10)]
    assert [f"booked {n:02}" for n in range(10)] == said(engine(database, [book], *calls))
    assert [f"{n:02}" for n in range(10)] == rooms(database)


def test_a_run_without_a_database_tells_the_model() -> None:
    """Whoever made the run like this is told before it starts, see the orchestrator."""
    [refused] = said(standalone(None, [book], call("book", room="a")))
    assert "error: book is transactional, and there is no database here." == refused


def test_both_engines_write_the_same_journal(database: str) -> None:
    """Successes, failures and what was prepared."""
    tools: list[Tool] = [book, book_and_fail, book_prepared]
    calls = [
        call("book", room="a"),
        call("book_and_fail", room="b"),
        call("book_prepared", room="c", seats=1),
    ]
    expected = canonical(standalone(database, tools, *calls))
    assert expected == canonical(in_a_fleet(database, tools, *calls))
    assert expected == canonical(in_a_fleet(database, tools, *calls, batch_seconds=30))
    assert 6 == len(rooms(database))


def asking_for(tool: Tool, database: str | None) -> Orchestrator:
    """An orchestrator with one agent, which has this tool."""
    return Orchestrator(
        provider=ScriptedProvider(answers(call("book", room="a"))),
        agents=[Agent(name="desk", tools=[tool])],
        database_url=database,
    )


def test_an_orchestrator_without_a_database_refuses_a_transactional_tool() -> None:
    """Before the model is asked for anything."""
    with pytest.raises(ConfigError, match="Tool book is transactional: it needs a database"):
        asyncio.run(asking_for(book, None).run("Go."))


def test_an_orchestrator_with_a_database_runs_it(database: str) -> None:
    """One run after the other, and several at once."""

    async def main() -> None:
        await asking_for(book, database).run("Go.")
        async with asking_for(book, database) as orchestrator:
            await asyncio.gather(*(orchestrator.run("Go.") for _ in range(6)))

    asyncio.run(main())
    assert ["a"] * 7 == rooms(database)


def test_a_database_that_cannot_be_reached_is_an_error_result() -> None:
    """No model waits for ever, and no password is told."""
    nowhere = "postgresql://someone:secret@127.0.0.1:9/none"
    [refused] = said(standalone(nowhere, [book], call("book", room="a")))
    assert refused.startswith("error: The database cannot be reached")
    assert "secret" not in refused
