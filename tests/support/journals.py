"""Runs without an engine: replies and outcomes by hand, fed to the rules one event at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from heartbit.core.agent import AgentDefinition
from heartbit.core.commands import Command
from heartbit.core.events import Event, ModelReplied, RunStarted, SubRunFinished, ToolReturned
from heartbit.core.messages import (
    Completion,
    Part,
    StopReason,
    TextPart,
    ToolCall,
    ToolResult,
    Usage,
)
from heartbit.core.run import Step, advance
from heartbit.core.state import RunState
from heartbit.core.tools import ToolSpec

TENTH = Usage(input_tokens=10, output_tokens=1)


def spec(name: str, **options: Any) -> ToolSpec:
    """A tool that takes any object."""
    return ToolSpec(
        name=name,
        description=f"The tool {name}.",
        input_schema={"type": "object"},
        ref=f"test:{name}",
        **options,
    )


LOOK, MOVE = spec("look"), spec("move")
SOLO = AgentDefinition(name="solo", system_prompt="You act.", tools=(LOOK, MOVE))
SUBS = (
    AgentDefinition(name="ada", system_prompt="I am ada."),
    AgentDefinition(name="bob", system_prompt="I am bob."),
)
CHIEF = AgentDefinition(name="chief", system_prompt="I am the chief.", delegates=SUBS)


def started(definition: AgentDefinition = SOLO, prompt: str = "Go.") -> RunStarted:
    """The first event of a run."""
    return RunStarted(prompt=prompt, definition=definition, blackboard="board")


def call(name: str, call_id: str = "c", **arguments: Any) -> ToolCall:
    """A tool call of a reply."""
    return ToolCall(id=call_id, name=name, arguments=arguments)


def delegating(*tasks: tuple[str, str], tool: str = "delegate_task") -> ToolCall:
    """A delegation of (agent, task) pairs."""
    return call(tool, tasks=[{"agent": agent, "task": task} for agent, task in tasks])


def replied(turn: int, *said: str | ToolCall, stop: StopReason | None = None) -> ModelReplied:
    """What the model said in a turn: texts and calls."""
    parts: tuple[Part, ...] = tuple(
        TextPart(text=part) if isinstance(part, str) else part for part in said
    )
    has_calls = any(isinstance(part, ToolCall) for part in parts)
    completion = Completion(
        parts=parts,
        stop_reason=stop or ("tool_use" if has_calls else "end_turn"),
        usage=TENTH,
        cost_usd=0.5,
    )
    return ModelReplied(step=f"{turn}/model", completion=completion)


def returned(step: str, content: str = "seen", *, is_error: bool = False) -> ToolReturned:
    """The result of a tool."""
    return ToolReturned(step=step, content=content, is_error=is_error)


def sub_finished(step: str, agent: str = "ada", **values: Any) -> SubRunFinished:
    """The end of a sub-run, successful unless told otherwise."""
    known: dict[str, Any] = {
        "status": "succeeded",
        "result": f"{agent} says {step}",
        "cost_usd": 0.25,
    }
    return SubRunFinished(step=step, sub_run_id="sub", sub_agent=agent, **(known | values))


def follow(events: Iterable[Event]) -> Step:
    """The state after `events`, and the commands of the last of them."""
    state: RunState | None = None
    commands: tuple[Command, ...] = ()
    for event in events:
        state, commands = advance(state, event)
    assert state is not None
    return state, commands


def results(state: RunState) -> list[str]:
    """What the model was told about its latest calls, in order."""
    return [part.content for part in state.messages[-1].parts if isinstance(part, ToolResult)]
