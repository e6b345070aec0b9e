"""Tool profiles: what is not shown to the model cannot be called by it either."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from heartbit.core.agent import AgentDefinition, ToolProfile
from heartbit.core.events import ToolReturned
from heartbit.tools.base import BoundTool
from tests.support.parity import Outcome, Script, calls, make_tool, once

READ = make_tool("read", lambda: "read it")
TODOS = make_tool("todoread", lambda: "no todos")
BOARD = make_tool("blackboard_list", lambda: "no keys")
OWN = make_tool("book_room", lambda: "booked")
OWN = BoundTool(spec=replace(OWN.spec, ref="python:app.tools:book_room"), run=OWN.run)
TOOLS = [READ, TODOS, BOARD, OWN]
ALL = ["read", "todoread", "blackboard_list", "book_room"]
RESULTS = {"read": "read it", "todoread": "no todos", "blackboard_list": "no keys"} | {
    "book_room": "booked"
}
SUB = AgentDefinition(name="ada", description="Adds.", system_prompt="I am ada.")


def _agent(profile: ToolProfile | None, **options: Any) -> AgentDefinition:
    tools = tuple(tool.spec for tool in TOOLS)
    return AgentDefinition(name="solo", tools=tools, tool_profile=profile, **options)


def _only(*shown: str) -> Any:
    """Just these tools are offered, and just these can be called."""

    def expect(got: Outcome) -> None:
        assert list(shown) == got.asked[0].tools
        results = {event.step: event for event in got.events(ToolReturned)}
        for position, name in enumerate(ALL):
            result = results[f"1/tool/{position}"]
            if name in shown:
                assert (RESULTS[name], False) == (result.content, result.is_error)
            else:
                assert result.is_error
                assert f"Tool not found: {name!r}." in result.content

    return expect


def _rules_stay(got: Outcome) -> None:
    assert ["todoread", "delegate_task", "__respond__"] == got.asked[0].tools


EVERY = once(calls(*((name, {}) for name in ALL)))
PROFILES: list[tuple[str, ToolProfile | None, list[str]]] = [
    ("without a profile every tool is shown and can be called", None, ALL),
    ("the full profile shows every tool", "full", ALL),
    ("the standard profile hides an agent's own tools and refuses them", "standard", ALL[:3]),
    (
        "the conversational profile hides files and the blackboard and refuses them",
        "conversational",
        ["todoread"],
    ),
]

SCRIPTS = [
    Script(name=name, agent=_agent(profile), answer=EVERY, expect=_only(*shown), tools=TOOLS)
    for name, profile, shown in PROFILES
] + [
    Script(
        name="delegation and the structured answer are shown in every profile",
        agent=_agent(
            "conversational", delegates=(SUB,), response_schema={"type": "object"}, max_turns=2
        ),
        answer=lambda asked: calls(("__respond__", {})),
        expect=_rules_stay,
        tools=TOOLS,
    )
]
