"""What becomes of an event: appended with all it brings about, then told and sent.

An append that does not fit any more is thought over with the events in between, until it fits or
comes too late. Only after the commit anybody hears of it, and the rows of its steps are sent: they
are the outbox. The end of a sub-run and what it means to its parent are one transaction.

The outcome of a step is offered until the database takes it: nobody else has it. The answer to an
append may be lost with the connection, so one that is tried again may find itself in the journal.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace

from heartbit.core.agent import as_json
from heartbit.core.calls import position_of, times_in_doubt
from heartbit.core.commands import CallTool, Command, StartSubRun
from heartbit.core.delegation import BlackboardWrite
from heartbit.core.events import Event, LateResult, RunCancelled, SubRunFinished, ToolReturned
from heartbit.core.run import Progress, follow
from heartbit.core.state import RunState
from heartbit.engines.folded import FoldedRuns
from heartbit.engines.ids import external_task_id, sub_run_id
from heartbit.engines.patience import Patience
from heartbit.engines.plan import (
    Keeper,
    Outcome,
    Plan,
    RunPlace,
    external_task,
    has_sub_runs,
    is_due,
    place_of,
    plan_outcome,
)
from heartbit.engines.ports import Announce, Dispatch, ExternalCall, Outbox
from heartbit.engines.transactions import CallTransaction
from heartbit.errors import JournalUnavailable, LeaseLost
from heartbit.stores.journal import Journal, ToolTransaction, Transaction
from heartbit.stores.records import Append, Appended, NewRun

_Written = tuple[RunPlace, Plan]
_logger = logging.getLogger("heartbit.engine")


class Recorder:
    """Appends events to journals. Every method may be called by any number of threads."""

    def __init__(
        self,
        *,
        journal: Journal,
        outbox: Outbox,
        runs: FoldedRuns,
        lease_seconds: float,
        announce: Announce | None,
        max_active_runs: int | None,
        patience: Patience,
    ) -> None:
        self._patience = patience
        self._journal = journal
        self._outbox = outbox
        self._runs = runs
        self._lease_seconds = lease_seconds
        self._announce = announce
        self._max_active_runs = max_active_runs

    def record(
        self,
        place: RunPlace,
        progress: Progress,
        event: Event,
        *,
        step: str | None = None,
        attempt: int | None = None,
        verdict: bool = False,
        board: Sequence[BlackboardWrite] = (),
        keeper: Keeper | None = None,
        keep_late: bool = True,
        transaction: CallTransaction[ToolTransaction] | None = None,
    ) -> Plan | None:
        """Append, or give None if it came too late: a late outcome is kept for the record. What was
        done in a `transaction` is kept with the append or not at all.

        Raises:
            BoardConflict: somebody else has written to the same key of a blackboard.
            JournalUnavailable: the database is away; for an outcome, it did not come back in time.
        """
        while True:
            plan = plan_outcome(
                place,
                progress,
                event,
                step=step,
                attempt=attempt,
                verdict=verdict,
                board=board,
                keeper=keeper,
                again_seconds=self._lease_seconds,
            )
            try:
                appended, written = self._offer(place, plan, transaction)
            except LeaseLost:
                break
            if appended.ok:
                self._stored(place, progress, plan, written)
                return plan
            if appended.ended:
                return None
            progress = follow(progress, appended.behind)
            if progress.state.ended or (step is not None and step not in progress.commands):
                break
        undone = transaction is not None and isinstance(event, ToolReturned)
        if step is not None and keep_late and not verdict and not undone:
            self.note_late(place, step, event)
        return None

    def record_together(
        self,
        place: RunPlace,
        progress: Progress,
        outcomes: Sequence[Outcome],
        keeper: Keeper | None = None,
    ) -> Plan | None:
        """Append the outcomes of several steps at once, or give None if not all of them fit.

        Raises:
            JournalUnavailable: the database is away and did not come back in time.
        """
        first, *beside = outcomes
        while progress.commands.keys() >= {each.step for each in outcomes}:
            plan = plan_outcome(
                place,
                progress,
                first.event,
                step=first.step,
                attempt=first.attempt,
                keeper=keeper,
                again_seconds=self._lease_seconds,
                beside=beside,
            )
            try:
                appended, written = self._offer(place, plan)
            except LeaseLost:
                break
            if appended.ok:
                self._stored(place, progress, plan, written)
                return plan
            if appended.ended:
                break
            progress = follow(progress, appended.behind)
        return None

    def opened(self, new: NewRun) -> None:
        """Tell that a root run was opened; what a fork has kept is in the journal only."""
        if self._announce is not None:
            append = Append(run_id=new.run_id, expected=1, events=(new.start,))
            place = RunPlace(run_id=new.run_id, root_run_id=new.root_run_id)
            self._announce(place, Plan(append=append, after=follow(None, [new.start])))

    def admit(self) -> None:
        """Begin runs that wait for their admission."""
        for run_id in self._journal.admit(self._max_active_runs):
            row = self._journal.run(run_id)
            self.dispatch(place_of(row), row.agent, self._journal.undispatched(run_id))

    def cancel(self, place: RunPlace, progress: Progress) -> None:
        """End a run and its sub-runs, whose usage it counts, unless it has ended."""
        progress = self.without_sub_runs(place, progress)
        if not progress.state.ended:
            self.record(place, progress, RunCancelled(usage=progress.state.usage))

    def stop_sub_runs(self, place: RunPlace, progress: Progress) -> None:
        """The end of a run is decided: its sub-runs end now, and the last one brings it about."""
        for step, command in progress.commands.items():
            if isinstance(command, StartSubRun):
                child = sub_run_id(place.run_id, step)
                self.cancel(self._runs.place(child), self._runs.progress(child))

    def without_sub_runs(self, place: RunPlace, progress: Progress) -> Progress:
        """The run once its sub-runs have ended, also those that come after one another."""
        before = 0
        while progress.seq > before and has_sub_runs(progress):
            before = progress.seq
            self.stop_sub_runs(place, progress)
            progress = self._runs.progress(place.run_id)
        return progress

    def dispatch(
        self,
        place: RunPlace,
        agent: str,
        steps: Sequence[str],
        progress: Progress | None = None,
    ) -> None:
        """Send steps that were never sent; each is won by one caller."""
        if progress is None and any("/tool/" in step for step in steps):
            progress = self._runs.progress(place.run_id)
        if progress is not None:
            steps = self._sendable(place.run_id, progress, steps)
        if not steps:
            return
        won = self._journal.take_dispatch(place.run_id, steps, again_seconds=self._lease_seconds)
        if progress is None:
            self._outbox.steps([dispatch_of(place, agent, step, queue) for step, queue in won])
        else:
            self.send(place, progress, won)

    def send(self, place: RunPlace, progress: Progress, steps: Sequence[tuple[str, str]]) -> None:
        """Send steps of a run to queues; nothing is begun elsewhere for a tree that is to end."""
        messages = [_message(place, progress, step, queue) for step, queue in steps]
        messages = [each for each in messages if each.call or each.queue]  # answered meanwhile
        if any(each.call for each in messages):
            cancelled = self._journal.run(place.root_run_id).cancel_requested
            messages = [each for each in messages if not (each.call and cancelled)]
        self._outbox.steps(messages)

    def _sendable(self, run_id: str, progress: Progress, steps: Sequence[str]) -> Sequence[str]:
        """Without those that must not be sent twice, while it is clear that they would be lost."""
        state, commands = progress.state, progress.commands
        calls = [s for s in steps if external_call(run_id, state, commands.get(s))]
        if not calls or self._outbox.reachable():
            return steps
        return [step for step in steps if step not in calls]

    def abandon(self, run_id: str, state: RunState, commands: Iterable[Command]) -> None:
        """Nobody waits for the outcome of these commands any more: recall what was sent out."""
        calls = [external_call(run_id, state, command) for command in commands]
        if ids := [call.task_id for call in calls if call]:
            self._outbox.revoke(ids)

    def note_late(self, place: RunPlace, step: str, event: Event) -> None:
        """Another attempt holds the step, or has done it: for the record, if the run goes on."""
        late = LateResult(late_step=step, outcome=as_json(event))
        self.record(place, self._runs.progress(place.run_id), late)

    def _offer(
        self, place: RunPlace, plan: Plan, call: CallTransaction[ToolTransaction] | None = None
    ) -> tuple[Appended, Sequence[_Written]]:
        """Append; the outcome of a step as often as it takes. What else there is comes back."""
        append, tries = plan.append, itertools.count()
        if call is not None and call.written is not None:
            appended, written = self._append_in(call.written, place, plan)
            if appended.ok:
                call.commit()
            return appended, written
        if append.step is None or append.verdict:
            return self._append(place, plan)

        def store() -> tuple[Appended, Sequence[_Written]]:
            tried_before = next(tries) > 0
            appended, written = self._append(place, plan)
            if tried_before and self._is_stored(append, append.step or "", appended):
                return Appended(ok=True, seq=plan.after.seq + 1), [(place, plan)]
            return appended, written

        return self._patience.offer(f"The outcome of run {place.run_id} step {append.step}", store)

    def _is_stored(self, append: Append, step: str, appended: Appended) -> bool:
        """Whether an append succeeded whose answer was lost: it, and not another attempt like it.

        The claim of a step that is done changes nothing, and tells which attempt has done it.
        """
        if appended.behind[: len(append.events)] != tuple(append.events):
            return False
        claim = self._journal.claim(
            append.run_id, step, owner="", lease_seconds=0, known=append.expected
        )
        return claim.why_not in ("done", "ended") and claim.attempt == append.attempt

    def _append(self, place: RunPlace, plan: Plan) -> tuple[Appended, Sequence[_Written]]:
        """Whether it fitted, and everything that is in the journal if it did."""
        if plan.after.state.ended and place.parent_run_id is not None:
            with self._journal.transaction() as transaction:
                return self._append_in(transaction, place, plan)
        return self._journal.append(plan.append), [(place, plan)]

    def _append_in(
        self, transaction: Transaction, place: RunPlace, plan: Plan
    ) -> tuple[Appended, Sequence[_Written]]:
        """Append, and if that is the end of a sub-run, what it means to its parent."""
        written: list[_Written] = [(place, plan)]
        appended = transaction.append(plan.append)
        parent_id, step = place.parent_run_id, place.step_in_parent
        if appended.ok and plan.after.state.ended and parent_id is not None and step is not None:
            event = _sub_run_finished(step, place.run_id, plan.after.state)
            written += self._append_to_parent(transaction, parent_id, step, event)
        return appended, written

    def _append_to_parent(
        self, transaction: Transaction, parent_id: str, step: str, event: SubRunFinished
    ) -> Sequence[_Written]:
        # Read on the same connection: a second one from the pool could be waited for in a circle.
        known = self._runs.known(parent_id)
        progress = follow(known, transaction.events(parent_id, known.seq if known else 0))
        place = place_of(transaction.run(parent_id))
        while not progress.state.ended and step in progress.commands:
            plan = plan_outcome(
                place, progress, event, step=step, attempt=0, again_seconds=self._lease_seconds
            )
            appended = transaction.append(plan.append)
            if appended.ok:
                return [(place, plan)]
            if appended.ended:
                break
            progress = follow(progress, appended.behind)
        return []

    def _stored(
        self, place: RunPlace, before: Progress, plan: Plan, written: Sequence[_Written]
    ) -> None:
        for where, each in written:
            self._committed(where, each)
        self.abandon(place.run_id, before.state, _dropped(before, plan))

    def _committed(self, place: RunPlace, plan: Plan) -> None:
        """Once it is committed: tell whoever listens, and send what it calls for."""
        self._runs.keep(place.run_id, plan.after)
        if self._announce is not None:
            self._announce(place, plan)
        try:
            self._send(place, plan)
        except JournalUnavailable as error:
            _logger.warning(
                "What run %s calls for will be sent later: %s", place.run_id, error.message
            )

    def _send(self, place: RunPlace, plan: Plan) -> None:
        new = plan.append.steps
        if pending := [(s.step, s.queue) for s in new if is_due(s, "pending")]:
            self.send(place, plan.after, pending)
        agent = plan.after.state.definition.name
        external = [s for s in new if is_due(s, "external")]
        self.dispatch(place, agent, [s.step for s in external], plan.after)
        subs = [run.run_id for run in plan.append.runs]
        if subs:
            self._outbox.sub_runs(place.run_id, subs)
        if plan.after.state.ended:
            self._outbox.finished(place.run_id)
            if place.parent_run_id is None and self._max_active_runs is not None:
                self.admit()
        elif plan.after.state.ending:
            self.stop_sub_runs(place, plan.after)


def _message(place: RunPlace, progress: Progress, step: str, queue: str) -> Dispatch:
    state, command = progress.state, progress.commands.get(step)
    tool = command.call.name if isinstance(command, CallTool) else ""
    call = external_call(place.run_id, state, command)
    return replace(dispatch_of(place, state.definition.name, step, queue, tool), call=call)


def external_call(run_id: str, state: RunState, command: Command | None) -> ExternalCall | None:
    """The message of a command that is somebody else's to answer."""
    task = external_task(command.spec) if isinstance(command, CallTool) else None
    if task is None or not isinstance(command, CallTool):
        return None
    attempt = times_in_doubt(state, position_of(command.step))
    return ExternalCall(
        task=task,
        task_id=external_task_id(run_id, command.step, attempt),
        arguments=command.call.arguments,
        attempt=attempt,
    )


def _dropped(before: Progress, plan: Plan) -> list[Command]:
    """What was open and is not done, but is not wanted any more."""
    done = {plan.append.step, *(step for step, _ in plan.append.beside)}
    return [c for s, c in before.commands.items() if s not in done | plan.after.commands.keys()]


def dispatch_of(place: RunPlace, agent: str, step: str, queue: str, tool: str = "") -> Dispatch:
    """The message of a step."""
    return Dispatch(
        run_id=place.run_id,
        step=step,
        queue=queue,
        root_run_id=place.root_run_id,
        agent=agent,
        tool=tool,
    )


def _sub_run_finished(step: str, run_id: str, state: RunState) -> SubRunFinished:
    return SubRunFinished(
        step=step,
        sub_run_id=run_id,
        sub_agent=state.definition.name,
        status=state.status,
        result=state.result,
        error=state.error,
        usage=state.usage,
        tool_calls_made=state.tool_calls_made,
        cost_usd=state.cost_usd,
    )
