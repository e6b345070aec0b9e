"""The agents of the durable demo: what their model says, and the tool with an effect.

Both write down what they do in the directory $HEARTBIT_DEMO_DIRECTORY, so that the demo can show
afterwards what was done twice and what was not. As long as there is a file `held`, the model does
not answer once a tool has given something: whoever kills its worker then comes in time.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from heartbit.core.messages import TextPart, ToolResult
from heartbit.core.request import ModelRequest
from heartbit.core.tools import DELEGATE
from heartbit.providers.scripted import Reply, call
from heartbit.tools.function import tool

SECONDS_PER_TURN = 0.5
SECONDS_PER_LOOK = 0.05
HELD = "held"
ASKED = "asked.log"
BOARD = "board.txt"
AT_WORK = "The analyst takes 360360 apart."
# Who asks is told by the first of these among its tools.
TOOLS = {"orchestrator": DELEGATE, "analyst": "prime_factors", "publisher": "put_up"}


@tool(effect="at_most_once")
def put_up(notice: str) -> str:
    """Put a notice on the board.

    Args:
        notice: What it says.
    """
    _note(BOARD, as_line(notice))
    return f"The board says: {notice}"


def as_line(notice: str) -> str:
    """A notice as it stands on the board."""
    return " ".join(notice.split())


async def reply(request: ModelRequest) -> Reply:
    """The next reply of whichever agent is asking, after a while."""
    names = {each.name for each in request.tools}
    agent = next(each for each, own in TOOLS.items() if own in names)
    turn = 1 + sum(message.role == "assistant" for message in request.messages)
    _note(ASKED, f"{agent} {turn}")
    await asyncio.sleep(SECONDS_PER_TURN)
    while turn > 1 and _path(HELD).exists():  # noqa: ASYNC110 - another process ends it
        await asyncio.sleep(SECONDS_PER_LOOK)
    return _said(request, names)


def _said(request: ModelRequest, names: set[str]) -> Reply:
    parts = [part for message in request.messages for part in message.parts]
    results = [part.content for part in parts if isinstance(part, ToolResult)]
    prompt = next(part.text for part in parts if isinstance(part, TextPart))
    if DELEGATE in names and not results:
        work = [
            {"agent": "analyst", "task": "Take 360360 apart."},
            {"agent": "publisher", "task": f"Announce: {prompt}"},
        ]
        return ["I hand this to two agents at the same time.", call(DELEGATE, tasks=work)]
    if results:
        return results[-1]
    if "prime_factors" in names:
        return [call("put_up", notice=AT_WORK), call("prime_factors", number=360360)]
    return call("put_up", notice=prompt)


def _note(name: str, line: str) -> None:
    with _path(name).open("a") as file:
        file.write(f"{line}\n")


def _path(name: str) -> Path:
    return Path(os.environ["HEARTBIT_DEMO_DIRECTORY"], name)
