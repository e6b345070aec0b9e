"""The time a walk or a scan may take: a thread cannot be stopped from outside."""

from __future__ import annotations

import time
from collections.abc import Callable

SECONDS = 20.0


class Deadline:
    """Passes `seconds` after it was made."""

    def __init__(
        self, seconds: float = SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._end = clock() + seconds

    @property
    def passed(self) -> bool:
        """Whether the time is over."""
        return self._clock() >= self._end
