"""The durable engine: runs that live in the journal, worked on one step at a time.

Each public method is what one Celery task does, and may be called any number of times, in any
order, on any machine: what is stored decides whether there is something to do. A step is claimed
under a lease, performed, and its outcome appended together with everything the rules derive from
it; only after that commit is anything sent, and the rows of the steps are the outbox.

The lease is held from the claim until that commit. Work is cancelled when the lease is lost, when
its run has ended or is to end, and when this process ends and others can do it: such a step is
handed back and sent at once. A model call that is put off goes on when its wait is over, in
whichever process: until then it is a row. What was done already is always offered to the journal,
which takes it if nobody has followed this attempt up.

The rules are those of core, the touch with the world is `perform`: nothing here decides what a run
does next.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace

from heartbit.core.calls import may_be_begun_again
from heartbit.core.commands import CallTool, Command
from heartbit.core.events import DeadlinePassed, Event, RunStarted
from heartbit.core.result import RunOutput, run_output
from heartbit.core.run import Progress, follow
from heartbit.engines.external import ExternalCalls
from heartbit.engines.folded import FoldedRuns
from heartbit.engines.leases import Held
from heartbit.engines.patience import Patience
from heartbit.engines.plan import (
    TOOL_QUEUE,
    Keeper,
    Outcome,
    Plan,
    RunPlace,
    external_task,
    place_of,
    root_run,
)
from heartbit.engines.ports import Announce, Done, Outbox, Work
from heartbit.engines.recorder import Recorder, dispatch_of
from heartbit.engines.steps import Begun, begun
from heartbit.engines.together import Together
from heartbit.engines.verdicts import blame, can_be_asked, may_begin_again, tell
from heartbit.errors import (
    BoardConflict,
    CallPutOff,
    ConfigError,
    LeaseLost,
    RunNotFound,
    RunStopped,
    StepHandedBack,
)
from heartbit.stores.journal import Journal
from heartbit.stores.records import Claim, ExpiredStep, NewRun, Opened

Hold = Callable[[Held], AbstractContextManager[None]]

# Threads are made as they are needed: a step that waited for one would lose its lease.
MOST_THREADS = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class _Turn:
    """What steps done side by side have in common: their run, and until when it goes on."""

    place: RunPlace
    progress: Progress
    until: float | None
    together: Together | None = None


class DurableEngine:
    """Works on journaled runs.

    `hold` keeps the lease of a step while its block runs. `work` performs a command in it, and
    raises LeaseLost when it had to end before. It is called without any transaction open.
    `leaving` tells that this process is to end and begins no more. `announce` hears of every
    append, after its commit; whoever listens makes up for what it does not hear from the journal.
    With `batch_seconds` a step is followed by the next ones of its run at once, in the same
    process, until that time is over; their leases are in the transaction that brings them about.
    With `max_active_runs` a root run waits until fewer run trees than that have something to do.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        outbox: Outbox,
        work: Work,
        owner: str,
        lease_seconds: float = 15.0,
        announce: Announce | None = None,
        batch_seconds: float | None = None,
        max_active_runs: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        hold: Hold = lambda held: nullcontext(),
        leaving: Callable[[], bool] = lambda: False,
        patience: Patience | None = None,
    ) -> None:
        self._hold = hold
        self._leaving = leaving
        self._batch_seconds = batch_seconds
        self._max_active_runs = max_active_runs
        self._clock = clock
        self._journal = journal
        self._outbox = outbox
        self._work = work
        self._owner = owner
        self._lease_seconds = lease_seconds
        self._patience = patience or Patience()
        self._threads = ThreadPoolExecutor(MOST_THREADS, "heartbit-step")
        self._runs = FoldedRuns(journal)
        self._recorder = Recorder(
            journal=journal,
            outbox=outbox,
            runs=self._runs,
            lease_seconds=lease_seconds,
            announce=announce,
            max_active_runs=max_active_runs,
            patience=self._patience,
        )
        self.external = ExternalCalls(
            journal=journal, outbox=outbox, runs=self._runs, recorder=self._recorder
        )

    def open(
        self, place: RunPlace, start: RunStarted, *, task_id: str, priority: int = 0
    ) -> Opened:
        """Open a root run, or find the one that is open under this id.

        Raises:
            RunStateError: the id belongs to a run with another prompt, agent or tenant.
        """
        held = self._max_active_runs is not None
        new = root_run(place, start, task_id=task_id, priority=priority, held=held)
        return self.open_run(new)

    def open_run(self, new: NewRun) -> Opened:
        """The same for a run that is described already."""
        opened = self._journal.open_run(new)
        if opened.opened:
            self._recorder.opened(new)
        return opened

    def step(self, run_id: str, step: str) -> None:
        """Do one step of a run, if nobody has done it or is at it.

        Raises:
            RunNotFound: there is no such step.
        """
        known, since = self._runs.known(run_id), self._clock()
        claim = self._claim(run_id, step, known)
        if claim.why_not == "unknown":
            raise RunNotFound(f"There is no step {step!r} of a run {run_id!r}.")
        progress = follow(known, claim.events)
        asked = claim.why_not == "in_doubt" and can_be_asked(progress, step)
        if asked or (claim.why_not == "external" and may_begin_again(progress, step)):
            claim = self._claim(run_id, step, progress, doubt=claim.attempt)
            progress = follow(progress, claim.events)
        place = self._place(run_id)
        if claim.cancelled:
            self._recorder.cancel(place, progress)
        elif claim.why_not is not None:
            self._refused(place, progress, claim, step)
        elif command := progress.commands.get(step):
            attempt = claim.attempt
            held = Held(run_id=run_id, step=step, attempt=attempt, since=since, doubt=asked)
            self._go_on(place, progress, command, replace(held, tried=claim.tried))

    def judge(self, lost: ExpiredStep) -> None:
        """Decide about a step whose worker was lost and that cannot simply be done again.

        A tool that can be asked is asked by whoever claims the step: that may take its time.
        """
        progress, place = self.progress(lost.run_id), self._place(lost.run_id)
        command = progress.commands.get(lost.step)
        if command is None or progress.state.ended:
            return
        if lost.fate != "in_doubt" or not isinstance(command, CallTool):
            blame(self._recorder, place, progress, lost.step, lost.attempt)
        elif command.spec.probe:
            self.send_again(lost.run_id, lost.step, lost.queue)
        else:
            tell(self._recorder, place, progress, command, lost.attempt)

    def send_again(self, run_id: str, step: str, queue: str) -> None:
        """Send a step whose message is lost."""
        row = self._journal.run(run_id)
        self._outbox.steps([dispatch_of(place_of(row), row.agent, step, queue)])

    def begin_again(self, run_id: str, step: str) -> None:
        """Send a call in doubt that a human wants run again."""
        progress = self.progress(run_id)
        command = progress.commands.get(step)
        if not isinstance(command, CallTool) or not may_be_begun_again(progress.state, step):
            return
        if external_task(command.spec):
            self.external.begin_again(run_id, progress, command)
        else:
            self.send_again(run_id, step, command.spec.queue or TOOL_QUEUE)

    def can_send(self) -> bool:
        """Whether messages get to a broker now."""
        return self._outbox.reachable()

    def empty_queues(self) -> Sequence[str]:
        """Queues in which no message waits."""
        return self._outbox.empty_queues()

    def publish(self, run_id: str) -> None:
        """Tell whoever waits for it that a run has ended."""
        self._outbox.finished(run_id)

    def resume(self, run_id: str) -> None:
        """Send what was never sent, or end the run if its tree is cancelled."""
        row = self._journal.run(run_id)
        root = row if row.root_run_id == run_id else self._journal.run(row.root_run_id)
        if root.cancel_requested:
            self._recorder.cancel(place_of(row), self.progress(run_id))
        else:
            if row.status == "queued" and self._max_active_runs is not None:
                self.admit()
            self._recorder.dispatch(place_of(row), row.agent, self._journal.undispatched(run_id))

    def admit(self) -> None:
        """Let runs begin that wait for their admission, as far as the limit allows it."""
        self._recorder.admit()

    def cancel(self, run_id: str) -> None:
        """Ask for the end of a run tree; every open run of it is woken to end itself."""
        for each in self._journal.request_cancel(run_id):
            self._outbox.wake(each)

    def resolve(self, run_id: str, event: Event) -> None:
        """Append something that came from outside any step: a decision, a passed deadline."""
        self._recorder.record(self._place(run_id), self.progress(run_id), event)

    def pass_deadline(self, run_id: str) -> None:
        """End a run whose time is over, its sub-runs first."""
        progress = self.progress(run_id)
        if progress.state.ending:
            self._recorder.stop_sub_runs(self._place(run_id), progress)
        else:
            self.resolve(run_id, DeadlinePassed())

    def output(self, run_id: str) -> RunOutput:
        """What a run has come to so far."""
        state = self.progress(run_id).state
        return run_output(run_id, state, self._journal.run(run_id).status)

    def _go_on(self, place: RunPlace, progress: Progress, command: Command, held: Held) -> None:
        """Do a step, and those that it hands to this process, until none is left."""
        until = self._clock() + self._batch_seconds if self._batch_seconds else None
        turn = _Turn(place=place, progress=progress, until=until)
        kept = self._perform(turn, command, held)
        while kept is not None:
            turn = replace(turn, progress=kept.after)
            kept = self._side_by_side(turn, kept.steps)

    def _side_by_side(self, turn: _Turn, steps: Sequence[tuple[Command, Held]]) -> Begun | None:
        """Do steps at the same time, the first one in this thread."""
        if len(steps) > 1:
            turn = replace(turn, together=self._together(turn, steps))
        others = [self._threads.submit(self._perform, turn, *step) for step in steps[1:]]
        try:
            own = self._perform(turn, *steps[0])
        finally:
            wait(others)
        return next((k for k in (own, *(each.result() for each in others)) if k is not None), None)

    def _together(self, turn: _Turn, steps: Sequence[tuple[Command, Held]]) -> Together:
        return Together(
            [held.step for _, held in steps],
            lambda outcomes: self._recorder.record_together(
                turn.place, turn.progress, outcomes, self._keeper(turn.until)
            ),
        )

    def _perform(self, turn: _Turn, command: Command, held: Held) -> Begun | None:
        """Do one step under its lease, if it may be done here and now."""
        try:
            with self._hold(held):
                return self._done(turn, command, held)
        except StepHandedBack:
            self._hand_back(turn.place, turn.progress, held)
        except RunStopped:
            self.resume(held.run_id)
        except LeaseLost:
            pass
        finally:
            if turn.together is not None:
                turn.together.leave(held.step)
        return None

    def _done(self, turn: _Turn, command: Command, held: Held) -> Begun | None:
        """Work, and store the outcome; again if somebody else has written to its blackboard.

        Nothing that writes to a blackboard does anything besides: it had not happened.
        """
        while True:
            try:
                done = self._work(command, turn.progress.state, turn.place, held)
            except ConfigError:  # nothing was begun: another worker may have what is missing here
                self._release(held, delay=self._lease_seconds)
                raise
            except CallPutOff as later:
                self._put_off(held, later)
                return None
            since = self._clock()
            with done.transaction or nullcontext(), suppress(BoardConflict):
                plan = self._record(turn, held, done)
                return begun(plan, since) if plan is not None else None

    def _record(self, turn: _Turn, held: Held, done: Done) -> Plan | None:
        """Store an outcome, with those of its neighbours if they come now."""
        if turn.together is not None and not done.board and done.transaction is None:
            outcome = Outcome(event=done.event, step=held.step, attempt=held.attempt)
            stored, plan = turn.together.store(outcome)
            if stored:
                return plan
        return self._recorder.record(
            turn.place,
            turn.progress,
            done.event,
            step=held.step,
            attempt=held.attempt,
            board=done.board,
            keeper=self._keeper(turn.until),
            transaction=done.transaction,
        )

    def _hand_back(self, place: RunPlace, progress: Progress, held: Held) -> None:
        """Have a step done by somebody else at once; no worker was lost with it."""
        self._release(held)
        agent = progress.state.definition.name
        self._recorder.dispatch(place, agent, [held.step], progress)

    def _release(self, held: Held, delay: float = 0.0) -> None:
        """Give a step back that was not begun.

        One in doubt would be taken for one that nobody has ever begun: its lease runs out instead.
        """
        if not held.doubt:
            self._journal.release(held.run_id, held.step, held.attempt, delay=delay)

    def _put_off(self, held: Held, later: CallPutOff) -> None:
        """Have a step go on when its wait is over, wherever that is: nothing is held meanwhile."""
        where = (held.run_id, held.step, held.attempt)
        self._patience.offer(
            f"The wait of step {held.step} of run {held.run_id}",
            lambda: self._journal.put_off(*where, seconds=later.seconds, tried=later.tried),
        )

    def _keeper(self, until: float | None) -> Keeper | None:
        """Which next steps this process keeps: once its time is over, only inline calls."""
        if self._leaving():
            return None
        every = until is not None and self._clock() < until
        return Keeper(owner=self._owner, lease_seconds=self._lease_seconds, every=every)

    def _claim(
        self, run_id: str, step: str, known: Progress | None, doubt: int | None = None
    ) -> Claim:
        return self._journal.claim(
            run_id,
            step,
            owner=self._owner,
            lease_seconds=self._lease_seconds,
            known=known.seq if known else 0,
            doubt=doubt,
        )

    def _refused(self, place: RunPlace, progress: Progress, claim: Claim, step: str) -> None:
        if claim.why_not == "poisoned" and can_be_asked(progress, step):
            blame(self._recorder, place, progress, step, claim.attempt)
        elif claim.why_not == "done":
            agent = progress.state.definition.name
            self._recorder.dispatch(place, agent, self._journal.undispatched(place.run_id))

    def progress(self, run_id: str) -> Progress:
        """The whole journal of a run, folded."""
        return self._runs.progress(run_id)

    def _place(self, run_id: str) -> RunPlace:
        return self._runs.place(run_id)
