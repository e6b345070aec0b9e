"""Calls of tasks that other code bases work on: sent by name, answered by a message, never leased.

No worker of ours waits for an answer. It comes as a callback, or is asked for when that is late: by
the sweep, and once more when the time for it is over. The first answer counts. Whether a call whose
message may be lost is sent again is up to the declared effect of its tool.
"""

from __future__ import annotations

from heartbit.core.agent import as_json
from heartbit.core.calls import doubt, find, position_of, times_in_doubt
from heartbit.core.commands import CallTool
from heartbit.core.events import Event, LateResult, ModelReplied, RunStarted, ToolReturned
from heartbit.core.output import truncate
from heartbit.core.run import Progress, offered_tools
from heartbit.core.state import RunState
from heartbit.engines.folded import FoldedRuns
from heartbit.engines.plan import (
    AGAIN,
    answer_seconds,
    answer_timer,
    external_task,
    is_repeatable,
)
from heartbit.engines.ports import Outbox
from heartbit.engines.recorder import Recorder, external_call
from heartbit.errors import RunNotFound
from heartbit.stores.journal import Journal
from heartbit.stores.records import UnsentStep

NO_ANSWER = (
    "The Celery task {task} did not answer within {seconds:g} seconds. It may still take effect: "
    "check whether it did what it should before you call it again."
)


class ExternalCalls:
    """What becomes of external calls. Every method may be called any number of times."""

    def __init__(
        self, *, journal: Journal, outbox: Outbox, runs: FoldedRuns, recorder: Recorder
    ) -> None:
        self._journal = journal
        self._outbox = outbox
        self._runs = runs
        self._recorder = recorder

    def finished(
        self, run_id: str, step: str, attempt: int, content: str, *, is_error: bool
    ) -> None:
        """Take an answer in. One that comes too late is kept for the record, if it is news.

        Raises:
            RunNotFound: there is no such run, or this step of it called no such task.
        """
        place, progress = self._runs.place(run_id), self._runs.progress(run_id)
        content = truncate(content, progress.state.definition.max_tool_output_bytes)
        event = ToolReturned(step=step, content=content, is_error=is_error)
        command = _waiting(progress, step)
        if command is None or attempt != _attempt(progress.state, step):
            if self._is_news(run_id, event):
                self._recorder.note_late(place, step, event)
            return
        self._recorder.record(place, progress, event, step=step, attempt=attempt)

    def look_after(self, sent: UnsentStep) -> None:
        """A call was not sent, or is not answered since: ask, and send it if that does no harm."""
        progress = self._runs.progress(sent.run_id)
        command = _waiting(progress, sent.step)
        if command is None:
            return
        first = sent.count == 1
        known = not first and self._ask(sent.run_id, progress, command)
        if first or (is_repeatable(command.spec) and not known):
            self._send(sent.run_id, progress, command)

    def time_out(self, run_id: str, step: str) -> None:
        """The time for an answer is over: ask for it once more, and then do without."""
        progress = self._runs.progress(run_id)
        command = _waiting(progress, step)
        if command is None:
            self._journal.clear_timer(run_id, answer_timer(step))
        elif not self._ask(run_id, progress, command, at_work_is_enough=False):
            self._give_up(run_id, progress, command)

    def begin_again(self, run_id: str, progress: Progress, command: CallTool) -> None:
        """Call once more, as a human wants it: as another task, and at most once."""
        seconds = answer_seconds(command.spec, progress.state)
        self._journal.set_timer(run_id, answer_timer(command.step), seconds)
        self._journal.clear_timer(run_id, f"{AGAIN}/{command.step}")
        self._send(run_id, progress, command)

    def _ask(
        self, run_id: str, progress: Progress, command: CallTool, *, at_work_is_enough: bool = True
    ) -> bool:
        """Whether an answer was found, or the call is at least known to be at work."""
        call = external_call(run_id, progress.state, command)
        if call is None:
            return False
        answer = self._outbox.answer(call.task_id)
        if answer.state == "done":
            step, said = command.step, answer.content
            self.finished(run_id, step, call.attempt, said, is_error=answer.is_error)
        return answer.state == "done" or (at_work_is_enough and answer.state == "running")

    def _give_up(self, run_id: str, progress: Progress, command: CallTool) -> None:
        step, spec, state = command.step, command.spec, progress.state
        told = NO_ANSWER.format(task=external_task(spec), seconds=answer_seconds(spec, state))
        event: Event = ToolReturned(step=step, content=told, is_error=True)
        if not is_repeatable(spec):
            event = doubt(state, command, told)
        place, attempt = self._runs.place(run_id), _attempt(state, step)
        self._recorder.record(place, progress, event, step=step, attempt=attempt, keep_late=False)
        self._recorder.abandon(run_id, state, [command])

    def _send(self, run_id: str, progress: Progress, command: CallTool) -> None:
        queue = command.spec.queue or ""
        self._recorder.send(self._runs.place(run_id), progress, [(command.step, queue)])

    def _is_news(self, run_id: str, event: ToolReturned) -> bool:
        """Whether the journal does not have this answer yet, nor an end that wants none.

        Raises:
            RunNotFound: it was never asked for.
        """
        events = self._journal.events(run_id)
        if not _was_called(events, event.step):
            raise RunNotFound(f"There is no Celery task at step {event.step!r} of run {run_id!r}.")
        known = [each.outcome for each in events if isinstance(each, LateResult)]
        known += [as_json(each) for each in events if each.step == event.step]
        return as_json(event) not in known and events[-1].step != "end"


def _waiting(progress: Progress, step: str) -> CallTool | None:
    """The external call at a step, if its answer is missing and it is not asked about."""
    command = progress.commands.get(step)
    if not isinstance(command, CallTool) or external_task(command.spec) is None:
        return None
    asked = progress.state.calls[position_of(step)].fate == "ask"
    return None if asked else command


def _attempt(state: RunState, step: str) -> int:
    return times_in_doubt(state, position_of(step))


def _was_called(events: tuple[Event, ...], step: str) -> bool:
    """Whether the model asked for an external call at this step."""
    start = events[0]
    tools = offered_tools(start.definition) if isinstance(start, RunStarted) else ()
    for reply in (each for each in events if isinstance(each, ModelReplied)):
        turn = reply.step.removesuffix("/model")
        for position, call in enumerate(reply.completion.message.tool_calls):
            if step == f"{turn}/tool/{position}":
                spec = find(tools, call.name)
                return spec is not None and external_task(spec) is not None
    return False
