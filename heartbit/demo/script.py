"""What the demo's scripted model says: decided from each request alone, so agents can be parallel.

The orchestrator hands one piece of work to each of the two agents of demo.toml, both draw the
number from their MCP server, the analyst has a function tool compute with it, and the orchestrator
puts the two results together.
"""

from __future__ import annotations

import re

from heartbit.core.messages import TextPart, ToolCall, ToolResult
from heartbit.core.request import ModelRequest
from heartbit.core.tools import DELEGATE
from heartbit.providers.scripted import Reply, call

_NUMBER = re.compile(r"\b\d{6}\b")


def reply(request: ModelRequest) -> Reply:
    """The next reply of whichever agent is asking: the tools it was given tell which one it is."""
    names = {tool.name for tool in request.tools}
    if DELEGATE in names:
        return _orchestrator(request)
    if "prime_factors" in names:
        return _analyst(request)
    return _researcher(request)


def _orchestrator(request: ModelRequest) -> Reply:
    if not (results := _results(request)):
        prompt = _prompt(request)
        return [
            "I hand this to two agents at the same time.",
            call(
                DELEGATE,
                tasks=[
                    {"agent": "researcher", "task": f"Draw the number. It is needed for: {prompt}"},
                    {"agent": "analyst", "task": f"Take the number apart. It is for: {prompt}"},
                ],
            ),
        ]
    return f"You asked: {_prompt(request)}\n\nMy agents found:\n\n{results[-1]}"


def _researcher(request: ModelRequest) -> Reply:
    results = _results(request)
    if not results:
        return _draw(request)
    return f"The MCP server drew the number {results[-1]} when it started."


def _analyst(request: ModelRequest) -> Reply:
    results = _results(request)
    if not results:
        return _draw(request)
    found = _NUMBER.fullmatch(results[-1])
    if found and len(results) == 1:
        return call("prime_factors", number=int(found[0]))
    return f"A function tool computed from it: {results[-1]}."


def _draw(request: ModelRequest) -> Reply:
    tool = next((each.name for each in request.tools if each.name.endswith("draw_number")), None)
    return call(tool) if tool else "I have no tool that draws a number."


def _prompt(request: ModelRequest) -> str:
    return next(part.text for part in request.messages[0].parts if isinstance(part, TextPart))


def _results(request: ModelRequest) -> list[str]:
    parts = [part for message in request.messages for part in message.parts]
    assert all(isinstance(part, TextPart | ToolCall | ToolResult) for part in parts)  # noqa: S101
    return [part.content for part in parts if isinstance(part, ToolResult)]
