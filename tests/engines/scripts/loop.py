"""The loop itself: turns, tool calls, stop reasons, limits."""

from __future__ import annotations

import asyncio

from heartbit.core.agent import AgentDefinition
from heartbit.core.events import RunFailed, RunFinished, ToolReturned
from heartbit.core.messages import Json, Usage
from heartbit.core.tools import ToolOutput
from heartbit.tools.base import BoundTool, ToolContext
from tests.support.model_server import Call, Raw, Reply, json_answer
from tests.support.parity import (
    ADD,
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

AGENT = AgentDefinition(name="solo", system_prompt="You add.", tools=(ADD.spec,))


async def _late(arguments: Json, context: ToolContext) -> ToolOutput:
    await asyncio.sleep(0.05)
    return ToolOutput(content="at last")


LATE = BoundTool(spec=make_tool("late", lambda: "").spec, run=_late)


def _text_ends_answer(asked: Asked) -> Reply:
    return Reply(text="Done.", input_tokens=7, output_tokens=3)


def _text_ends_expect(got: Outcome) -> None:
    assert ["start", "1/model", "end"] == [step for step, _ in got.steps()]
    assert ("succeeded", "Done.", 1) == (got.output.status, got.output.result, got.output.turns)
    assert Usage(input_tokens=7, output_tokens=3) == got.output.usage


def _parallel_answer(asked: Asked) -> Reply:
    if asked.turn == 1:
        return calls(("late", {}), ("add", {"a": 10, "b": 20}))
    return Reply(text=" ".join(block["content"] for block in asked.results))


def _parallel_expect(got: Outcome) -> None:
    assert "at last 30" == got.output.result
    assert {"1/tool/0", "1/tool/1"} == {e.step for e in got.events(ToolReturned)}
    assert (2, 2) == (got.output.tool_calls_made, got.output.turns)


def _endless_answer(asked: Asked) -> Reply:
    return calls(("add", {"a": asked.turn, "b": 1}))


def _max_turns_expect(got: Outcome) -> None:
    [failed] = got.events(RunFailed)
    assert "max_turns_exceeded" == failed.code
    assert 2 == len(got.asked)
    assert ("2/tool/0", "tool_returned") in got.steps()
    assert Usage(input_tokens=20, output_tokens=10) == got.output.usage


def _cut_answer(asked: Asked) -> Reply:
    if asked.turn == 1:
        cut = calls(("add", {"a": 1, "b": 2}))
        return Reply(calls=cut.calls, stop="max_tokens")
    return Reply(text="ok")


def _cut_expect(got: Outcome) -> None:
    [result] = got.events(ToolReturned)
    assert result.is_error
    assert "max_tokens" in result.content
    [finished] = got.events(RunFinished)
    assert "ok" == finished.result


def _broken(**arguments: int) -> str:
    raise ValueError("out of paper")


BROKEN = make_tool("broken", _broken)
LONG = make_tool("long", lambda: "é" * 50)


def _nothing_ran(got: Outcome) -> None:
    assert "3" not in [event.content for event in got.events(ToolReturned)]


def _pause_answer(asked: Asked) -> Reply:
    if asked.turn == 1:
        return Reply(text="Thinking on.", stop="pause_turn")
    return Reply(text="Done.")


def _pause_expect(got: Outcome) -> None:
    assert ("Done.", 2) == (got.output.result, got.output.turns)
    assert "assistant" == got.asked[1].body["messages"][-1]["role"]


def _doom_answer(asked: Asked) -> Reply:
    if asked.turn == 4:
        return Reply(text="I give up.")
    pair = [("add", {"a": 1, "b": 2}), ("add", {"a": 3, "b": 4})]
    return calls(*(pair if asked.turn % 2 else reversed(pair)))


def _doom_expect(got: Outcome) -> None:
    contents = {event.step: event.content for event in got.events(ToolReturned)}
    assert "3" == contents["1/tool/0"]
    assert "7" == contents["2/tool/0"]
    assert "3 turns in a row" in contents["3/tool/0"]
    assert "3 turns in a row" in contents["3/tool/1"]
    assert "I give up." == got.output.result


def _budget_answer(asked: Asked) -> Reply:
    return Reply(calls=calls(("add", {"a": 1, "b": 2})).calls, input_tokens=60, output_tokens=50)


def _answer_400(asked: Asked) -> Raw:
    return json_answer(
        {"type": "error", "error": {"type": "invalid_request_error", "message": "bad"}}, 400
    )


MORE = [
    Script(
        name="an unknown tool is answered with a suggestion and the guess is never executed",
        agent=AGENT,
        answer=once(calls(("ad", {"a": 1, "b": 2}))),
        expect=both(result_says("Tool not found", "'add'"), _nothing_ran),
        tools=[ADD],
    ),
    Script(
        name="invalid input is refused with every violation named",
        agent=AGENT,
        answer=once(calls(("add", {"a": "x", "c": 1}))),
        expect=result_says("Input validation failed", "$.a", "'b' is a required property", "'c'"),
        tools=[ADD],
    ),
    Script(
        name="broken tool JSON is an error result and never repaired and run",
        agent=AGENT,
        answer=once(Reply(calls=(Call(name="add", arguments='{"a": 1, "b": 2'),))),
        expect=both(result_says("no valid JSON"), _nothing_ran),
        tools=[ADD],
    ),
    Script(
        name="a tool that fails gives the model its error and the run goes on",
        agent=AgentDefinition(name="solo", tools=(BROKEN.spec,)),
        answer=once(calls(("broken", {}))),
        expect=result_says("ValueError: out of paper"),
        tools=[BROKEN],
    ),
    Script(
        name="a tool that is not on this machine is an error result",
        agent=AGENT,
        answer=once(calls(("add", {"a": 1, "b": 2}))),
        expect=result_says("not available"),
    ),
    Script(
        name="tool output is cut at a character boundary with the omitted bytes counted",
        agent=AgentDefinition(name="solo", tools=(LONG.spec,), max_tool_output_bytes=21),
        answer=once(calls(("long", {}))),
        expect=result_says("é" * 10 + "\n\n[truncated: 80 bytes omitted]", error=False),
        tools=[LONG],
    ),
    Script(
        name="an answer cut at max_tokens fails the run and its usage is kept",
        agent=AGENT,
        answer=lambda asked: Reply(text="half a sen", stop="max_tokens"),
        expect=both(
            failed_with("reply_truncated", "max_tokens"),
            lambda got: _equal("half a sen", got.events(RunFailed)[0].text),
            lambda got: _equal(Usage(input_tokens=10, output_tokens=5), got.output.usage),
        ),
    ),
    Script(
        name="a refusal fails the run",
        agent=AGENT,
        answer=lambda asked: Reply(text="No.", stop="refusal"),
        expect=failed_with("model_refused"),
    ),
    Script(
        name="a paused turn is taken up again",
        agent=AGENT,
        answer=_pause_answer,
        expect=_pause_expect,
    ),
    Script(
        name="the same calls in any order are stopped after max_identical_tool_calls turns",
        agent=AgentDefinition(name="solo", tools=(ADD.spec,), max_identical_tool_calls=3),
        answer=_doom_answer,
        expect=_doom_expect,
        tools=[ADD],
    ),
    Script(
        name="a run over max_total_tokens fails before its tools run",
        agent=AgentDefinition(name="solo", tools=(ADD.spec,), max_total_tokens=100),
        answer=_budget_answer,
        expect=both(
            failed_with("budget_exceeded", "used 110", "limit 100"),
            lambda got: _equal([], got.events(ToolReturned)),
        ),
        tools=[ADD],
    ),
    Script(
        name="a model call that fails for good fails the run with the provider's reason",
        agent=AGENT,
        answer=_answer_400,
        expect=failed_with("model_call_failed", "bad"),
    ),
]


def _equal(expected: object, got: object) -> None:
    assert expected == got


SCRIPTS = [
    Script(
        name="a text without tool calls ends the run",
        agent=AGENT,
        answer=_text_ends_answer,
        expect=_text_ends_expect,
        tools=[ADD],
    ),
    Script(
        name="parallel tool calls are answered in the order of the calls",
        agent=AgentDefinition(name="solo", tools=(ADD.spec, LATE.spec)),
        answer=_parallel_answer,
        expect=_parallel_expect,
        tools=[ADD, LATE],
    ),
    Script(
        name="max_turns counts model calls, and the last turn's tools still run",
        agent=AgentDefinition(name="solo", max_turns=2, tools=(ADD.spec,)),
        answer=_endless_answer,
        expect=_max_turns_expect,
        tools=[ADD],
    ),
    Script(
        name="a tool call cut by max_tokens is never executed",
        agent=AGENT,
        answer=_cut_answer,
        expect=_cut_expect,
        tools=[ADD],
    ),
    *MORE,
]
