"""The loop itself: turns, tool calls, stop reasons, limits."""

from __future__ import annotations

from heartbit.core.agent import AgentDefinition
from heartbit.core.events import RunFailed, RunFinished, ToolReturned
from heartbit.core.messages import Usage
from tests.support.model_server import Reply
from tests.support.parity import ADD, Asked, Outcome, Script, calls

AGENT = AgentDefinition(name="solo", system_prompt="You add.", tools=(ADD.spec,))


def _text_ends_answer(asked: Asked) -> Reply:
    return Reply(text="Done.", input_tokens=7, output_tokens=3)


def _text_ends_expect(got: Outcome) -> None:
    assert ["start", "1/model", "end"] == [step for step, _ in got.steps()]
    assert ("succeeded", "Done.", 1) == (got.output.status, got.output.result, got.output.turns)
    assert Usage(input_tokens=7, output_tokens=3) == got.output.usage


def _parallel_answer(asked: Asked) -> Reply:
    if asked.turn == 1:
        return calls(("add", {"a": 1, "b": 2}), ("add", {"a": 10, "b": 20}))
    return Reply(text=" ".join(block["content"] for block in asked.results))


def _parallel_expect(got: Outcome) -> None:
    assert "3 30" == got.output.result
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
        agent=AGENT,
        answer=_parallel_answer,
        expect=_parallel_expect,
        tools=[ADD],
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
]
