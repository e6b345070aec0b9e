"""How long an outcome is kept that the journal's database could not take.

What was done and paid for must not be lost because a disk is full or a server restarts: a call that
must not be repeated would be in doubt for ever. So whoever has the outcome keeps it and offers it
again. That needs no lease: the journal itself refuses the outcome of an attempt that somebody else
has followed up.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from heartbit.errors import JournalUnavailable

SHORTEST_SECONDS, LONGEST_SECONDS = 0.2, 2.0
LIMIT_SECONDS = 600.0

T = TypeVar("T")
_logger = logging.getLogger("heartbit.engine")


class Patience:
    """Tries again while the database is away, with growing pauses that differ between processes.

    `ending` tells that this process has no more time: then each outcome is offered once more.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
        jitter: Callable[[], float] = random.random,
        ending: Callable[[], bool] = lambda: False,
        limit_seconds: float = LIMIT_SECONDS,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._ending = ending
        self._limit_seconds = limit_seconds

    def offer(self, what: str, store: Callable[[], T]) -> T:
        """What `store` gives, which may have succeeded before although it seemed to fail.

        Raises:
            JournalUnavailable: the database did not come back in time.
        """
        try:
            return store()
        except JournalUnavailable as error:
            _logger.warning("%s is kept, it cannot be stored yet: %s", what, error.message)
        return self._insist(what, store)

    def _insist(self, what: str, store: Callable[[], T]) -> T:
        since, longest = self._clock(), SHORTEST_SECONDS
        while True:
            # Half of the pause is certain: an outage is not to be met with a storm.
            self._sleep(longest * (1 + self._jitter()) / 2)
            longest = min(2 * longest, LONGEST_SECONDS)
            last = self._ending() or self._clock() - since >= self._limit_seconds
            try:
                stored = store()
            except JournalUnavailable as error:
                if last:
                    kept = self._clock() - since
                    _logger.error("%s is lost after %.0f s: %s", what, kept, error.message)
                    raise
            else:
                _logger.warning(
                    "%s has reached the database, after %.1f s.", what, self._clock() - since
                )
                return stored
