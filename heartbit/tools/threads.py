"""Running blocking code beside the loop, in a thread that nobody has to wait for.

A thread cannot be stopped, so a tool that is given up after its timeout may block for ever. In the
loop's own pool it would keep a place from all other tools, and the process from ending. Here every
call gets a thread at once: one that is idle, or a new one.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

IDLE_SECONDS = 10.0
"""How long a thread waits for another call before it ends."""

T = TypeVar("T")


async def in_thread(function: Callable[[], T], name: str) -> T:
    """What `function` returns or raises, called in a daemon thread with the caller's context.

    Raises:
        RuntimeError: in place of a StopIteration, which cannot leave a coroutine.
    """
    outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            value = context.run(function)
        except BaseException as error:
            _deliver(outcome, outcome.set_exception, _deliverable(error))
        else:
            _deliver(outcome, outcome.set_result, value)

    _hand_over(work, name)
    return await outcome


class _Thread:
    """A thread that does one call after another, and ends when none comes for a while."""

    def __init__(self, work: Callable[[], None], name: str) -> None:
        self.calls: SimpleQueue[tuple[Callable[[], None], str]] = SimpleQueue()
        threading.Thread(target=self._serve, args=[work], name=name, daemon=True).start()

    def _serve(self, first: Callable[[], None]) -> None:
        first()
        del first  # an idle thread keeps nothing of its calls alive
        while self._do_next():
            pass

    def _do_next(self) -> bool:
        _idle.append(self)
        try:
            work, name = self.calls.get(timeout=IDLE_SECONDS)
        except Empty:
            with suppress(ValueError):
                _idle.remove(self)
                return False
            work, name = self.calls.get()  # somebody has just chosen this thread
        threading.current_thread().name = name
        work()
        return True


# What is done to this list is atomic: whoever takes a thread out of it has it for one call.
_idle: list[_Thread] = []
os.register_at_fork(after_in_child=_idle.clear)


def _hand_over(work: Callable[[], None], name: str) -> None:
    try:
        thread = _idle.pop()
    except IndexError:
        _Thread(work, name)
    else:
        thread.calls.put((work, name))


def _deliver(outcome: asyncio.Future[Any], report: Callable[[Any], None], value: Any) -> None:
    def deliver() -> None:
        if not outcome.done():  # given up meanwhile
            report(value)

    with suppress(RuntimeError):  # the loop is closed, so nobody waits any more
        outcome.get_loop().call_soon_threadsafe(deliver)


def _deliverable(error: BaseException) -> BaseException:
    if not isinstance(error, StopIteration):
        return error
    replacement = RuntimeError("StopIteration was raised")
    replacement.__cause__ = error
    return replacement
