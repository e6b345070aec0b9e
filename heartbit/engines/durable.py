"""The durable engine: runs that live in the journal, worked on one step at a time.

Each public method is what one Celery task does, and may be called any number of times, in any
order, on any machine: what is stored decides whether there is something to do. A step is claimed
under a lease, performed, and its outcome appended together with everything the rules derive from
it; only after that commit is anything sent, and the rows of the steps are the outbox.

The rules are those of core, the touch with the world is `perform`: nothing here decides what a run
does next.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from types import MappingProxyType
from typing import Protocol

from heartbit.core.agent import as_json
from heartbit.core.calls import doubt, may_be_begun_again
from heartbit.core.commands import CallTool, Command, StartSubRun
from heartbit.core.delegation import BlackboardWrite
from heartbit.core.events import (
    DeadlinePassed,
    Event,
    LateResult,
    RunCancelled,
    RunFailed,
    RunStarted,
    SubRunFinished,
)
from heartbit.core.result import RunOutput, run_output
from heartbit.core.run import Progress, follow
from heartbit.core.state import RunState
from heartbit.engines.ids import sub_run_id
from heartbit.engines.leases import Held
from heartbit.engines.plan import (
    TOOL_QUEUE,
    Keeper,
    Plan,
    RunPlace,
    first_steps,
    has_sub_runs,
    plan_outcome,
)
from heartbit.errors import BoardConflict, ConfigError, LeaseLost, RunNotFound, WorkersLost
from heartbit.stores.journal import Journal, Transaction
from heartbit.stores.records import Appended, Claim, ExpiredStep, NewRun, Opened, RunRow

CACHED_RUNS = 512
EMPTY: Mapping[str, Command] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True, slots=True)
class Dispatch:
    """A step of a run to send to a queue after a commit; the rest is what people are shown."""

    run_id: str
    step: str
    queue: str
    root_run_id: str = ""
    agent: str = ""
    tool: str = ""


class Outbox(Protocol):
    """Where an engine's messages go; sending twice, or late, does no harm."""

    def steps(self, dispatches: Sequence[Dispatch]) -> None:
        """Have these steps worked on."""

    def sub_runs(self, parent_run_id: str, run_ids: Sequence[str]) -> None:
        """Have these sub-runs started, and the parent woken when all of them have ended."""

    def finished(self, run_id: str) -> None:
        """Publish the end of a run to whoever waits for it."""

    def wake(self, run_id: str) -> None:
        """Have somebody look after a run."""

    def empty_queues(self) -> Sequence[str]:
        """Queues that certainly hold no message now: what is not claimed by then is lost.

        Not knowing is no failure; then there are none.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """A performed command: its event, and what it puts on blackboards, to be stored with that."""

    event: Event
    board: Sequence[BlackboardWrite] = ()


Work = Callable[[Command, RunState, RunPlace, Held], Done]
Announce = Callable[[RunPlace, Plan], None]
_Written = tuple[RunPlace, Plan]


class DurableEngine:
    """Works on journaled runs.

    `work` performs a command, keeps the lease while it does, and raises LeaseLost when it could
    not. It is called without any transaction open. `announce` hears of every append, after its
    commit; whoever listens makes up for what it does not hear from the journal. With
    `batch_seconds` a step is followed by the next ones of its run at once, in the same process,
    until that time is over; their leases are in the transaction that brings them about.
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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._batch_seconds = batch_seconds
        self._clock = clock
        self._announce = announce
        self._journal = journal
        self._outbox = outbox
        self._work = work
        self._owner = owner
        self._lease_seconds = lease_seconds
        self._cache = _Cache()

    def open(self, place: RunPlace, start: RunStarted, *, task_id: str) -> Opened:
        """Open a root run, or find the one that is open under this id.

        Raises:
            RunStateError: the id belongs to a run with another prompt, agent or tenant.
        """
        new = NewRun(
            run_id=place.run_id,
            task_id=task_id,
            root_run_id=place.root_run_id,
            start=start,
            steps=first_steps(follow(None, [start])),
            tenant_id=place.tenant_id,
            user_id=place.user_id,
        )
        return self._journal.open_run(new)

    def step(self, run_id: str, step: str) -> None:
        """Do one step of a run, if nobody has done it or is at it.

        Raises:
            RunNotFound: there is no such step.
        """
        known, since = self._cache.get(run_id), self._clock()
        claim = self._claim(run_id, step, known)
        if claim.why_not == "unknown":
            raise RunNotFound(f"There is no step {step!r} of a run {run_id!r}.")
        progress = follow(known, claim.events)
        if claim.why_not == "external" and may_be_begun_again(progress.state, step):
            claim = self._claim(run_id, step, progress, doubt=claim.attempt)
            progress = follow(progress, claim.events)
        place = self._place(run_id)
        if claim.cancelled:
            self._cancel(place, progress)
        elif claim.why_not is not None:
            self._refused(place, progress, claim, step)
        elif command := progress.commands.get(step):
            held = Held(run_id=run_id, step=step, attempt=claim.attempt, since=since)
            self._go_on(place, progress, command, held)

    def judge(self, lost: ExpiredStep) -> None:
        """Decide about a step whose worker was lost and that cannot simply be done again."""
        progress, place = self.progress(lost.run_id), self._place(lost.run_id)
        command = progress.commands.get(lost.step)
        if command is None or progress.state.ended:
            return
        event: Event
        if lost.fate == "in_doubt" and isinstance(command, CallTool):
            event = doubt(progress.state, command)
        else:
            progress = self._without_sub_runs(place, progress)
            reason = f"Every worker that did step {lost.step} was lost: it seems to kill them."
            usage = progress.state.usage
            event = RunFailed(code=WorkersLost.code, message=reason, usage=usage)
        self._record(place, progress, event, step=lost.step, attempt=lost.attempt, verdict=True)

    def _without_sub_runs(self, place: RunPlace, progress: Progress) -> Progress:
        """The run once its sub-runs have ended, also those that come after one another."""
        before = 0
        while progress.seq > before and has_sub_runs(progress):
            before = progress.seq
            self._stop_sub_runs(place, progress)
            progress = self.progress(place.run_id)
        return progress

    def send_again(self, run_id: str, step: str, queue: str) -> None:
        """Send a step whose message is lost."""
        row = self._journal.run(run_id)
        self._outbox.steps([_dispatch_of(_place_of(row), row.agent, step, queue)])

    def begin_again(self, run_id: str, step: str) -> None:
        """Send a call in doubt that a human wants run again."""
        progress = self.progress(run_id)
        command = progress.commands.get(step)
        if isinstance(command, CallTool) and may_be_begun_again(progress.state, step):
            self.send_again(run_id, step, command.spec.queue or TOOL_QUEUE)

    def empty_queues(self) -> Sequence[str]:
        """Queues in which no message waits."""
        return self._outbox.empty_queues()

    def publish(self, run_id: str) -> None:
        """Tell whoever waits for it that a run has ended."""
        self._outbox.finished(run_id)

    def resume(self, run_id: str) -> None:
        """Send what was never sent, or end the run if its tree is cancelled."""
        row = self._journal.run(run_id)
        if self._journal.run(row.root_run_id).cancel_requested:
            self._cancel(_place_of(row), self.progress(run_id))
        else:
            self._dispatch(_place_of(row), row.agent, self._journal.undispatched(run_id))

    def cancel(self, run_id: str) -> None:
        """Ask for the end of a run tree; every open run of it is woken to end itself."""
        for each in self._journal.request_cancel(run_id):
            self._outbox.wake(each)

    def resolve(self, run_id: str, event: Event) -> None:
        """Append something that came from outside any step: a decision, a passed deadline."""
        self._record(self._place(run_id), self.progress(run_id), event)

    def pass_deadline(self, run_id: str) -> None:
        """End a run whose time is over, its sub-runs first."""
        progress = self.progress(run_id)
        if progress.state.ending:
            self._stop_sub_runs(self._place(run_id), progress)
        else:
            self.resolve(run_id, DeadlinePassed())

    def output(self, run_id: str) -> RunOutput:
        """What a run has come to so far."""
        state = self.progress(run_id).state
        return run_output(run_id, state, self._journal.run(run_id).status)

    def _go_on(self, place: RunPlace, progress: Progress, command: Command, held: Held) -> None:
        """Do a step, and those that it hands to this process, until none is left."""
        until = self._clock() + self._batch_seconds if self._batch_seconds else None
        plan = self._perform(place, progress, command, held, until)
        while plan is not None:
            mine = _mine(plan)
            after = plan.after
            if len(mine) < 2:
                plan = self._perform(place, after, *mine[0], until) if mine else None
                continue
            with ThreadPoolExecutor(len(mine), "heartbit-step") as pool:
                begun = [pool.submit(self._perform, place, after, c, h, until) for c, h in mine]
            plans = [each.result() for each in begun]
            plan = next((p for p in plans if p is not None and _mine(p)), None)

    def _perform(
        self,
        place: RunPlace,
        progress: Progress,
        command: Command,
        held: Held,
        until: float | None = None,
    ) -> Plan | None:
        """Work, and store the outcome; again if somebody else has written to its blackboard.

        Nothing that writes to a blackboard does anything besides: it had not happened.
        """
        while True:
            try:
                done = self._work(command, progress.state, place, held)
            except LeaseLost:
                return None
            except ConfigError:  # nothing was begun: another worker may have what is missing here
                self._journal.release(
                    held.run_id, held.step, held.attempt, delay=self._lease_seconds
                )
                raise
            with suppress(BoardConflict, LeaseLost):
                return self._record(
                    place,
                    progress,
                    done.event,
                    step=held.step,
                    attempt=held.attempt,
                    board=done.board,
                    keeper=self._keeper(until),
                )
            if not done.board:
                return None

    def _keeper(self, until: float | None) -> Keeper | None:
        """Whether this process keeps the next steps of a run: not when its batch is over."""
        if until is None or self._clock() >= until:
            return None
        return Keeper(owner=self._owner, lease_seconds=self._lease_seconds)

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
        if claim.why_not == "done":
            agent = progress.state.definition.name
            self._dispatch(place, agent, self._journal.undispatched(place.run_id))

    def _cancel(self, place: RunPlace, progress: Progress) -> None:
        if not progress.state.ended:
            self._record(place, progress, RunCancelled(usage=progress.state.usage))

    def _record(
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
    ) -> Plan | None:
        """Append, and think again with the events in between, until it fits or is too late."""
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
            )
            try:
                appended, written = self._append(place, plan)
            except LeaseLost:
                break
            if appended.ok:
                for where, each in written:
                    self._committed(where, each)
                return plan
            if appended.ended:
                return None
            progress = follow(progress, appended.behind)
            if progress.state.ended or (step is not None and step not in progress.commands):
                break
        if step is not None and not verdict:
            self._note_late(place, step, event)
        return None

    def _note_late(self, place: RunPlace, step: str, event: Event) -> None:
        """Another attempt holds the step, or has done it: for the record, if the run goes on."""
        late = LateResult(late_step=step, outcome=as_json(event))
        self._record(place, self.progress(place.run_id), late)

    def _append(self, place: RunPlace, plan: Plan) -> tuple[Appended, Sequence[_Written]]:
        """Whether it fitted, and everything that is in the journal if it did."""
        if plan.after.state.ended and place.parent_run_id is not None:
            return self._append_to_both(place, plan)
        return self._journal.append(plan.append), [(place, plan)]

    def _append_to_both(self, place: RunPlace, plan: Plan) -> tuple[Appended, Sequence[_Written]]:
        """The end of a sub-run and what it means to its parent, in one transaction."""
        parent_id, step = place.parent_run_id, place.step_in_parent
        assert parent_id is not None  # noqa: S101 - _append has looked
        assert step is not None  # noqa: S101 - a run with a parent has its step
        written: list[_Written] = [(place, plan)]
        with self._journal.transaction() as transaction:
            appended = transaction.append(plan.append)
            if appended.ok:
                event = _sub_run_finished(step, place.run_id, plan.after.state)
                written += self._append_to_parent(transaction, parent_id, step, event)
        return appended, written

    def _append_to_parent(
        self, transaction: Transaction, parent_id: str, step: str, event: SubRunFinished
    ) -> Sequence[_Written]:
        # Read on the same connection: a second one from the pool could be waited for in a circle.
        known = self._cache.get(parent_id)
        progress = follow(known, transaction.events(parent_id, known.seq if known else 0))
        place = _place_of(transaction.run(parent_id))
        while not progress.state.ended and step in progress.commands:
            plan = plan_outcome(place, progress, event, step=step, attempt=0)
            appended = transaction.append(plan.append)
            if appended.ok:
                return [(place, plan)]
            if appended.ended:
                break
            progress = follow(progress, appended.behind)
        return []

    def _committed(self, place: RunPlace, plan: Plan) -> None:
        """Once it is committed: tell whoever listens, and send what it calls for."""
        self._cache.put(place.run_id, plan.after)
        if self._announce is not None:
            self._announce(place, plan)
        self._send(place, plan)

    def _send(self, place: RunPlace, plan: Plan) -> None:
        agent = plan.after.state.definition.name
        # A step with a delay is somebody else's to send: the body of a chord, and then the sweep.
        pending = [s.step for s in plan.append.steps if s.state == "pending" and not s.delay]
        self._dispatch(place, agent, pending, plan.after.commands)
        subs = [run.run_id for run in plan.append.runs]
        if subs:
            self._outbox.sub_runs(place.run_id, subs)
        if plan.after.state.ended:
            self._outbox.finished(place.run_id)
        elif plan.after.state.ending:
            self._stop_sub_runs(place, plan.after)

    def _stop_sub_runs(self, place: RunPlace, progress: Progress) -> None:
        """The end of a run is decided: its sub-runs end now, and the last one brings it about."""
        for step, command in progress.commands.items():
            if isinstance(command, StartSubRun):
                child = sub_run_id(place.run_id, step)
                self._cancel(self._place(child), self.progress(child))

    def _dispatch(
        self,
        place: RunPlace,
        agent: str,
        steps: Sequence[str],
        commands: Mapping[str, Command] = EMPTY,
    ) -> None:
        if not steps:
            return
        won = self._journal.take_dispatch(place.run_id, steps, again_seconds=self._lease_seconds)
        self._outbox.steps(
            [_dispatch_of(place, agent, s, queue, _tool_of(commands.get(s))) for s, queue in won]
        )

    def progress(self, run_id: str) -> Progress:
        """The whole journal of a run, folded."""
        known = self._cache.get(run_id)
        events = self._journal.events(run_id, known.seq if known else 0)
        progress = follow(known, events)
        self._cache.put(run_id, progress)
        return progress

    def _place(self, run_id: str) -> RunPlace:
        return _place_of(self._journal.run(run_id))


def _mine(plan: Plan) -> list[tuple[Command, Held]]:
    """The steps that were begun by this process with the append."""
    append = plan.append
    return [
        (plan.after.commands[new.step], Held(run_id=append.run_id, step=new.step, attempt=1))
        for new in append.steps
        if new.state == "running"
    ]


def _dispatch_of(place: RunPlace, agent: str, step: str, queue: str, tool: str = "") -> Dispatch:
    return Dispatch(
        run_id=place.run_id,
        step=step,
        queue=queue,
        root_run_id=place.root_run_id,
        agent=agent,
        tool=tool,
    )


def _tool_of(command: Command | None) -> str:
    return command.call.name if isinstance(command, CallTool) else ""


def _place_of(row: RunRow) -> RunPlace:
    return RunPlace(
        run_id=row.run_id,
        root_run_id=row.root_run_id,
        parent_run_id=row.parent_run_id,
        step_in_parent=row.step_in_parent,
        tenant_id=row.tenant_id,
        user_id=row.user_id,
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


class _Cache:
    """The runs this process has folded lately: the next step needs only the newest events."""

    def __init__(self) -> None:
        self._runs: OrderedDict[str, Progress] = OrderedDict()
        self._lock = Lock()

    def get(self, run_id: str) -> Progress | None:
        with self._lock:
            if run_id in self._runs:
                self._runs.move_to_end(run_id)
            return self._runs.get(run_id)

    def put(self, run_id: str, progress: Progress) -> None:
        with self._lock:
            known = self._runs.get(run_id)
            if known is None or known.seq < progress.seq:
                self._runs[run_id] = progress
            self._runs.move_to_end(run_id)
            if progress.state.ended or len(self._runs) > CACHED_RUNS:
                self._runs.pop(run_id if progress.state.ended else next(iter(self._runs)))
