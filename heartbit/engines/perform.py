"""`perform(command, state, outside) -> event`: the only place where a run touches the world.

Both engines call it, and neither looks inside. It never raises for what a provider or a tool does:
that is an event. Cancellation passes through, and so does a model call that is put off.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from heartbit.core.commands import (
    AskApproval,
    CallModel,
    CallTool,
    Command,
    Consolidate,
    Finish,
    RefuseCall,
    StartSubRun,
    Summarise,
)
from heartbit.core.ending import ending_event
from heartbit.core.events import (
    ApprovalRequested,
    ContextSummarised,
    Event,
    ModelFailed,
    ModelReplied,
    ToolReturned,
)
from heartbit.core.messages import Json
from heartbit.core.output import truncate
from heartbit.core.retry import Tried
from heartbit.core.run import model_request
from heartbit.core.state import RunState
from heartbit.core.stream import RunIdentity
from heartbit.core.summary import summary_request
from heartbit.core.tools import ToolOutput, ToolSpec
from heartbit.engines.problems import describe, spent
from heartbit.errors import CallPutOff, ToolError, ToolTimedOut
from heartbit.providers.base import Listener, Provider
from heartbit.stores.base import Blackboard
from heartbit.tools.base import ProbingTool, Tool, ToolContext, TransactionalTool

if TYPE_CHECKING:
    from heartbit.tools.memory import Memories

T = TypeVar("T")
Transactions = Callable[[float | None], AbstractAsyncContextManager[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Outside:
    """Everything one run may reach, as functions: an engine decides what stands behind them.

    `tool` finds the executable of a spec (None: it is not available here). `sub_run` runs a
    sub-agent to its end; it gives None when the sub-agent waits for a human. `listener` hears a
    streamed reply, or is None when nobody listens. `transaction` opens one for a tool with tables
    of its own, in which a statement may take so many seconds, and gives its connection; what is
    raised in the block undoes it. Without a database it is None. `attempt` counts how often this
    command was begun. `memories` are those of all agents; None where nothing is remembered. With
    `tried` the call of a model may be put off; that is what it had come to the last time.
    """

    identity: RunIdentity
    provider: Callable[[str], Provider]
    tool: Callable[[ToolSpec], Tool | None]
    blackboard: Callable[[str], Blackboard]
    sub_run: Callable[[StartSubRun], Awaitable[Event | None]]
    listener: Callable[[str], Listener | None]
    workspace: Path | None = None
    scratch: dict[str, Any] = field(default_factory=dict)
    tenant_id: str | None = None
    user_id: str | None = None
    transaction: Transactions | None = None
    memories: Memories | None = None
    attempt: int = 1
    tried: Tried | None = None


async def perform(command: Command, state: RunState, outside: Outside) -> Event | None:
    """Do what `command` says and report what happened.

    None means that the outcome is still to come: a sub-agent is waiting for a human.

    Raises:
        CallPutOff: `outside` allows it, and the model is to be asked again much later.
    """
    match command:
        case CallModel():
            return await _call_model(command, state, outside)
        case CallTool():
            return await _call_tool(command, state, outside)
        case StartSubRun():
            return await outside.sub_run(command)
        case Summarise():
            return await _summarise(command, state, outside)
        case Consolidate():
            from heartbit.engines.memories import consolidate  # most runs have no memories

            return await consolidate(command, state, outside)
        case RefuseCall() | AskApproval() | Finish():
            return settle(command, state)


def settle(command: RefuseCall | AskApproval | Finish, state: RunState) -> Event:
    """The event of a command that needs nothing from the world."""
    match command:
        case RefuseCall():
            return ToolReturned(step=command.step, content=command.reason, is_error=True)
        case AskApproval():
            return ApprovalRequested(
                step=command.step, calls=command.calls, positions=command.positions
            )
        case Finish():
            return ending_event(state, command)


async def _call_model(command: CallModel, state: RunState, outside: Outside) -> Event:
    try:
        provider = outside.provider(state.definition.provider)
        request = replace(model_request(state), tried=outside.tried)
        completion = await provider.complete(request, outside.listener(command.step))
    except CallPutOff:
        raise
    except Exception as error:
        usage, cost_usd = spent(error)
        return ModelFailed(
            step=command.step,
            error=type(error).__name__,
            message=describe(error),
            usage=usage,
            cost_usd=cost_usd,
        )
    return ModelReplied(step=command.step, completion=completion)


async def _call_tool(command: CallTool, state: RunState, outside: Outside) -> Event:
    tool = outside.tool(command.spec)
    if tool is None:
        output = _failure(f"The tool {command.spec.name!r} is not available on this machine.")
    else:
        try:
            output = await _contained(_called(tool, command, state, outside))
        except ToolError as error:
            output = _failure(error.message)
    return _returned(command, state, output)


async def probe(command: CallTool, state: RunState, outside: Outside) -> Event | None:
    """Ask the tool of a call whose worker was lost in it what has become of it.

    None means that it certainly has not happened.

    Raises:
        ToolError: nobody knows.
    """
    tool = cast("ProbingTool", outside.tool(command.spec))
    ask = getattr(tool, "probe_call", None)
    if ask is None:
        raise ToolError(f"The tool {command.spec.name!r} cannot be asked on this machine.")
    context = tool_context(command, state, outside)
    answer = ask(_arguments(command), context)
    output = await _contained(_in_time(_seconds(command, state), answer))
    return None if output is None else _returned(command, state, _checked(output))


def _returned(command: CallTool, state: RunState, output: ToolOutput) -> Event:
    return ToolReturned(
        step=command.step,
        content=truncate(output.content, state.definition.max_tool_output_bytes),
        is_error=output.is_error,
    )


async def _called(tool: Tool, command: CallTool, state: RunState, outside: Outside) -> ToolOutput:
    seconds, arguments = _seconds(command, state), _arguments(command)
    context = tool_context(command, state, outside)
    if command.spec.effect == "transactional" and hasattr(tool, "prepare_call"):
        if outside.transaction is None:
            raise ToolError(f"{command.spec.name} is transactional, and there is no database here.")
        prepare = cast("TransactionalTool", tool).prepare_call
        prepared = await _in_time(seconds, prepare(_arguments(command), context))
        context = replace(context, prepared=prepared)
        return await _called_in_transaction(tool, arguments, context, seconds, outside.transaction)
    return _checked(await _in_time(seconds, tool.call(arguments, context)))


class _Undone(Exception):
    """The way out of a transaction for a call that ended with an error."""


async def _called_in_transaction(
    tool: Tool,
    arguments: Json,
    context: ToolContext,
    seconds: float | None,
    transaction: Transactions,
) -> ToolOutput:
    """A call whose result is an error has written nothing."""
    output = _failure("")
    with suppress(_Undone):
        async with transaction(seconds) as connection:
            call = tool.call(arguments, replace(context, connection=connection))
            output = _checked(await _in_time(seconds, call))
            if output.is_error:
                raise _Undone
    return output


def _seconds(command: CallTool, state: RunState) -> float | None:
    return command.spec.timeout_seconds or state.definition.tool_timeout_seconds


def _arguments(command: CallTool) -> Json:
    """A tool may change its arguments; the conversation keeps what the model said."""
    return copy.deepcopy(command.call.arguments)


async def _in_time(seconds: float | None, work: Awaitable[T]) -> T:
    scope = asyncio.timeout(seconds)
    try:
        async with scope:
            return await work
    except TimeoutError:
        if scope.expired():
            raise ToolTimedOut(f"Tool execution timed out after {seconds:g} seconds.") from None
        raise


async def _contained(work: Awaitable[T]) -> T:
    """What `work` gives.

    Raises:
        ToolError: it failed, in whatever way but a cancellation from outside.
    """
    cancelled_before = _cancellations()
    try:
        return await work
    except asyncio.CancelledError:
        if _cancellations() > cancelled_before:
            raise
        raise ToolError("The tool was cancelled from within.") from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ToolError(describe(error)) from error


def _cancellations() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task else 0


def _checked(output: Any) -> ToolOutput:
    """The output, if it is one: a tool of somebody else's may return anything."""
    if isinstance(output, ToolOutput) and isinstance(output.content, str):
        return output
    return _failure(f"The tool returned {output!r} instead of a ToolOutput with text.")


def tool_context(command: CallTool, state: RunState, outside: Outside) -> ToolContext:
    """What the tool of `command` may know and touch."""
    identity = outside.identity
    return ToolContext(
        run_id=identity.run_id,
        root_run_id=identity.root_run_id,
        agent=identity.agent,
        step=command.step,
        attempt=outside.attempt,
        workspace=outside.workspace,
        blackboard=outside.blackboard(state.blackboard),
        notes=outside.blackboard(f"{identity.root_run_id}/notes/{identity.run_id}"),
        scratch=outside.scratch,
        tenant_id=outside.tenant_id,
        user_id=outside.user_id,
    )


async def _summarise(command: Summarise, state: RunState, outside: Outside) -> Event:
    request = summary_request(state.definition, state.messages, state.summary, command.upto)
    try:
        provider = outside.provider(state.definition.provider)
        completion = await provider.complete(replace(request, tried=outside.tried))
    except CallPutOff:
        raise
    except Exception as error:
        usage, cost_usd = spent(error)
        return ContextSummarised(
            step=command.step,
            summary=None,
            upto=command.upto,
            reason=describe(error),
            usage=usage,
            cost_usd=cost_usd,
        )
    text = completion.message.text.strip()
    problem = _NO_SUMMARY.get(completion.stop_reason) or ("" if text else "the summary was empty")
    if not problem:
        from heartbit.engines.memories import flush

        await flush(command, state, outside)
    return ContextSummarised(
        step=command.step,
        summary=None if problem else text,
        upto=command.upto,
        reason=problem or None,
        usage=completion.usage,
        cost_usd=completion.cost_usd,
    )


_NO_SUMMARY = {
    "max_tokens": "the summary was cut at max_tokens",
    "refusal": "the model refused to summarise",
    "context_too_long": "the conversation is too long to be summarised",
}


def _failure(text: str) -> ToolOutput:
    return ToolOutput(content=text, is_error=True)
