"""One asyncio loop per process, in a thread of its own, for work that threads wait for.

It is started at its first use and belongs to the process that started it: after a fork the child
starts its own. Nothing is started at import.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

T = TypeVar("T")


class BackgroundLoop:
    """A running loop; `run` may be called from any thread but its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="heartbit-loop", daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start `work` on the loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the loop and wait; it is cancelled if the waiting is interrupted."""
        interrupted = False
        task: asyncio.Task[Any] | None = None

        async def watched() -> T:
            nonlocal task
            task = asyncio.current_task()
            if interrupted:
                work.close()
                raise asyncio.CancelledError
            return await work

        def cancel() -> None:
            if task is not None:
                task.cancel()

        try:
            return self.submit(watched()).result()
        except CancelledError:
            raise
        except BaseException:
            # An interrupt may come at any moment, also before there is anything to cancel.
            interrupted = True
            self._loop.call_soon_threadsafe(cancel)
            raise

    def stop(self) -> None:
        """Cancel what is under way and end the loop."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()


_loops: dict[int, BackgroundLoop] = {}
_starting = threading.Lock()


def background_loop() -> BackgroundLoop:
    """The loop of this process."""
    pid = os.getpid()
    with _starting:
        if pid not in _loops:
            _loops.clear()  # what a fork has copied has no thread here
            _loops[pid] = BackgroundLoop()
        return _loops[pid]


def stop_background_loop() -> None:
    """End the loop of this process, if there is one."""
    with _starting:
        loop = _loops.pop(os.getpid(), None)
    if loop is not None:
        loop.stop()
