"""How a run ends, and what it has used by then: parts of the rules in `run`.

Once the end is decided nothing is begun any more: whatever else arrives counts its usage.
"""

from __future__ import annotations

from heartbit.core.commands import Command, Consolidate, Finish
from heartbit.core.events import (
    ContextSummarised,
    Event,
    LateResult,
    MemoriesConsolidated,
    ModelFailed,
    ModelReplied,
    RunCancelled,
    RunFailed,
    RunFinished,
    SubRunFinished,
)
from heartbit.core.messages import Json, Usage
from heartbit.core.state import RunState
from heartbit.core.values import replace
from heartbit.errors import RunCancelled as RunCancelledError
from heartbit.errors import RunError, RunTimedOut


def end(state: RunState, finish: Finish) -> tuple[RunState, tuple[Command, ...]]:
    """Decide the end."""
    return replace(state, ending=True), (finish,)


def succeed(state: RunState, finish: Finish) -> tuple[RunState, tuple[Command, ...]]:
    """The run has its result: it ends, or an agent that is to puts its memories together first."""
    memory = state.definition.memory
    if memory is None or not memory.consolidate_on_exit:
        return end(state, finish)
    return replace(state, finish=finish), (Consolidate(step=f"{state.turn}/memories"),)


def time_out(state: RunState) -> tuple[RunState, tuple[Command, ...]]:
    """The time of a run is over; one that has its result keeps it."""
    if state.finish is not None:
        return end(state, state.finish)
    return fail(state, RunTimedOut, timeout_message(state))


def consolidated(
    state: RunState, event: MemoriesConsolidated
) -> tuple[RunState, tuple[Command, ...]]:
    """Whatever came of the memories, the run ends with its result."""
    state = spend(state, event.usage, event.cost_usd)
    return (state, ()) if state.finish is None else end(state, state.finish)


def fail(
    state: RunState, error: type[RunError], message: str | None = None
) -> tuple[RunState, tuple[Command, ...]]:
    """Decide that the run ends without a result."""
    return end(state, Finish(code=error.code, message=message or error().message))


def ending_event(state: RunState, finish: Finish) -> RunFinished | RunFailed:
    """The event that performs a Finish, with the usage of everything that was spent by then."""
    if finish.code is None:
        return RunFinished(result=finish.result, structured=finish.structured, usage=state.usage)
    return RunFailed(code=finish.code, message=finish.message, text=state.text, usage=state.usage)


def wind_up(state: RunState, event: Event) -> RunState:
    """The end is decided: take the end's own event in, and the usage of whatever else arrives."""
    match event:
        case RunFinished():
            return replace(
                state, status="succeeded", result=event.result, structured=event.structured
            )
        case RunFailed():
            return replace(state, status="failed", error_code=event.code, error=event.message)
        case RunCancelled():
            code = RunCancelledError.code
            message = event.reason or RunCancelledError().message
            return replace(state, status="cancelled", error_code=code, error=message)
        case ModelReplied():
            return spend(state, event.completion.usage, event.completion.cost_usd)
        case ModelFailed() | ContextSummarised() | MemoriesConsolidated():
            return spend(state, event.usage, event.cost_usd)
        case SubRunFinished():
            return spend_on_sub_run(state, event)
        case LateResult():
            return spend_on_late_result(state, event)
        case _:
            return state


def spend(state: RunState, usage: Usage, cost_usd: float | None) -> RunState:
    """Count what was used. A sum with an unknown part is unknown."""
    known = state.cost_usd is not None and cost_usd is not None
    total = state.cost_usd + cost_usd if known else None  # type: ignore[operator]
    return replace(state, usage=state.usage + usage, cost_usd=total)


def spend_on_sub_run(state: RunState, event: SubRunFinished) -> RunState:
    """Count what a sub-run has used and called."""
    made = state.tool_calls_made + event.tool_calls_made
    return spend(replace(state, tool_calls_made=made), event.usage, event.cost_usd)


def spend_on_late_result(state: RunState, event: LateResult) -> RunState:
    """Count what a lost attempt has used, apart from what limits are about.

    A run is not to fail because a worker of it was lost.
    """
    spent = event.outcome.get("completion", event.outcome)
    if "usage" not in spent:
        return state
    usage = _usage(spent["usage"])
    lost = state.lost_tokens + usage.total_tokens
    return spend(replace(state, lost_tokens=lost), usage, spent.get("cost_usd", 0.0))


def _usage(stored: Json) -> Usage:
    return Usage(**{name: stored.get(name, 0) for name in Usage.__slots__})


def timeout_message(state: RunState) -> str | None:
    """Why a run failed that took too long."""
    seconds = state.definition.run_timeout_seconds
    if seconds is None:
        return None
    return f"The run took longer than {seconds:g} seconds; give it less to do or more time."


def budget_message(used: int, limit: int) -> str:
    """Why a run failed that used too much."""
    spent = f"Token budget exceeded: used {used}, limit {limit}"
    return f"{spent}; raise max_total_tokens or give it less to do."
