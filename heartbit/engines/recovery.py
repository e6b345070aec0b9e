"""The sweep: what keeps runs going when workers, messages or whole brokers are lost.

It runs in every worker, in a thread of its own, and needs neither beat nor the broker's redelivery:
the rows of the journal say what is missing. One process of the fleet sweeps per second. Whatever it
takes up is handed out to one sweep only, and again later, so that a sweep may die at any point.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from heartbit.core.decisions import unanswered
from heartbit.core.events import ApprovalResolved, Decision
from heartbit.engines.chores import Chores
from heartbit.engines.durable import DurableEngine
from heartbit.engines.plan import AGAIN, ANSWER
from heartbit.errors import HeartbitError, JournalUnavailable
from heartbit.stores.journal import Journal
from heartbit.stores.records import Approval, DueTimer, ExpiredStep, UnsentStep

SWEEP = "recovery"
EVERY_SECONDS = 1.0
BATCH, BATCHES = 100, 20
# After an outage of the database whoever holds a step gets so long to say so: longer than an
# outcome or a renewal waits before it is tried again.
GRACE_SECONDS = 5.0

T = TypeVar("T")
_logger = logging.getLogger("heartbit.recovery")


class Sweep:
    """Looks after all runs of a journal."""

    def __init__(
        self,
        journal: Journal,
        engine: DurableEngine,
        *,
        lease_seconds: float,
        chores: Chores | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._chores = chores
        self._journal = journal
        self._engine = engine
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._spared_until = -math.inf

    def once(self) -> bool:
        """Sweep, if nobody has done so within the last second.

        Raises:
            JournalUnavailable: the database is away; no step is taken for lost at once when it is
                back.
        """
        try:
            return self._once()
        except JournalUnavailable:
            self._spared_until = self._clock() + GRACE_SECONDS
            raise

    def _once(self) -> bool:
        if not self._journal.admit_sweep(SWEEP, every_seconds=EVERY_SECONDS):
            return False
        found: dict[str, Any] = {"limit": BATCH, "again_seconds": self._lease_seconds}
        if self._clock() >= self._spared_until:
            _all(self._expired, partial(self._journal.expired_steps, **found))
        if self._engine.can_send():
            empty = self._engine.empty_queues()
            _all(self._unsent, partial(self._journal.unsent_steps, **found, empty_queues=empty))
            if self._chores is not None:
                self._chores.look()
        _all(self._due, partial(self._journal.due_timers, **found))
        _all(self._engine.publish, partial(self._journal.unpublished, **found))
        self._engine.admit()
        return True

    def _expired(self, step: ExpiredStep) -> None:
        _logger.info("The worker of run %s step %s was lost: %s", step.run_id, step.step, step.fate)
        if step.fate == "again":
            self._engine.send_again(step.run_id, step.step, step.queue)
        else:
            self._engine.judge(step)

    def _unsent(self, step: UnsentStep) -> None:
        if step.external:
            self._engine.external.look_after(step)
        else:
            self._engine.send_again(step.run_id, step.step, step.queue)

    def _due(self, timer: DueTimer) -> None:
        what, _, step = timer.what.partition("/")
        match what:
            case "deadline":
                self._engine.pass_deadline(timer.run_id)
            case "cancel":
                self._engine.resume(timer.run_id)
            case "decided":
                self._resolve(timer.run_id, step)
            case "expiry":
                self._expire(timer.run_id, step)
            case _ if what == ANSWER:
                self._engine.external.time_out(timer.run_id, step)
            case _ if what == AGAIN:
                self._engine.begin_again(timer.run_id, step)

    def _resolve(self, run_id: str, step: str) -> None:
        approval = self._approval(run_id, step)
        if approval is not None and approval.decisions is not None:
            self._engine.resolve(run_id, resolution(approval, approval.decisions))

    def _expire(self, run_id: str, step: str) -> None:
        approval = self._approval(run_id, step)
        if approval is None or approval.decided_at is not None:
            self._journal.clear_timer(run_id, f"expiry/{step}")
            return
        denials = unanswered(self._engine.progress(run_id).state, step)
        self._journal.decide(
            run_id, step, denials, by=None, calls_hash=approval.calls_hash, expired=True
        )
        self._engine.resolve(run_id, resolution(approval, denials))

    def _approval(self, run_id: str, step: str) -> Approval | None:
        return next((a for a in self._journal.approvals(run_id) if a.step == step), None)


def resolution(approval: Approval, decisions: tuple[Decision, ...]) -> ApprovalResolved:
    """The event of a decided approval."""
    return ApprovalResolved(
        step=f"{approval.step}/decision", decisions=decisions, decided_by=approval.decided_by
    )


def _all(work: Callable[[T], None], find: Callable[[], Sequence[T]]) -> None:
    """Batch after batch: a worker that is lost may have held more steps than one batch has."""
    for _ in range(BATCHES):
        found = find()
        for each in found:
            _look_after(work, each)
        if len(found) < BATCH:
            return


def _look_after(work: Callable[[T], None], each: T) -> None:
    """One run that cannot be looked after keeps nobody from looking after the others."""
    try:
        work(each)
    except HeartbitError as error:
        _logger.warning("The sweep could not look after %s: %s", each, error.message)
    except Exception:
        _logger.exception("The sweep could not look after %s", each)


class SweepThread:
    """Sweeps once a second until it is stopped."""

    def __init__(self, sweep: Sweep, *, every_seconds: float = EVERY_SECONDS) -> None:
        self._sweep = sweep
        self._every_seconds = every_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="heartbit-sweep", daemon=True)

    def start(self) -> None:
        """Begin sweeping."""
        self._thread.start()

    def stop(self) -> None:
        """End after the sweep that is under way."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _serve(self) -> None:
        while not self._stopping.wait(self._every_seconds):
            try:
                self._sweep.once()
            except Exception as error:
                _logger.warning("The sweep failed and will be tried again: %s", error)
