"""Ctrl-C and SIGTERM while a run is under way: the first one cancels it, the second one ends us."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from types import FrameType
from typing import Any, Self, TypeVar

from heartbit.cli.ending import end_at_once

T = TypeVar("T")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Receives the signals inside `with`; a loop that is busy cannot keep them away."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._work: asyncio.Task[Any] | None = None
        self._stopped = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    async def watch(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` gives; a signal meanwhile cancels it, and it decides what to give then."""
        self._stopped = False
        self._work = task = asyncio.ensure_future(work)
        try:
            return await task
        finally:
            self._work = None

    def stop(self) -> None:
        """Do what the first signal does."""
        self._stopped = True
        if self._work is not None:
            self._work.cancel()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._stopped or self._work is None:
            end_at_once(number, frame)
        self._stopped = True
        self._loop.call_soon_threadsafe(self.stop)
