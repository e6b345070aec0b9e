"""What a step is to the process that does it: whose it is, and how long it may take. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from heartbit.core.commands import CallTool, Command
from heartbit.core.run import Progress
from heartbit.core.state import RunState
from heartbit.core.stream import RunIdentity
from heartbit.engines.leases import Held
from heartbit.engines.plan import Plan, RunPlace

WAIT_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Begun:
    """The steps that this process has begun with an append, to be done now."""

    after: Progress
    steps: tuple[tuple[Command, Held], ...]


def begun(plan: Plan, since: float) -> Begun | None:
    """The steps that were begun by this process with an append that was tried after `since`."""
    append = plan.append
    steps = tuple(
        (
            plan.after.commands[new.step],
            Held(run_id=append.run_id, step=new.step, attempt=1, since=since),
        )
        for new in append.steps
        if new.state == "running"
    )
    return Begun(after=plan.after, steps=steps) if steps else None


def identity_of(state: RunState, place: RunPlace) -> RunIdentity:
    """Which run it is, as readers of its stream see it."""
    return RunIdentity(
        run_id=place.run_id,
        root_run_id=place.root_run_id,
        parent_run_id=place.parent_run_id,
        agent=state.definition.name,
    )


def writes_boards(command: Command) -> bool:
    """Whether what a call writes to blackboards must be stored together with its outcome."""
    return isinstance(command, CallTool) and command.spec.effect == "transactional"


def time_limit(command: Command, state: RunState, *, doubt: bool = False) -> float | None:
    """After how many seconds a step hangs that has not ended by itself; a model call never does.

    A call may be asked about or prepared before, and may wait for a connection to the database.
    """
    if not isinstance(command, CallTool):
        return None
    seconds = command.spec.timeout_seconds or state.definition.tool_timeout_seconds
    if seconds is None or not (doubt or command.spec.effect == "transactional"):
        return seconds
    return 2 * seconds + WAIT_SECONDS
