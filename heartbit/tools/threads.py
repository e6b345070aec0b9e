"""Running blocking code beside the loop, in a thread that nobody has to wait for.

A thread cannot be stopped, so a tool that is given up after its timeout may block for ever. In the
loop's own pool it would keep a place from all other tools, and the process from ending.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


async def in_thread(function: Callable[[], T], name: str) -> T:
    """What `function` returns or raises, called in a new daemon thread with the caller's context.

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

    threading.Thread(target=work, name=name, daemon=True).start()
    return await outcome


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
