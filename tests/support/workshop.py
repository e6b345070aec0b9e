"""Tools with tables of their own, worked with by the real runtime or in one process.

The runtime has a real journal, and messages that lie there to be delivered by the test.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import psycopg

from heartbit.core.agent import AgentDefinition
from heartbit.core.events import Event, RunRouted, RunStarted, ToolReturned
from heartbit.core.messages import ToolResult
from heartbit.core.request import ModelRequest
from heartbit.engines.plan import RunPlace
from heartbit.engines.standalone import StandaloneRun, World
from heartbit.loop import background_loop
from heartbit.orchestrator import Resolved
from heartbit.providers.scripted import Reply, ScriptedProvider
from heartbit.runtime import Runtime
from heartbit.stores.postgres import PostgresJournal
from heartbit.stores.tool_database import ToolDatabase
from heartbit.tools.base import Tool
from heartbit.tools.memory import Memories
from tests.support.bench import Message, Outbox
from tests.support.durable import FixedOrchestrator

TABLES = """
    drop table if exists bookings, rooms;
    create table rooms (room text primary key);
    create table bookings (
        room text not null,
        references_room text references rooms deferrable initially deferred,
        by_run text
    );
"""


def execute(database: str, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """The rows of a query, in a transaction of its own."""
    with psycopg.connect(database, autocommit=True) as connection:
        cursor = connection.execute(query, values or None)
        return cursor.fetchall() if cursor.description else []


def rooms(database: str) -> list[str]:
    """What was booked, and committed."""
    return [room for (room,) in execute(database, "select room from bookings order by room")]


def answers(*calls: Reply) -> Callable[[ModelRequest], Reply]:
    """A model that makes these calls at once, and then says what their results are."""

    def reply(request: ModelRequest) -> Reply:
        parts = [part for message in request.messages for part in message.parts]
        results = [part.content for part in parts if isinstance(part, ToolResult)]
        return " | ".join(results) if results else list(calls)  # type: ignore[arg-type]

    return reply


def agent(*tools: Tool, **limits: Any) -> AgentDefinition:
    """An agent with these tools."""
    return AgentDefinition(name="solo", tools=tuple(each.spec for each in tools), **limits)


def standalone(
    database: str | None, tools: Sequence[Tool], *calls: Reply, **limits: Any
) -> list[Event]:
    """The journal of a run in one process."""
    tables = ToolDatabase(database) if database else None
    world = World(
        providers={"default": ScriptedProvider(answers(*calls))},
        tools={each.spec.ref: each for each in tools},
        tables=tables.tables if tables else None,
    )
    run = StandaloneRun(world, RunStarted(prompt="Go.", definition=agent(*tools, **limits)))
    asyncio.run(run.drive())
    if tables is not None:
        tables.close()
    return run.events


class Workshop:
    """One worker process, in which the test is everybody else."""

    def __init__(
        self,
        database: str,
        tools: Sequence[Tool],
        *calls: Reply,
        lease_seconds: float = 15.0,
        batch_seconds: float | None = None,
        say: Callable[[ModelRequest], Reply] | None = None,
        memories: Memories | None = None,
        **limits: Any,
    ) -> None:
        self.outbox = Outbox()
        self.provider = ScriptedProvider(say or answers(*calls))
        self.run_id = str(uuid.uuid4())
        definition = agent(*tools, **limits)
        resolved = Resolved(
            definition=definition,
            routed=RunRouted(decision="single_agent", selected_agent="", reason="A test's."),
            tools={each.spec.ref: each for each in tools},
        )
        self.runtime = Runtime(
            journal=PostgresJournal(database),
            outbox=self.outbox,
            orchestrator=FixedOrchestrator({"default": self.provider}, None, resolved),  # type: ignore[arg-type]
            resources=AsyncExitStack(),
            loop=background_loop(),
            lease_seconds=lease_seconds,
            batch_seconds=batch_seconds,
            memories=memories,
        )
        self.engine, self.journal = self.runtime.engine, self.runtime.journal
        place = RunPlace(run_id=self.run_id, root_run_id=self.run_id)
        start = RunStarted(prompt="Go.", definition=definition, blackboard=self.run_id)
        self.engine.open(place, start, task_id=self.run_id)
        self.engine.resume(self.run_id)

    @property
    def events(self) -> tuple[Event, ...]:
        """The journal of the run."""
        return self.journal.events(self.run_id)

    def result(self, position: int = 0) -> ToolReturned:
        """What a call of the first turn has come to."""
        step = f"1/tool/{position}"
        [found] = [e for e in self.events if isinstance(e, ToolReturned) and e.step == step]
        return found

    def deliver(self) -> Message:
        """Do what the oldest message asks for."""
        message = self.outbox.messages.pop(0)
        if message[0] == "step":
            self.engine.step(*message[1:])
        elif message[0] == "look":
            self.engine.resume(message[1])
        return message

    def deliver_all(self) -> None:
        """Deliver until no message is left."""
        while self.outbox.messages:
            self.deliver()

    def lose(self, step: str = "1/tool/0") -> None:
        """Another process has begun a step, and is lost: its lease is over."""
        journal = self.journal
        claim = journal.claim(self.run_id, step, owner="lost", lease_seconds=-1, known=0)
        assert claim.why_not is None, claim
        self.outbox.messages.clear()


@contextmanager
def workshop(
    database: str, tools: Sequence[Tool], *calls: Reply, **options: Any
) -> Iterator[Workshop]:
    """A workshop that is closed at the end."""
    made = Workshop(database, tools, *calls, **options)
    try:
        yield made
    finally:
        made.runtime.close()
