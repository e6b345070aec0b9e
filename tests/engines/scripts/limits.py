"""Time: runs and tools that take too long, and what was used until then."""

from __future__ import annotations

import asyncio

from heartbit.core.agent import AgentDefinition
from heartbit.core.events import (
    DeadlinePassed,
    ModelReplied,
    RunCancelled,
    RunFailed,
    SubRunFinished,
    ToolReturned,
)
from heartbit.core.messages import Json, Usage
from heartbit.core.tools import ToolOutput
from heartbit.tools.base import BoundTool, ToolContext
from tests.support.model_server import Gate, Raw, Reply
from tests.support.parity import (
    ADD,
    Answer,
    Asked,
    Outcome,
    Script,
    both,
    calls,
    failed_with,
    make_tool,
    once,
    result_says,
)

NEVER = Reply(text="Too late.", gate=Gate())
SUM = calls(("add", {"a": 1, "b": 2}))
SECONDS = 0.5  # long enough for the turns before it on a busy machine


async def _hang(arguments: Json, context: ToolContext) -> ToolOutput:
    return await asyncio.get_running_loop().create_future()


HANG = BoundTool(spec=make_tool("hang", lambda: "").spec, run=_hang)


def _slow_second(asked: Asked) -> Reply:
    return SUM if asked.turn == 1 else NEVER


def _timed_out(got: Outcome) -> None:
    assert ["model_replied", "tool_returned", "deadline_passed", "run_failed"] == [
        kind for _, kind in got.steps()[1:]
    ]
    assert Usage(input_tokens=10, output_tokens=5) == got.output.usage
    assert got.output.usage == got.events(RunFailed)[0].usage
    assert (1, 2) == (got.output.tool_calls_made, got.output.turns)


ADA = AgentDefinition(name="ada", system_prompt="I am ada.", tools=(ADD.spec,))
HASTY = AgentDefinition(
    name="ada", system_prompt="I am ada.", tools=(ADD.spec,), run_timeout_seconds=SECONDS
)
WORK = calls(("delegate_task", {"tasks": [{"agent": "ada", "task": "add"}]}))


def _chief(sub: AgentDefinition, seconds: float | None) -> AgentDefinition:
    return AgentDefinition(
        name="chief",
        system_prompt="I am the chief.",
        delegates=(sub,),
        run_timeout_seconds=seconds,
    )


def _team(asked: Asked) -> Answer:
    return once(WORK)(asked) if "chief" in asked.system else _slow_second(asked)


def _sub_run_was_stopped(got: Outcome) -> None:
    assert ["deadline_passed", "sub_run_finished", "run_failed"] == [k for _, k in got.steps()[-3:]]
    [finished] = got.events(SubRunFinished)
    assert ("cancelled", 10, 1) == (
        finished.status,
        finished.usage.input_tokens,
        finished.tool_calls_made,
    )
    assert 1 == len(got.events(RunCancelled, "1/sub/0"))
    assert 1 == len(got.events(ModelReplied, "1/sub/0"))
    assert (20, 2) == (got.output.usage.input_tokens, got.output.tool_calls_made)


def _sub_run_timed_out(got: Outcome) -> None:
    assert 1 == len(got.events(DeadlinePassed, "1/sub/0"))
    assert [] == got.events(DeadlinePassed)
    late = f"The run took longer than {SECONDS:g} seconds; give it less to do or more time."
    told = f"=== Agent: ada ===\nError: {late}"
    assert ("succeeded", told) == (got.output.status, got.output.result)
    assert 30 == got.output.usage.input_tokens
    assert told == got.asked[-1].results[0]["content"]
    assert got.asked[-1].results[0]["is_error"]


def _broken_second(asked: Asked) -> Answer:
    return SUM if asked.turn == 1 else Raw(status=401, body=b"{}")


def _first_turn_counts(got: Outcome) -> None:
    assert Usage(input_tokens=10, output_tokens=5) == got.output.usage
    assert ["3"] == [event.content for event in got.events(ToolReturned)]


SCRIPTS = [
    Script(
        name="a run that takes too long fails, and keeps what it used",
        agent=AgentDefinition(name="solo", tools=(ADD.spec,), run_timeout_seconds=SECONDS),
        answer=_slow_second,
        expect=both(failed_with("run_timed_out", f"longer than {SECONDS:g} seconds"), _timed_out),
        tools=[ADD],
    ),
    Script(
        name="a deadline stops the sub-runs too, and counts what they used",
        agent=_chief(ADA, SECONDS),
        answer=_team,
        expect=both(failed_with("run_timed_out"), _sub_run_was_stopped),
        tools=[ADD],
    ),
    Script(
        name="a sub-agent that takes too long is told to the orchestrator",
        agent=_chief(HASTY, None),
        answer=_team,
        expect=_sub_run_timed_out,
        tools=[ADD],
    ),
    Script(
        name="a tool that takes too long is an error result",
        agent=AgentDefinition(name="solo", tools=(HANG.spec,), tool_timeout_seconds=0.02),
        answer=once(calls(("hang", {}))),
        expect=result_says("Tool execution timed out after 0.02 seconds."),
        tools=[HANG],
    ),
    Script(
        name="a run that fails in a later turn keeps what the earlier ones used",
        agent=AgentDefinition(name="solo", tools=(ADD.spec,)),
        answer=_broken_second,
        expect=both(failed_with("model_call_failed"), _first_turn_counts),
        tools=[ADD],
    ),
]
