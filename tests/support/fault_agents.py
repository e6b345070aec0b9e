"""Agents for tests that disturb a fleet: what a run does stands in its prompt, effects in files.

A prompt is the JSON of {"name": ..., "turns": [[call, ...], ...]}: the calls of each turn, and
after the last one the results of all as the answer, or the name if there are none. A call is
"tool label" or "tool label gate": such a call, once begun, goes on when the test has made the file
`gate`, or after so many seconds if that is a number. {"team": [prompt, ...]} hands prompts to
sub-agents. `$FAULTS` is the directory where the test and its workers meet; `begun` there has a line
for each call that was begun, `requests` one for each request to the model.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import heartbit
from heartbit import ToolContext
from heartbit.core.messages import ToolCall, ToolResult
from heartbit.core.request import ModelRequest
from heartbit.core.tools import DELEGATE
from heartbit.providers.scripted import Reply, call


def directory() -> Path:
    """Where the test and its workers meet."""
    return Path(os.environ["FAULTS"])


def _note(file: str, *words: object) -> None:
    # One write of one line in append mode is never mixed with those of other processes.
    with (directory() / file).open("a", errors="backslashreplace") as lines:
        lines.write(" ".join(map(str, words)) + "\n")


def _is_open(gate: str) -> bool:
    return not gate or (directory() / gate).exists()


async def _act(tool: str, label: str, gate: str, context: ToolContext) -> str:
    _note("begun", tool, label, context.idempotency_key, context.attempt)
    if gate.replace(".", "").isdigit():
        await asyncio.sleep(float(gate))
        return f"{tool}-{label}"
    while not _is_open(gate):  # noqa: ASYNC110 - from elsewhere
        await asyncio.sleep(0.01)
    return f"{tool}-{label}"


@heartbit.tool(effect="pure")
async def look(context: ToolContext, label: str, gate: str = "") -> str:
    """Only look: may be done again."""
    return await _act("look", label, gate, context)


@heartbit.tool(effect="idempotent")
async def book(context: ToolContext, label: str, gate: str = "") -> str:
    """Book: may be done again under the same key."""
    return await _act("book", label, gate, context)


@heartbit.tool
async def pay(context: ToolContext, label: str, gate: str = "") -> str:
    """Pay: must not be done twice."""
    return await _act("pay", label, gate, context)


@heartbit.tool(effect="idempotent")
async def sign(context: ToolContext, label: str, gate: str = "") -> str:
    """Sign: a human is asked first."""
    return await _act("sign", label, gate, context)


@heartbit.tool(effect="pure", timeout_seconds=60)
async def block(context: ToolContext, label: str, gate: str = "") -> str:
    """Hold up the whole loop, as a tool does that calls time.sleep."""
    _note("begun", "block", label, context.idempotency_key, context.attempt)
    while not _is_open(gate):
        time.sleep(0.01)  # noqa: ASYNC251 - that is the fault
    return f"block-{label}"


def reply(request: ModelRequest) -> Reply:
    """The calls of the next turn; after the last one, all results."""
    plan = json.loads(request.messages[0].text, strict=False)  # a prompt may have any character
    done = sum(message.role == "assistant" for message in request.messages)
    _note("requests", plan["name"], done + 1)
    if done < len(plan["turns"]):
        return [_call(each) for each in plan["turns"][done]]
    parts = [part for message in request.messages for part in message.parts]
    results = [part.content for part in parts if isinstance(part, ToolResult)]
    return " ".join(results) or str(plan["name"])


def _call(order: Any) -> ToolCall:
    if isinstance(order, str):
        tool, label, *gate = order.split()
        return call(tool, label=label, gate="".join(gate))
    tasks = [{"agent": "helper", "task": each} for each in order["team"]]
    return call(DELEGATE, tasks=tasks)
