"""What becomes of steps whose workers were lost, where they cannot simply be done again.

A verdict is an append that names the attempt it is about, and only counts if that has lost its
lease: the worker may be frozen and not dead, and its own outcome may still be faster.
"""

from __future__ import annotations

from heartbit.core.calls import doubt, may_be_begun_again
from heartbit.core.commands import CallTool, Consolidate
from heartbit.core.events import Event, MemoriesConsolidated, RunFailed
from heartbit.core.run import Progress
from heartbit.engines.plan import RunPlace, external_task
from heartbit.engines.recorder import Recorder
from heartbit.errors import WorkersLost


def can_be_asked(progress: Progress, step: str) -> bool:
    """Whether the tool of a call in doubt can find out what has become of it."""
    command = progress.commands.get(step)
    return isinstance(command, CallTool) and command.spec.probe


def may_begin_again(progress: Progress, step: str) -> bool:
    """Whether a worker of ours may do a step that nobody has got an answer for."""
    command = progress.commands.get(step)
    ours = isinstance(command, CallTool) and external_task(command.spec) is None
    return ours and may_be_begun_again(progress.state, step)


def tell(
    recorder: Recorder, place: RunPlace, progress: Progress, command: CallTool, attempt: int
) -> None:
    """Tell the model, or ask a human, that nobody knows what has become of a call."""
    event = doubt(progress.state, command)
    recorder.record(place, progress, event, step=command.step, attempt=attempt, verdict=True)


def blame(recorder: Recorder, place: RunPlace, progress: Progress, step: str, attempt: int) -> None:
    """Fail a run because of a step that kills its workers, unless it has its result already."""
    progress = recorder.without_sub_runs(place, progress)
    reason = f"Every worker that did step {step} was lost: it seems to kill them."
    event: Event
    if isinstance(progress.commands.get(step), Consolidate):
        event = MemoriesConsolidated(step=step, reason=reason)
    else:
        usage = progress.state.usage
        event = RunFailed(code=WorkersLost.code, message=reason, usage=usage)
    recorder.record(place, progress, event, step=step, attempt=attempt, verdict=True)
