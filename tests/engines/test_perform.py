"""Touching the world: whatever a tool or a provider does becomes an event, never an exception."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from heartbit.core.commands import CallModel, CallTool, Command, StartSubRun, Summarise
from heartbit.core.events import ContextSummarised, Event, ModelFailed, ToolReturned
from heartbit.core.messages import Completion, Json, StopReason, TextPart, Usage
from heartbit.core.run import advance
from heartbit.core.state import RunState
from heartbit.core.stream import RunIdentity
from heartbit.core.tools import ToolOutput, ToolSpec
from heartbit.engines.perform import Outside, perform
from heartbit.errors import ServerFailure, ToolError
from heartbit.providers.base import Provider
from heartbit.providers.scripted import Reply, ScriptedProvider
from heartbit.stores.in_memory import InMemoryBlackboards
from heartbit.tools.base import BoundTool, Tool, ToolContext
from tests.support.journals import LOOK, SOLO, call, follow, replied, returned, started

CALL = CallTool(step="1/tool/0", call=call("look", x=[1]), spec=LOOK)
Run = Callable[[Json, ToolContext], Awaitable[Any]]


async def no_sub_run(command: StartSubRun) -> None:
    """Nothing here starts sub-runs."""


PROVIDERS: dict[str, Provider] = {}


def outside(
    tool: Tool | None = None, provider: Callable[[str], Provider] = PROVIDERS.__getitem__
) -> Outside:
    """A world of at most one tool and one provider."""
    return Outside(
        identity=RunIdentity(run_id="run", root_run_id="root", agent="solo"),
        provider=provider,
        tool=lambda spec: tool,
        blackboard=InMemoryBlackboards().scope,
        sub_run=no_sub_run,
        listener=lambda step: None,
    )


def state(**limits: Any) -> RunState:
    """A run whose first turn has called the tool."""
    return follow([started(replace(SOLO, **limits)), replied(1, CALL.call)])[0]


def called(run: Run, spec: ToolSpec = LOOK, **limits: Any) -> ToolReturned:
    """What a call of a tool with this body comes to."""
    tool = BoundTool(spec=spec, run=run)
    event = asyncio.run(perform(replace(CALL, spec=spec), state(**limits), outside(tool)))
    assert isinstance(event, ToolReturned)
    assert CALL.step == event.step
    return event


def raising(error: BaseException) -> Run:
    """A tool body that raises."""

    async def run(arguments: Json, context: ToolContext) -> ToolOutput:
        raise error

    return run


class OddError(BaseException):
    """Something that is no Exception."""


@pytest.mark.parametrize(
    ("error", "content"),
    [
        (ToolError("No paper."), "No paper."),
        (ValueError("bad"), "ValueError: bad"),
        (ValueError(), "ValueError"),
        (TimeoutError("of its own"), "TimeoutError: of its own"),
        (StopAsyncIteration(), "StopAsyncIteration"),
        (SystemExit(3), "SystemExit: 3"),
        (OddError("odd"), "OddError: odd"),
        (asyncio.CancelledError(), "The tool was cancelled from within."),
        (ExceptionGroup("two", [ValueError("a")]), "ExceptionGroup: two (1 sub-exception)"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_whatever_a_tool_raises_is_a_result(error: BaseException, content: str) -> None:
    """Nothing a tool does ends a run."""
    assert ToolReturned(step=CALL.step, content=content, is_error=True) == called(raising(error))


def test_ctrl_c_in_a_tool_is_the_persons_and_not_the_models() -> None:
    """A KeyboardInterrupt is nobody's result."""
    with pytest.raises(KeyboardInterrupt):
        called(raising(KeyboardInterrupt()))


def test_a_cancellation_from_within_is_a_result_even_in_a_task_that_was_cancelled_before() -> None:
    """A caller may have survived a cancellation without taking it back."""

    async def main() -> Event | None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        tool = BoundTool(spec=LOOK, run=raising(asyncio.CancelledError()))
        return await perform(CALL, state(), outside(tool))

    event = asyncio.run(main())
    assert isinstance(event, ToolReturned)
    assert "The tool was cancelled from within." == event.content


def test_a_cancellation_from_outside_passes_through() -> None:
    """It is the run that is cancelled, not the tool that failed."""

    async def wait(arguments: Json, context: ToolContext) -> ToolOutput:
        running.set()
        return await asyncio.get_running_loop().create_future()

    async def main() -> None:
        task = asyncio.ensure_future(
            perform(CALL, state(), outside(BoundTool(spec=LOOK, run=wait)))
        )
        await running.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    running = asyncio.Event()
    asyncio.run(main())


async def hang(arguments: Json, context: ToolContext) -> ToolOutput:
    """A tool that never comes back."""
    return await asyncio.get_running_loop().create_future()


def test_a_tool_that_takes_too_long_is_stopped_with_a_result() -> None:
    """The tool's own limit wins over the agent's."""
    expected = ToolReturned(
        step=CALL.step, content="Tool execution timed out after 0.01 seconds.", is_error=True
    )
    assert expected == called(hang, tool_timeout_seconds=0.01)
    patient = replace(LOOK, timeout_seconds=0.01)
    assert expected == called(hang, patient, tool_timeout_seconds=60)


@pytest.mark.parametrize("value", ["text", None, ToolOutput(content=7)], ids=repr)  # type: ignore[arg-type]
def test_a_tool_that_gives_no_output_is_an_error_result(value: Any) -> None:
    """The protocol is Python, so a tool may return anything."""

    async def run(arguments: Json, context: ToolContext) -> Any:
        return value

    event = called(run)
    assert event.is_error
    assert "instead of a ToolOutput with text" in event.content


def test_a_tool_may_change_its_arguments_without_changing_the_conversation() -> None:
    """What the model has said is what it is shown again."""

    async def run(arguments: Json, context: ToolContext) -> ToolOutput:
        arguments["x"].append(2)
        arguments.clear()
        return ToolOutput(content="done")

    event = called(run)
    assert ("done", {"x": [1]}) == (event.content, CALL.call.arguments)


def test_output_with_half_characters_and_nul_reaches_the_journal() -> None:
    """Binary things happen; they are not the end of a run."""

    async def run(arguments: Json, context: ToolContext) -> ToolOutput:
        return ToolOutput(content="a\x00\ud800")

    assert "a\x00\ud800" == called(run).content
    assert "a\x00\n\n[truncated: 3 bytes omitted]" == called(run, max_tool_output_bytes=3).content


def test_output_beyond_the_limit_is_cut_for_errors_too() -> None:
    """An error message may be as long as any other output."""
    event = called(raising(ValueError("x" * 100)), max_tool_output_bytes=20)
    assert event.content.startswith("ValueError: xxxxxxxx\n")
    assert "[truncated: 92 bytes omitted]" in event.content


def test_a_tool_knows_the_call_it_serves() -> None:
    """Its key for idempotency is the run's and the step's."""
    seen: list[ToolContext] = []

    async def run(arguments: Json, context: ToolContext) -> ToolOutput:
        seen.append(context)
        return ToolOutput(content="")

    called(run)
    [context] = seen
    assert ("run", "root", "solo", "run/1/tool/0") == (
        context.run_id,
        context.root_run_id,
        context.agent,
        context.idempotency_key,
    )
    assert context.blackboard is not None


def failed(provider: Callable[[str], Provider]) -> ModelFailed:
    """How a model call that fails is told."""
    first, _ = advance(None, started())
    event = asyncio.run(
        perform(CallModel(step="1/model", turn=1), first, outside(provider=provider))
    )
    assert isinstance(event, ModelFailed)
    return event


def test_whatever_a_provider_raises_is_an_event() -> None:
    """An adapter with a defect fails its call, and the run says so."""
    known = ServerFailure("Down.", usage=Usage(input_tokens=3))
    told = ModelFailed(
        step="1/model",
        error="ServerFailure",
        message="Down.",
        usage=Usage(input_tokens=3),
        cost_usd=None,
    )
    assert told == failed(lambda name: ScriptedProvider([known]))
    known.cost_usd = 0.25
    assert replace(told, cost_usd=0.25) == failed(lambda name: ScriptedProvider([known]))
    defect = failed(lambda name: ScriptedProvider([KeyError("choices")]))
    assert ("KeyError", "KeyError: 'choices'") == (defect.error, defect.message)


def test_a_provider_that_is_not_there_is_an_event() -> None:
    """Another machine may know fewer providers than the one that opened the run."""
    assert "KeyError" == failed(PROVIDERS.__getitem__).error


def summarised(reply: Reply) -> ContextSummarised:
    """What a summary that the model answers with `reply` comes to."""
    events: list[Event] = [started()]
    for turn in (1, 2, 3):
        events += [replied(turn, call("look", x=turn)), returned(f"{turn}/tool/0")]
    command: Command = Summarise(step="3/summary", upto=3)
    provider = ScriptedProvider([reply])
    event = asyncio.run(
        perform(command, follow(events)[0], outside(provider=lambda name: provider))
    )
    assert isinstance(event, ContextSummarised)
    assert ("3/summary", 3) == (event.step, event.upto)
    return event


def said(text: str, stop: StopReason) -> Completion:
    """A whole completion with its price."""
    return Completion(
        parts=(TextPart(text=text),),
        stop_reason=stop,
        usage=Usage(input_tokens=9),
        cost_usd=0.5,
    )


@pytest.mark.parametrize(
    ("text", "stop", "summary", "reason"),
    [
        (" In short. ", "end_turn", "In short.", None),
        ("In sho", "max_tokens", None, "the summary was cut at max_tokens"),
        ("I cannot.", "refusal", None, "the model refused to summarise"),
        ("In sho", "context_too_long", None, "the conversation is too long to be summarised"),
        ("  ", "end_turn", None, "the summary was empty"),
    ],
)
def test_only_a_whole_and_willing_summary_is_one(
    text: str, stop: StopReason, summary: str | None, reason: str | None
) -> None:
    """Half a summary, or an apology, in place of the conversation would lose it."""
    event = summarised(said(text, stop))
    assert (summary, reason) == (event.summary, event.reason)
    assert (Usage(input_tokens=9), 0.5) == (event.usage, event.cost_usd)


def test_a_summary_that_fails_costs_nothing_and_says_why() -> None:
    """A call that failed leaves the known cost of the run known."""
    event = summarised(ServerFailure("Down."))
    assert (None, "Down.", Usage(), 0.0) == (
        event.summary,
        event.reason,
        event.usage,
        event.cost_usd,
    )
