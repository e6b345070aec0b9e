"""The sweep's questions to a journal in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from heartbit.stores.journal import DueTimer, ExpiredStep, UnsentStep
from heartbit.stores.memory_state import POISON, Key, Step, Tables
from heartbit.stores.records import Fate

UNCLAIMED_SECONDS = 2.0


class MemorySweeping:
    """Whatever is handed out is pushed into the future."""

    _tables: Tables
    _clock: Callable[[], float]
    _lock: threading.RLock

    def admit_sweep(self, name: str, *, every_seconds: float) -> bool:
        """Win the right to sweep now: one caller per `every_seconds`."""
        with self._lock:
            now = self._clock()
            admitted = self._tables.sweeps.get(name, float("-inf")) <= now - every_seconds
            if admitted:
                self._tables.sweeps[name] = now
            return admitted

    def admit(self, limit: int | None) -> tuple[str, ...]:
        """Let runs begin that wait for their admission, and give their ids."""
        with self._lock:
            steps, runs = self._tables.steps, self._tables.runs
            active = {runs[key[0]].new.root_run_id for key, s in steps.items() if s.is_active}
            held = [runs[key[0]] for key, step in steps.items() if step.state == "held"]
            held.sort(key=lambda run: (-run.new.priority, run.created_at, run.new.run_id))
            free = len(held) if limit is None else max(limit - len(active), 0)
            admitted = tuple(run.new.run_id for run in held[:free])
            for run_id in admitted:
                self._begin(run_id)
            return admitted

    def _begin(self, run_id: str) -> None:
        now, seconds = self._clock(), self._tables.runs[run_id].new.definition.run_timeout_seconds
        for key, step in self._tables.steps_of(run_id):
            if step.state == "held":
                self._tables.steps[key] = replace(step, state="pending", dispatch_after=now + 1)
        if seconds is not None:
            self._tables.timers[run_id, "deadline"] = now + seconds

    def expired_steps(self, *, limit: int, again_seconds: float) -> tuple[ExpiredStep, ...]:
        """Steps whose lease has run out: to be sent again, or to be judged."""
        with self._lock:
            now, steps = self._clock(), self._tables.steps.items()
            due = [(k, s) for k, s in steps if s.expired(now) and s.dispatch_after <= now]
            due.sort(key=lambda each: each[1].lease_expires_at)
            judged = [(k, s, self._tables.suspicion(s)) for k, s in due[:limit]]
            return tuple(self._lose(k, s, n, now + again_seconds) for k, s, n in judged)

    def unsent_steps(
        self, *, limit: int, again_seconds: float, empty_queues: Sequence[str] = ()
    ) -> tuple[UnsentStep, ...]:
        """Steps that were never sent, or not claimed since."""
        with self._lock:
            now = self._clock()
            due = self._to_dispatch(lambda step: step.dispatch_after <= now)[:limit]
            late = self._to_dispatch(lambda step: _unclaimed(step, now, empty_queues))[:limit]
            return tuple(self._send(key, step, again_seconds) for key, step in due + late)

    def due_timers(self, *, limit: int, again_seconds: float) -> tuple[DueTimer, ...]:
        """Timers whose time has come; each comes back until it is cleared or its run has ended."""
        with self._lock:
            now, timers = self._clock(), self._tables.timers
            due = sorted((at, key) for key, at in timers.items() if at <= now)[:limit]
            for _, key in due:
                timers[key] = now + again_seconds
            return tuple(DueTimer(run_id=run_id, what=what) for _, (run_id, what) in due)

    def set_timer(self, run_id: str, what: str, seconds: float) -> None:
        """Have an open run looked after in `seconds`; the same timer is only moved."""
        with self._lock:
            run = self._tables.runs.get(run_id)
            if run is not None and run.is_open:
                self._tables.timers[run_id, what] = self._clock() + seconds

    def clear_timer(self, run_id: str, what: str) -> None:
        """Nobody needs to look after the run for this."""
        with self._lock:
            self._tables.timers.pop((run_id, what), None)

    def unpublished(self, *, limit: int, again_seconds: float) -> tuple[str, ...]:
        """Ended runs for whose end something waits that was not told so."""
        with self._lock:
            now, runs = self._clock(), self._tables.runs
            after = {run_id: run.completion_after for run_id, run in runs.items()}
            due = sorted((at, run_id) for run_id, at in after.items() if at and at <= now)[:limit]
            for _, run_id in due:
                runs[run_id] = replace(runs[run_id], completion_after=now + again_seconds)
            return tuple(run_id for _, run_id in due)

    def _lose(self, key: Key, step: Step, suspicion: int, after: float) -> ExpiredStep:
        fate: Fate = "poisoned" if suspicion >= POISON else "again"
        if not step.new.repeatable:
            fate = "in_doubt"
        if fate == "again":
            step = replace(step.freed("pending"), suspicion=suspicion)
        step = step.sent(self._clock(), after)
        self._tables.steps[key] = step
        return ExpiredStep(
            run_id=key[0],
            step=key[1],
            kind=step.new.kind,
            queue=step.queue,
            attempt=step.attempt,
            fate=fate,
        )

    def _to_dispatch(self, wanted: Callable[[Step], bool]) -> list[tuple[Key, Step]]:
        steps = self._tables.steps.items()
        found = [(key, step) for key, step in steps if step.to_dispatch and wanted(step)]
        return sorted(found, key=lambda each: each[1].dispatch_after)

    def _send(self, key: Key, step: Step, again_seconds: float) -> UnsentStep:
        step = self._tables.steps[key] = step.sent_again(self._clock(), again_seconds)
        return UnsentStep(
            run_id=key[0],
            step=key[1],
            kind=step.new.kind,
            queue=step.queue,
            external=step.state == "external",
            count=step.dispatch_count,
        )


def _unclaimed(step: Step, now: float, empty_queues: Sequence[str]) -> bool:
    sent = step.dispatched_at is not None and step.dispatched_at <= now - UNCLAIMED_SECONDS
    waiting = step.state == "pending" and step.dispatch_after > now
    return sent and waiting and step.queue in empty_queues
