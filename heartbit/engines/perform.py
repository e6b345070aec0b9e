"""`perform(command, state, outside) -> event`: the only place where a run touches the world.

Both engines call it, and neither looks inside. It never raises for what a provider or a tool does:
that is an event. Cancellation passes through.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heartbit.core.commands import (
    AskApproval,
    CallModel,
    CallTool,
    Command,
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
from heartbit.core.messages import Usage
from heartbit.core.output import truncate
from heartbit.core.run import model_request
from heartbit.core.state import RunState
from heartbit.core.stream import RunIdentity
from heartbit.core.summary import summary_request
from heartbit.core.tools import ToolOutput, ToolSpec
from heartbit.errors import HeartbitError
from heartbit.providers.base import Listener, Provider
from heartbit.stores.base import Blackboard
from heartbit.tools.base import Tool, ToolContext


@dataclass(frozen=True, kw_only=True, slots=True)
class Outside:
    """Everything one run may reach, as functions: an engine decides what stands behind them.

    `tool` finds the executable of a spec (None: it is not available here). `sub_run` runs a
    sub-agent to its end; it gives None when the sub-agent waits for a human. `listener` hears a
    streamed reply, or is None when nobody listens.
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


async def perform(command: Command, state: RunState, outside: Outside) -> Event | None:
    """Do what `command` says and report what happened.

    None means that the outcome is still to come: a sub-agent is waiting for a human.
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
        completion = await provider.complete(model_request(state), outside.listener(command.step))
    except Exception as error:
        usage, cost_usd = _spent(error)
        return ModelFailed(
            step=command.step,
            error=type(error).__name__,
            message=describe(error),
            usage=usage,
            cost_usd=cost_usd,
        )
    return ModelReplied(step=command.step, completion=completion)


async def _call_tool(command: CallTool, state: RunState, outside: Outside) -> Event:
    output = await _tool_output(command, state, outside)
    return ToolReturned(
        step=command.step,
        content=truncate(output.content, state.definition.max_tool_output_bytes),
        is_error=output.is_error,
    )


async def _tool_output(command: CallTool, state: RunState, outside: Outside) -> ToolOutput:
    tool = outside.tool(command.spec)
    if tool is None:
        return _failure(f"The tool {command.spec.name!r} is not available on this machine.")
    seconds = command.spec.timeout_seconds or state.definition.tool_timeout_seconds
    scope = asyncio.timeout(seconds)
    cancelled_before = _cancellations()
    try:
        async with scope:
            # A tool may change its arguments; the conversation keeps what the model said.
            arguments = copy.deepcopy(command.call.arguments)
            return _checked(await tool.call(arguments, tool_context(command, state, outside)))
    except asyncio.CancelledError:
        if _cancellations() > cancelled_before:
            raise
        return _failure("The tool was cancelled from within.")
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if isinstance(error, TimeoutError) and scope.expired():
            return _failure(f"Tool execution timed out after {seconds:g} seconds.")
        return _failure(describe(error))


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
        workspace=outside.workspace,
        blackboard=outside.blackboard(state.blackboard),
        scratch=outside.scratch,
        tenant_id=outside.tenant_id,
        user_id=outside.user_id,
    )


async def _summarise(command: Summarise, state: RunState, outside: Outside) -> Event:
    request = summary_request(state.definition, state.messages, state.summary, command.upto)
    try:
        completion = await outside.provider(state.definition.provider).complete(request)
    except Exception as error:
        usage, cost_usd = _spent(error)
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
    return ContextSummarised(
        step=command.step,
        summary=None if problem else text,
        upto=command.upto,
        reason=problem or None,
        usage=completion.usage,
        cost_usd=completion.cost_usd,
    )


def _spent(error: Exception) -> tuple[Usage, float | None]:
    """What a failed call has used and cost: nothing, as far as anybody knows, costs nothing."""
    usage = getattr(error, "usage", None) or Usage()
    return usage, getattr(error, "cost_usd", None) if usage != Usage() else 0.0


_NO_SUMMARY = {
    "max_tokens": "the summary was cut at max_tokens",
    "refusal": "the model refused to summarise",
    "context_too_long": "the conversation is too long to be summarised",
}


def _failure(text: str) -> ToolOutput:
    return ToolOutput(content=text, is_error=True)


def describe(error: BaseException) -> str:
    """One sentence about an error, for a model or a person: ours are sentences already."""
    if isinstance(error, HeartbitError):
        return error.message
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
