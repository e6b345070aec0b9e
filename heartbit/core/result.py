"""What a run gives back: one shape for the library, `--json` and Celery."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from heartbit.core.agent import as_json
from heartbit.core.events import ApprovalRequested, RunStatus
from heartbit.core.messages import Json, ToolCall, Usage
from heartbit.core.state import RunState


@dataclass(frozen=True, kw_only=True, slots=True)
class PendingApproval:
    """Calls of one agent that wait for a human: exactly what would be run."""

    run_id: str
    agent: str
    step: str
    calls: tuple[ToolCall, ...]
    positions: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOutput:
    """The outcome of a run, its sub-runs included.

    `cost_usd` is None unless a price is configured for every model that was used. `pending` lists
    what a waiting run waits for; `error` says why a failed one failed.
    """

    run_id: str
    status: RunStatus
    result: str | None
    structured: Any
    usage: Usage
    tool_calls_made: int
    turns: int
    cost_usd: float | None
    error: str | None = None
    error_code: str | None = None
    pending: tuple[PendingApproval, ...] = ()

    def as_json(self) -> Json:
        """The object that `--json` prints and that a caller of the Celery task gets."""
        value: Json = as_json(self)
        if not self.pending:
            del value["pending"]
        return value


def run_output(
    run_id: str, state: RunState, status: RunStatus, pending: tuple[PendingApproval, ...] = ()
) -> RunOutput:
    """The output of a run that stands at `state`."""
    return RunOutput(
        run_id=run_id,
        status=status,
        result=state.result,
        structured=state.structured,
        usage=state.usage,
        tool_calls_made=state.tool_calls_made,
        turns=state.turn,
        cost_usd=state.cost_usd if state.usage.total_tokens else None,
        error=state.error,
        error_code=state.error_code,
        pending=pending,
    )


def including(output: RunOutput, unfinished: Iterable[RunOutput]) -> RunOutput:
    """The output with what these sub-runs, which its run does not count yet, have used so far."""
    every = (output, *unfinished)
    costs = [each.cost_usd for each in every]
    return replace(
        output,
        usage=sum((each.usage for each in every), Usage()),
        tool_calls_made=sum(each.tool_calls_made for each in every),
        cost_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
    )


def pending_approval(run_id: str, agent: str, event: ApprovalRequested) -> PendingApproval:
    """The question that `event` asks, as a person sees it."""
    return PendingApproval(
        run_id=run_id,
        agent=agent,
        step=event.step,
        calls=event.calls,
        positions=event.positions,
    )
