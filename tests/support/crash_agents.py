"""Agents for tests that kill workers: every call leaves a line in a file, and can be held back.

`$CRASH_DIRECTORY` is where the lines go: `calls` has "tool attempt" for each call that was begun. A
call of a tool goes on when the file `{tool}.go` is there.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import heartbit
from heartbit import ToolContext
from heartbit.core.messages import ToolResult
from heartbit.core.request import ModelRequest
from heartbit.providers.scripted import Reply, call


def directory() -> Path:
    """Where the test and its workers meet."""
    return Path(os.environ["CRASH_DIRECTORY"])


def _note(name: str) -> None:
    with (directory() / "calls").open("a") as lines:
        lines.write(f"{name}\n")


def _wait_for(name: str) -> None:
    while not (directory() / name).exists():
        time.sleep(0.01)


async def _begin(name: str, context: ToolContext) -> str:
    _note(name)
    while not (directory() / f"{name}.go").exists():  # noqa: ASYNC110 - from elsewhere
        await asyncio.sleep(0.01)
    return f"{name} done"


@heartbit.tool(effect="pure")
async def look(context: ToolContext) -> str:
    """Only look: may be done again."""
    return await _begin("look", context)


@heartbit.tool
async def pay(context: ToolContext) -> str:
    """Pay: must not be done twice."""
    return await _begin("pay", context)


@heartbit.tool(on_doubt="ask_human")
async def fire(context: ToolContext) -> str:
    """Fire: must not be done twice, and a human decides."""
    return await _begin("fire", context)


@heartbit.tool(effect="transactional")
def book(context: ToolContext) -> str:
    """Book a room: a row in the tool's own table."""
    context.connection.execute(
        "insert into crash_bookings (attempt) values (%s)", [context.attempt]
    )
    _note("book")
    _wait_for("book.go")
    return f"booked in attempt {context.attempt}"


@heartbit.tool
def wire(context: ToolContext) -> str:
    """Wire money: a line in a ledger, which can be looked at."""
    _note("wire")
    _wait_for("wire.go")
    with (directory() / "ledger").open("a") as lines:
        lines.write("wired\n")
    _wait_for("wire.end")
    return "wired"


@wire.probe
def wired() -> str | None:
    """Look into the ledger."""
    ledger = directory() / "ledger"
    return "wired, says the ledger" if ledger.exists() and ledger.read_text() else None


@heartbit.tool(effect="pure")
async def vanish(context: ToolContext) -> str:
    """End the process at once, without a word."""
    _note("vanish")
    os._exit(1)


@heartbit.tool(effect="pure")
async def crash(context: ToolContext) -> str:
    """Be killed, as by a kernel that is out of memory."""
    _note("crash")
    os.kill(os.getpid(), signal.SIGKILL)
    return "still there"


def reply(request: ModelRequest) -> Reply:
    """Call the tools that the prompt names, all at once, then say what they said."""
    with (directory() / "requests").open("a") as lines:
        lines.write(f"{len(request.messages)}\n")
    parts = [part for message in request.messages for part in message.parts]
    results = [part.content for part in parts if isinstance(part, ToolResult)]
    if results:
        return " | ".join(results)
    return [call(name) for name in request.messages[0].text.split()]
