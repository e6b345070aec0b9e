"""`perform(command, state, outside) -> event`: the only place where a run touches the world.

Both engines call it, and neither looks inside. It never raises for what a provider or a tool does:
that is an event. Cancellation passes through.
"""

from __future__ import annotations

import asyncio
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
from heartbit.core.run import ending_event, model_request
from heartbit.core.state import RunState
from heartbit.core.stream import RunIdentity
from heartbit.core.summary import summary_request
from heartbit.core.tools import ToolOutput, ToolSpec
from heartbit.errors import ProviderError, ToolError
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
    provider = outside.provider(state.definition.provider)
    try:
        completion = await provider.complete(model_request(state), outside.listener(command.step))
    except Exception as error:
        return ModelFailed(
            step=command.step,
            error=type(error).__name__,
            message=describe(error),
            usage=getattr(error, "usage", None) or Usage(),
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
    spec = command.spec
    tool = outside.tool(spec)
    if tool is None:
        return _failure(f"The tool {spec.name!r} is not available on this machine.")
    seconds = spec.timeout_seconds or state.definition.tool_timeout_seconds
    scope = asyncio.timeout(seconds)
    try:
        async with scope:
            return await tool.call(command.call.arguments, tool_context(command, state, outside))
    except asyncio.CancelledError:
        if _cancelled_from_outside():
            raise
        return _failure("The tool was cancelled from within.")
    except TimeoutError as error:
        if scope.expired():
            return _failure(f"Tool execution timed out after {seconds:g} seconds.")
        return _failure(describe(error))
    except (Exception, SystemExit) as error:
        return _failure(describe(error))


def _cancelled_from_outside() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


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
    provider = outside.provider(state.definition.provider)
    request = summary_request(state.definition, state.messages, state.summary, command.upto)
    try:
        completion = await provider.complete(request)
    except Exception as error:
        return ContextSummarised(
            step=command.step,
            summary=None,
            upto=command.upto,
            reason=describe(error),
            usage=getattr(error, "usage", None) or Usage(),
        )
    text = completion.message.text.strip()
    cut = completion.stop_reason == "max_tokens"
    return ContextSummarised(
        step=command.step,
        summary=None if cut or not text else text,
        upto=command.upto,
        reason="the summary was cut at max_tokens" if cut else None,
        usage=completion.usage,
        cost_usd=completion.cost_usd,
    )


def _failure(text: str) -> ToolOutput:
    return ToolOutput(content=text, is_error=True)


def describe(error: BaseException) -> str:
    """One sentence about an error, for a model or a person: ours are sentences already."""
    if isinstance(error, ToolError | ProviderError):
        return error.message
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
