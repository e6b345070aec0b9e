"""Keeping the leases of the steps this process is working on.

A thread of its own renews them all with one statement every third of a lease. It depends on
nothing that a step could block: neither the asyncio loop, nor the pool that steps use. A step whose
lease is lost is cancelled; if nothing could be renewed for a whole lease, by the monotonic clock,
then every lease is taken for lost, because another process may hold it by now.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from heartbit.errors import JournalError

_logger = logging.getLogger("heartbit.leases")


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """A step that this process holds, by the number of its attempt."""

    run_id: str
    step: str
    attempt: int


class LeaseStore(Protocol):
    """Where leases are extended."""

    def extend_leases(self, held: Sequence[Held], lease_seconds: float) -> Sequence[Held]:
        """Extend what is still held, and say which that is."""


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
        self._held: dict[Held, Callable[[], object]] = {}
        self._renewed_at = clock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def held(self, held: Held, cancel: Callable[[], object]) -> Iterator[None]:
        """Keep a lease while the block runs; if it is lost, another thread calls `cancel`."""
        with self._lock:
            if not self._held:
                self._renewed_at = self._clock()
            self._held[held] = cancel
            self._start()
        try:
            yield
        finally:
            with self._lock:
                self._held.pop(held, None)

    def renew(self) -> None:
        """Extend every lease once, and cancel what is lost."""
        with self._lock:
            held = tuple(self._held)
        if not held:
            return
        try:
            kept = frozenset(self._store.extend_leases(held, self._lease_seconds))
        except JournalError as error:
            _logger.warning("The leases could not be renewed: %s", error)
            self._give_up_if_too_late(held)
            return
        self._renewed_at = self._clock()
        self._cancel([each for each in held if each not in kept])

    def stop(self) -> None:
        """End the renewal; what is still held runs out by itself."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _give_up_if_too_late(self, held: Sequence[Held]) -> None:
        if self._clock() - self._renewed_at >= self._lease_seconds:
            self._cancel(held)

    def _cancel(self, lost: Sequence[Held]) -> None:
        with self._lock:
            cancels = [c for each in lost if (c := self._held.pop(each, None)) is not None]
        for cancel in cancels:
            cancel()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="heartbit-leases", daemon=True)
            self._thread.start()

    def _serve(self) -> None:
        while not self._stopping.wait(self._lease_seconds / 3):
            self.renew()
