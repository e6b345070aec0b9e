"""The agents of the chaos tests: what their model says, decided from each request alone.

They do everything that has a boundary: sub-agents at the same time, tools at the same time, a call
that a human is asked about, a blackboard, memories that are put together at the end, and a
conversation that is summarised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import heartbit
from heartbit.core.messages import ToolCall, ToolResult
from heartbit.core.request import ModelRequest
from heartbit.core.tools import DELEGATE
from heartbit.providers.scripted import Reply, call


@heartbit.tool(effect="pure")
async def look(what: str) -> str:
    """Look."""
    return what


@heartbit.tool(effect="idempotent")
async def book(what: str) -> str:
    """Book."""
    return what


@heartbit.tool
async def pay(what: str) -> str:
    """Pay: must not be done twice."""
    return what


TASKS = [
    {"agent": "clerk", "task": "Pay, and write it down."},
    {"agent": "scout", "task": "Look around."},
]
DESK = "The cash desk is downstairs."
HOURS = "The cash desk opens at nine."
STAMP = "A stamp costs one euro."
# Where a tool wants the id of a memory, this says what the memory said when it was stored.
TURNS: dict[str, Sequence[Sequence[ToolCall]]] = {
    "clerk": [
        [
            call("look", what="at the bill"),
            call("pay", what="the bill"),
            call("memory_store", content="The bill came in May.", keywords=["bill"]),
            call("memory_store", content=DESK),
            call("memory_store", content=HOURS),
            call("memory_store", content=STAMP),
        ],
        [
            call("book", what="the payment"),
            call("memory_store", content="The bill is paid.", keywords=["bill"], importance=9),
            call(
                "memory_consolidate",
                source_ids=[DESK, HOURS],
                content="The cash desk is downstairs and opens at nine.",
            ),
            call("memory_update", id=STAMP, content="A stamp costs two euros."),
        ],
        [
            call("blackboard_write", key="paid", value="the bill"),
            call("memory_recall", query="desk"),
        ],
    ],
    "scout": [
        [
            call("look", what="left"),
            call("pay", what="the fare"),
            call("memory_store", content="There is a lake on the left."),
        ]
    ],
}


def reply(request: ModelRequest) -> Reply:
    """The next turn of whoever asks; nothing depends on what a tool gave."""
    names = {tool.name for tool in request.tools}
    if not names:
        return "A bill." if "condense" in request.system else "So far they paid."
    said = sum(message.role == "assistant" for message in request.messages)
    if DELEGATE in names:
        return "All is done." if said else call(DELEGATE, tasks=TASKS)
    turns = TURNS["clerk" if "book" in names else "scout"]
    turn = len(turns) if "So far they paid." in request.messages[0].text else said
    return [_with_ids(each, request) for each in turns[turn]] if turn < len(turns) else "Done."


def _with_ids(wanted: ToolCall, request: ModelRequest) -> ToolCall:
    """The call with the ids of memories, as the conversation tells them."""
    given = dict(wanted.arguments)
    if "id" in given:
        given["id"] = _id_of(given["id"], request)
    if "source_ids" in given:
        given["source_ids"] = [_id_of(content, request) for content in given["source_ids"]]
    return replace(wanted, arguments=given)


def _id_of(content: str, request: ModelRequest) -> str:
    parts = [part for message in request.messages for part in message.parts]
    [call_id] = [
        part.id
        for part in parts
        if isinstance(part, ToolCall) and part.arguments.get("content") == content
    ]
    [said] = [p.content for p in parts if isinstance(p, ToolResult) and p.call_id == call_id]
    return said.split()[2].rstrip(".")
