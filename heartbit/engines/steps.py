"""What a step is to the process that does it: whose it is, and how long it may take. Pure."""

from __future__ import annotations

from heartbit.core.commands import CallTool, Command
from heartbit.core.state import RunState
from heartbit.core.stream import RunIdentity
from heartbit.engines.plan import RunPlace

WAIT_SECONDS = 30.0


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
