"""Keeping the leases of the steps this process is working on.

A thread of its own renews them all with one statement every third of a lease. It depends on
nothing that a step could block: neither the asyncio loop, nor the pool that steps use. A step whose
lease is lost is cancelled. A second thread looks after the first: what was not renewed for a whole
lease, by the monotonic clock, is taken for lost, because another process may hold it by now. That
holds while the store does not answer at all, too.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from heartbit.errors import JournalError, LeaseLost

_logger = logging.getLogger("heartbit.leases")


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """A step that this process holds, by the number of its attempt.

    `since` is a monotonic time at which the lease had not begun yet; None stands for now.
    """

    run_id: str
    step: str
    attempt: int
    since: float | None = field(default=None, compare=False)


class LeaseStore(Protocol):
    """Where leases are extended."""

    def extend_leases(self, held: Sequence[Held], lease_seconds: float) -> Sequence[Held]:
        """Extend what is still held, and say which that is."""


@dataclass(kw_only=True, slots=True)
class _Lease:
    """When a lease was renewed last, until when it is, and how its step is cancelled."""

    renewed_at: float
    until: float
    cancel: Callable[[], object]


class Leases:
    """The leases of this process. `held` is entered by the threads that do the work."""

    def __init__(
        self,
        store: LeaseStore,
        lease_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._held: dict[Held, _Lease] = {}
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def check(self, held: Held) -> None:
        """Ask before an effect is begun: a process that was frozen has lost what it had claimed.

        Raises:
            LeaseLost: the lease has run out by now.
        """
        if held.since is not None and self._clock() - held.since >= self._lease_seconds:
            raise LeaseLost

    @contextmanager
    def held(
        self, held: Held, cancel: Callable[[], object], *, seconds: float | None = None
    ) -> Iterator[None]:
        """Keep a lease while the block runs; if it is lost, another thread calls `cancel`.

        A block that takes longer than `seconds` hangs: its lease is not renewed any more.
        """
        now = self._clock()
        lease = _Lease(
            renewed_at=now if held.since is None else held.since,
            until=math.inf if seconds is None else now + seconds,
            cancel=cancel,
        )
        with self._lock:
            self._held[held] = lease
            self._start()
        try:
            yield
        finally:
            with self._lock:
                self._held.pop(held, None)

    def renew(self) -> None:
        """Extend every lease once, and cancel what is lost."""
        now = self._clock()
        with self._lock:
            held = [each for each, lease in self._held.items() if now <= lease.until]
        if not held:
            return
        try:
            kept = frozenset(self._store.extend_leases(held, self._lease_seconds))
        except JournalError as error:
            _logger.warning("The leases could not be renewed: %s", error)
            return
        with self._lock:
            for each in kept & self._held.keys():
                self._held[each].renewed_at = now
        self._cancel([each for each in held if each not in kept])

    def give_up(self) -> None:
        """Cancel what was not renewed for a whole lease."""
        now = self._clock()
        with self._lock:
            late = [h for h, x in self._held.items() if now - x.renewed_at >= self._lease_seconds]
        self._cancel(late)

    def stop(self) -> None:
        """End the renewal; what is still held runs out by itself."""
        self._stopping.set()
        with self._lock:
            threads = tuple(self._threads)
        for thread in threads:
            thread.join()

    def _cancel(self, lost: Sequence[Held]) -> None:
        with self._lock:
            leases = [x for each in lost if (x := self._held.pop(each, None)) is not None]
        for lease in leases:
            lease.cancel()

    def _start(self) -> None:
        if self._threads:
            return
        for work, pause in ((self.renew, 3), (self.give_up, 10)):
            each = threading.Thread(
                target=self._serve,
                args=(work, self._lease_seconds / pause),
                name=f"heartbit-leases-{work.__name__}",
                daemon=True,
            )
            self._threads.append(each)
            each.start()

    def _serve(self, work: Callable[[], None], pause: float) -> None:
        while not self._stopping.wait(pause):
            try:
                work()
            except Exception:  # without this thread every lease would be lost
                _logger.exception("Keeping the leases failed and will be tried again")
