"""A journal in memory: for tests, ours and those of users.

It keeps every promise of the one in PostgreSQL but the one to survive its process. One lock makes
each method a transaction; the clock is passed in.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

from heartbit.core.delegation import BlackboardWrite
from heartbit.core.events import Event
from heartbit.core.messages import Json
from heartbit.core.retry import Tried
from heartbit.errors import LeaseLost, RunNotFound, RunStateError
from heartbit.stores.journal import (
    EVERY_TENANT,
    Append,
    Appended,
    Claim,
    L,
    NewRun,
    Opened,
    RunRow,
    Tenant,
    WhyNot,
)
from heartbit.stores.memory_forks import keep
from heartbit.stores.memory_reads import MemoryReads
from heartbit.stores.memory_state import POISON, Asked, Run, Step, Tables, new_step
from heartbit.stores.memory_sweep import MemorySweeping
from heartbit.stores.records import ENDED, check_same


class InMemoryJournal(MemoryReads, MemorySweeping):
    """A `Journal` that lives and dies with the process; `clock` gives seconds since 1970."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._tables = Tables()

    def close(self) -> None:
        """Nothing to let go of."""

    def open_run(self, run: NewRun) -> Opened:
        """Open a run, or find the one that is open under this id."""
        with self._lock:
            found = self._same_id(run)
            if found is not None:
                there = found.new
                check_same(run, there.definition.name, there.prompt_hash, there.tenant_id)
                return Opened(run_id=there.run_id, opened=False, status=found.status)
            self._insert(run)
            return Opened(run_id=run.run_id, opened=True, status="queued")

    def claim(
        self,
        run_id: str,
        step: str,
        *,
        owner: str,
        lease_seconds: float,
        known: int,
        doubt: int | None = None,
    ) -> Claim:
        """Take a step for a new attempt, with the events after number `known`."""
        with self._lock:
            run, held = self._tables.runs.get(run_id), self._tables.steps.get((run_id, step))
            if run is None:
                return UNKNOWN
            why_not = self._why_not(run, held, doubt)
            if why_not is None and held is not None:
                held = self._taken(held, owner, lease_seconds)
                self._tables.steps[run_id, step] = held
                self._tables.runs[run_id] = run = _begun(run)
            return Claim(
                why_not=why_not,
                attempt=held.attempt if held else 0,
                status=run.status,
                cancelled=self._tables.runs[run.new.root_run_id].cancel_requested,
                seq=len(run.events) + 1,
                events=run.events[known:],
                tried=held.tried if held else Tried(),
            )

    def append(self, append: Append) -> Appended:
        """Write an outcome."""
        with self.transaction() as transaction:
            return transaction.append(append)

    @contextmanager
    def transaction(self) -> Iterator[_Transaction]:
        """A transaction that is committed at the end of the block."""
        with self._lock:
            before = self._tables.copy()
            transaction = _Transaction(self)
            try:
                yield transaction
                transaction.write_boards()
            except BaseException:
                self._tables = before
                raise

    def tool_transaction(
        self, seconds: float | None = None, *, quick: bool = False
    ) -> AbstractContextManager[_Transaction]:
        """The same: a tool has no tables here."""
        return self.transaction()

    def extend_leases(self, held: Sequence[L], lease_seconds: float) -> tuple[L, ...]:
        """Renew leases; gives those that are still held."""
        with self._lock:
            kept = tuple(each for each in held if self._tables.holds(each))
            for each in kept:
                key = (each.run_id, each.step)
                extended = replace(
                    self._tables.steps[key], lease_expires_at=self._clock() + lease_seconds
                )
                self._tables.steps[key] = extended
            return kept

    def stopped_runs(self, run_ids: Sequence[str]) -> tuple[str, ...]:
        """Those of these runs that have ended, or whose tree is asked to end."""
        with self._lock:
            found = [run for each in run_ids if (run := self._tables.runs.get(each)) is not None]
            return tuple(r.new.run_id for r in found if self._stopped(r))

    def release(self, run_id: str, step: str, attempt: int, *, delay: float = 0.0) -> None:
        """Hand a step back that was not begun; the sweep sends it after `delay`."""
        with self._lock:
            if (held := self._held(run_id, step, attempt)) is not None:
                self._tables.steps[run_id, step] = held.released(self._clock(), delay)

    def put_off(
        self, run_id: str, step: str, attempt: int, *, seconds: float, tried: Tried
    ) -> None:
        """Hand a step back that goes on later."""
        with self._lock:
            if (held := self._held(run_id, step, attempt)) is not None:
                self._tables.steps[run_id, step] = held.put_off(self._clock(), seconds, tried)

    def take_dispatch(
        self, run_id: str, steps: Sequence[str], *, again_seconds: float = 15.0
    ) -> tuple[tuple[str, str], ...]:
        """Win the right to send these steps, as (step, queue): each is won once."""
        with self._lock:
            won = [step for step in self.undispatched(run_id) if step in steps]
            for step in won:
                found = self._tables.steps[run_id, step]
                self._tables.steps[run_id, step] = found.sent_again(self._clock(), again_seconds)
            return tuple((step, self._tables.steps[run_id, step].queue) for step in won)

    def undispatched(self, run_id: str) -> tuple[str, ...]:
        """The steps of a run that were never sent."""
        with self._lock:
            now, steps = self._clock(), self._tables.steps_of(run_id)
            open_ones = [(k, s) for k, s in steps if s.to_dispatch and s.not_before <= now]
            return tuple(sorted(k[1] for k, s in open_ones if s.dispatched_at is None))

    def set_completion(self, run_id: str, completion: Json) -> None:
        """Remember what waits for the end of the run; the first one stays."""
        with self._lock:
            run = self._tables.runs.get(run_id)
            if run is not None and run.completion is None:
                after = None if run.is_open else self._clock() + 2
                self._tables.runs[run_id] = replace(
                    run, completion=completion, completion_after=after
                )

    def complete(self, run_id: str) -> None:
        """The end of the run has been published."""
        with self._lock:
            if (run := self._tables.runs.get(run_id)) is not None:
                done = replace(run, completion_done=True, completion_after=None)
                self._tables.runs[run_id] = done

    def request_cancel(
        self, run_id: str, *, tenant: Tenant = EVERY_TENANT, again_seconds: float = 2.0
    ) -> tuple[str, ...]:
        """Ask for the end of a run tree; gives the ids of its open runs."""
        with self._lock:
            root = self._tables.runs[self.run(run_id, tenant=tenant).root_run_id]
            if root.is_open:
                self._tables.runs[root.new.run_id] = replace(root, cancel_requested=True)
            still_open = [r.run_id for r in self.tree(run_id) if r.status not in ENDED]
            for each in still_open:
                self._tables.timers.setdefault((each, "cancel"), self._clock() + again_seconds)
            return tuple(still_open)

    def _stopped(self, run: Run) -> bool:
        return not run.is_open or self._tables.runs[run.new.root_run_id].cancel_requested

    def _why_not(self, run: Run, step: Step | None, doubt: int | None) -> WhyNot | None:
        if not run.is_open:
            return "ended"
        if step is None:
            return "unknown"
        if step.state == "done":
            return "done"
        if step.state == "external":
            parked = step.new.kind == "tool" and step.attempt == doubt
            return None if parked else "external"
        if step.state == "pending":
            return None if step.not_before <= self._clock() else "leased"
        return self._why_not_taken_over(step, doubt)

    def _why_not_taken_over(self, step: Step, doubt: int | None) -> WhyNot | None:
        if not step.expired(self._clock()):
            return "leased"
        if not step.new.repeatable and step.attempt != doubt:
            return "in_doubt"
        return "poisoned" if self._tables.suspicion(step) >= POISON else None

    def _held(self, run_id: str, step: str, attempt: int) -> Step | None:
        held = self._tables.steps.get((run_id, step))
        return held if held and held.state == "running" and held.attempt == attempt else None

    def _taken(self, step: Step, owner: str, lease_seconds: float) -> Step:
        lost = step.state == "running"
        return replace(
            step,
            state="running",
            attempt=step.attempt + 1,
            suspicion=self._tables.suspicion(step) if lost else step.suspicion,
            owner=owner,
            lease_expires_at=self._clock() + lease_seconds,
            dispatch_after=self._clock(),
        )

    def _same_id(self, run: NewRun) -> Run | None:
        run_id = self._tables.tasks.get(run.task_id, run.run_id)
        return self._tables.runs.get(run_id)

    def _insert(self, run: NewRun) -> None:
        now, seconds = self._clock(), run.definition.run_timeout_seconds
        events = (run.start, *run.kept)
        self._tables.runs[run.run_id] = Run(new=run, events=events, created_at=now)
        self._tables.tasks[run.task_id] = run.run_id
        for step in run.steps:
            self._tables.steps[run.run_id, step.step] = new_step(step, now)
        keep(self._tables, run)
        if seconds is not None and all(step.state != "held" for step in run.steps):
            self._tables.timers[run.run_id, "deadline"] = now + seconds

    def _append(self, append: Append) -> Appended:
        """Everything but the blackboards; what raises is undone by the transaction."""
        run = self._tables.runs.get(append.run_id)
        if run is None:
            raise RunNotFound(f"There is no run {append.run_id}.")
        if append.expected > len(run.events) + 1:
            raise RunStateError(
                f"The journal of run {append.run_id} is shorter than this process has seen."
            )
        if not run.is_open or append.expected != len(run.events) + 1:
            behind = run.events[append.expected - 1 :]
            return Appended(ok=False, ended=not behind, behind=behind)
        self._settle(append)
        self._tables.runs[append.run_id] = run = self._longer(run, append)
        self._add_steps_and_runs(run, append)
        self._ask(run, append)
        self._set_timers(append)
        if not run.is_open:
            self._close(append.run_id)
        return Appended(ok=True, seq=len(run.events) + 1)

    def _settle(self, append: Append) -> None:
        if append.step is None:
            return
        now = self._clock()
        for name, attempt in ((append.step, append.attempt), *append.beside):
            key = (append.run_id, name)
            step = self._tables.steps.get(key)
            if step is None or step.attempt != attempt or not _may_settle(step, append, now):
                raise LeaseLost
            self._tables.steps[key] = step.parked(now) if append.park else step.freed("done")

    def _longer(self, run: Run, append: Append) -> Run:
        taken = {event.step for event in run.events if event.step is not None}
        if any(event.step in taken for event in append.events):
            raise LeaseLost("This step has its outcome already.")
        run = replace(_begun(run), events=(*run.events, *append.events))
        if append.change is None:
            return run
        status, output = append.change.status, append.change.output
        over = status in ENDED
        return replace(
            run,
            status=status,
            output=run.output if output is None else output,
            finished_at=self._clock() if over else None,
            completion_after=self._clock() + 2 if over and run.completion is not None else None,
        )

    def _add_steps_and_runs(self, run: Run, append: Append) -> None:
        for step in append.steps:
            self._tables.steps[append.run_id, step.step] = new_step(step, self._clock())
        for new in append.runs:
            if self._same_id(new) is not None:
                raise RunStateError(
                    "The id of a sub-run is taken by another run; nothing was written."
                )
            parent = run.new
            self._insert(
                replace(
                    new,
                    tenant_id=parent.tenant_id,
                    user_id=parent.user_id,
                    priority=parent.priority,
                )
            )

    def _ask(self, run: Run, append: Append) -> None:
        if (new := append.approval) is None:
            return
        now = self._clock()
        expires = None if new.expires_seconds is None else now + new.expires_seconds
        self._tables.approvals[append.run_id, new.step] = Asked(
            run_id=append.run_id,
            root_run_id=run.new.root_run_id,
            new=new,
            requested_at=now,
            expires_at=expires,
        )
        if expires is not None:
            self._tables.timers[append.run_id, f"expiry/{new.step}"] = expires

    def _set_timers(self, append: Append) -> None:
        for what in append.cleared:
            self._tables.timers.pop((append.run_id, what), None)
        for what, seconds in append.timers.items():
            self._tables.timers[append.run_id, what] = self._clock() + seconds

    def _close(self, run_id: str) -> None:
        for key, step in self._tables.steps_of(run_id):
            self._tables.steps[key] = step.freed("done")
        for key, asked in self._tables.approvals.items():
            if key[0] == run_id and asked.decided_at is None:
                self._tables.approvals[key] = replace(asked, decided_at=self._clock())
        for key in [key for key in self._tables.timers if key[0] == run_id]:
            del self._tables.timers[key]


class _Transaction:
    """Appends under the lock."""

    connection = None

    def __init__(self, journal: InMemoryJournal) -> None:
        self._journal = journal
        self._boards: list[tuple[str, BlackboardWrite]] = []

    def append(self, append: Append) -> Appended:
        """Write an outcome; it counts when the transaction is committed."""
        appended = self._journal._append(append)
        if appended.ok:
            self._boards += [(append.run_id, write) for write in append.board]
        return appended

    def events(self, run_id: str, after: int = 0) -> tuple[Event, ...]:
        """The events of a run after a number."""
        return self._journal.events(run_id, after)

    def run(self, run_id: str) -> RunRow:
        """The row of a run."""
        return self._journal.run(run_id)

    def write_boards(self) -> None:
        """What the appends of this transaction leave on blackboards."""
        for run_id, write in self._boards:
            self._journal._write_board(run_id, write)

    def settle(self) -> None:
        """Nothing can be wrong with what a tool has not done."""

    def disconnect(self) -> None:
        """There is no connection."""

    def lost(self, error: BaseException) -> bool:
        """There is no database."""
        return False


UNKNOWN = Claim(why_not="unknown", attempt=0, status=None, cancelled=False, seq=0, events=())


def _begun(run: Run) -> Run:
    return replace(run, status="running") if run.status == "queued" else run


def _may_settle(step: Step, append: Append, now: float) -> bool:
    if step.state == "external":
        return not append.verdict
    return step.state == "running" and (not append.verdict or step.expired(now))
