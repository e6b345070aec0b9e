"""Whether this process is to end, and when it has no more time for work that others can do.

A worker's children learn it through memory that they share with the process that forked them: the
signal that ends a worker reaches only that one.
"""

from __future__ import annotations

import math
import mmap
import struct
import time
from collections.abc import Callable

_STAYING = 0.0
_TIME = struct.Struct("d")


class Departure:
    """A time on the monotonic clock, which all processes of a machine read alike.

    Shared by the process that made it, or has begun `anew`, and the children it forks after that; a
    child that was not forked stays as long as it is let.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.anew()

    def anew(self) -> None:
        """This process is its own from now on: what ends the one that forked it is not about it."""
        self._memory = mmap.mmap(-1, _TIME.size)

    def begin(self, seconds: float = math.inf) -> None:
        """No more is to be begun; in `seconds` what others can do is to be handed back.

        May be called from a signal handler, and again with another time.
        """
        self._memory[:] = _TIME.pack(self._clock() + seconds)

    @property
    def begun(self) -> bool:
        """Whether this process is to end."""
        return self._ends_at != _STAYING

    @property
    def due(self) -> bool:
        """Whether the time for what others can do is over."""
        return self.begun and self._clock() >= self._ends_at

    @property
    def _ends_at(self) -> float:
        ends_at: float = _TIME.unpack(self._memory[:])[0]
        return ends_at
