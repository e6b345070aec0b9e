"""Keeping the leases of the steps this process is working on, until their outcomes are stored.

A thread of its own renews them all with one statement every third of a lease. It depends on
nothing that a step could block: neither the asyncio loop, nor the pool that steps use. A second
thread looks after the first: what was not renewed for a whole lease, by the monotonic clock, is
taken for lost, because another process may hold it by now. That holds while the store does not
answer at all, too. A third one asks twice a second whether the runs of these steps are still
wanted, and whether this process is to end.

Work under a lost lease is cancelled, and none is begun. An outcome that is there already is another
matter: the journal takes it only from the attempt that holds the step, so it may be offered for as
long as it takes. Until then its lease is renewed, also once it has run out: whoever is back first
after an outage of the store keeps the step.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from heartbit.core.retry import Tried
from heartbit.errors import JournalError, LeaseLost, RunStopped, StepHandedBack

# A cancel must reach an open model stream within a second; this costs one indexed read each time.
LOOK_SECONDS = 0.5
# How soon a renewal that failed is tried again: once the store is back, others wait no longer.
AGAIN_SECONDS = 1.0

_logger = logging.getLogger("heartbit.leases")


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """A step that this process holds, by the number of its attempt.

    `since` is a monotonic time at which the lease had not begun yet; None stands for now. `doubt`
    says that a worker was lost in an attempt before: ask first whether that has happened. `tried`
    is what attempts before have come to that were put off.
    """

    run_id: str
    step: str
    attempt: int
    since: float | None = field(default=None, compare=False)
    doubt: bool = field(default=False, compare=False)
    tried: Tried = field(default=Tried(), compare=False)


class LeaseStore(Protocol):
    """Where leases are extended."""

    def extend_leases(self, held: Sequence[Held], lease_seconds: float) -> Sequence[Held]:
        """Extend what is still held, and say which that is."""

    def stopped_runs(self, run_ids: Sequence[str]) -> Sequence[str]:
        """Those of these runs that have ended, or whose tree is asked to end."""


@dataclass(kw_only=True, slots=True)
class _Work:
    """What is under way under a lease: how it is cancelled, and when it hangs."""

    cancel: Callable[[], object]
    until: float
    repeatable: bool


@dataclass(kw_only=True, slots=True)
class _Lease:
    """When a lease was renewed last, what is done under it, and why it must be done no more."""

    renewed_at: float
    work: _Work | None = None
    lost: LeaseLost | None = None


class Leases:
    """The leases of this process. `held` and `working` are entered by the threads that do the work.

    `ending` tells whether this process has no more time to finish what can be done elsewhere.
    """

    def __init__(
        self,
        store: LeaseStore,
        lease_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        ending: Callable[[], bool] = lambda: False,
    ) -> None:
        self._store = store
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._ending = ending
        self._lock = threading.Lock()
        self._held: dict[Held, _Lease] = {}
        self._failing = False
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    @contextmanager
    def held(self, held: Held) -> Iterator[None]:
        """Keep a lease while the block runs: from the claim of a step until its outcome is stored.

        Work in the block is told of with `working`.
        """
        since = self._clock() if held.since is None else held.since
        with self._lock:
            self._held[held] = _Lease(renewed_at=since)
            self._start()
        try:
            yield
        finally:
            with self._lock:
                self._held.pop(held, None)

    def check(self, held: Held) -> None:
        """Ask before an effect is begun: a process that was frozen has lost what it had claimed.

        Raises:
            StepHandedBack: the lease has run out by now.
        """
        with self._lock:
            lease = self._held.get(held)
        since = lease.renewed_at if lease is not None else held.since
        if since is not None and self._clock() - since >= self._lease_seconds:
            raise StepHandedBack

    @contextmanager
    def working(
        self,
        held: Held,
        cancel: Callable[[], object],
        *,
        seconds: float | None = None,
        repeatable: bool = False,
    ) -> Iterator[None]:
        """Work under a lease that is `held`: if it must end, another thread calls `cancel`.

        Work that takes longer than `seconds` hangs: its lease is not renewed any more.

        Raises:
            LeaseLost: the work was cancelled, and this is why.
        """
        until = math.inf if seconds is None else self._clock() + seconds
        lease = self._begin(held, _Work(cancel=cancel, until=until, repeatable=repeatable))
        try:
            yield
        except CancelledError:
            raise lease.lost or LeaseLost() from None
        finally:
            with self._lock:
                lease.work = lease.lost = None

    def renew(self) -> bool:
        """Extend every lease once, and cancel what is lost. False: it is to be tried again soon."""
        now = self._clock()
        with self._lock:
            held = [each for each, lease in self._held.items() if _is_renewed(lease, now)]
        if not held:
            return True
        try:
            kept = frozenset(self._store.extend_leases(held, self._lease_seconds))
        except JournalError as error:
            if not self._failing:
                _logger.warning("The leases cannot be renewed now: %s", error)
            self._failing = True
            return False
        if self._failing:
            _logger.warning("The leases are renewed again.")
        self._failing = False
        with self._lock:
            for each in kept & self._held.keys():
                self._held[each].renewed_at = now
        self._cancel([each for each in held if each not in kept], LeaseLost())
        return True

    def give_up(self) -> None:
        """Cancel work whose lease was not renewed for a whole lease."""
        now = self._clock()
        with self._lock:
            late = [
                each
                for each, lease in self._held.items()
                if lease.work is not None and now - lease.renewed_at >= self._lease_seconds
            ]
        self._cancel(late, LeaseLost())

    def look(self) -> None:
        """Cancel work that nobody wants any more, and what others can do if this process ends."""
        with self._lock:
            working = {each: x.work for each, x in self._held.items() if x.work is not None}
        if self._ending():
            self._cancel([each for each, x in working.items() if x.repeatable], StepHandedBack())
        if not working:
            return
        try:
            stopped = self._store.stopped_runs(sorted({each.run_id for each in working}))
        except JournalError as error:
            _logger.debug("Nobody knows which runs are still wanted: %s", error)
            return
        self._cancel([each for each in working if each.run_id in stopped], RunStopped())

    def stop(self) -> None:
        """End the renewal; what is still held runs out by itself."""
        self._stopping.set()
        with self._lock:
            threads = tuple(self._threads)
        for thread in threads:
            thread.join()

    def _begin(self, held: Held, work: _Work) -> _Lease:
        with self._lock:
            lease = self._held[held]
            if lease.lost is not None:
                raise lease.lost
            lease.work = work
            return lease

    def _cancel(self, lost: Sequence[Held], why: LeaseLost) -> None:
        """Cancel the work of these steps, each once; nothing is begun under their leases."""
        works: list[_Work] = []
        with self._lock:
            for each in lost:
                lease = self._held.get(each)
                if lease is not None and lease.lost is None:
                    lease.lost = why
                    works += [lease.work] if lease.work is not None else []
        for work in works:
            work.cancel()

    def _start(self) -> None:
        if self._threads:
            return
        lease = self._lease_seconds
        pauses: tuple[tuple[Callable[[], bool | None], float], ...] = (
            (self.renew, lease / 3),
            (self.give_up, lease / 10),
            (self.look, LOOK_SECONDS),
        )
        for work, pause in pauses:
            each = threading.Thread(
                target=self._serve,
                args=(work, pause),
                name=f"heartbit-leases-{work.__name__}",
                daemon=True,
            )
            self._threads.append(each)
            each.start()

    def _serve(self, work: Callable[[], bool | None], pause: float) -> None:
        wait = pause
        while not self._stopping.wait(wait):
            try:
                wait = min(pause, AGAIN_SECONDS) if work() is False else pause
            except Exception:  # without this thread every lease would be lost
                _logger.exception("Keeping the leases failed and will be tried again")


def _is_renewed(lease: _Lease, now: float) -> bool:
    """Not once its work hangs, or was cancelled and has not stopped yet."""
    return lease.lost is None and (lease.work is None or now <= lease.work.until)
