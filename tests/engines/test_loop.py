"""The background loop: one per process, usable from every thread, gone when it is stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import CancelledError

import pytest

from heartbit.loop import BackgroundLoop, background_loop, stop_background_loop


@pytest.fixture
def loop() -> Iterator[BackgroundLoop]:
    """A loop of the test's own."""
    made = BackgroundLoop()
    yield made
    made.stop()


async def ident() -> int:
    """The thread that this runs in."""
    return threading.get_ident()


async def fail() -> None:
    """Raise what a coroutine may raise."""
    raise KeyError("gone")


def test_work_of_many_threads_runs_in_one_thread(loop: BackgroundLoop) -> None:
    """Which is none of theirs."""
    seen: list[int] = []
    threads = [threading.Thread(target=lambda: seen.append(loop.run(ident()))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 20 == len(seen)
    assert 1 == len(set(seen))
    assert threading.get_ident() not in seen


def test_what_work_raises_comes_out(loop: BackgroundLoop) -> None:
    """And the loop goes on."""
    with pytest.raises(KeyError):
        loop.run(fail())
    assert loop.run(ident())


def test_work_that_is_cancelled_ends_and_says_so(loop: BackgroundLoop) -> None:
    """As a lost lease does to a step."""
    begun, ended = threading.Event(), threading.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    future = loop.submit(work())
    assert begun.wait(5)
    future.cancel()
    with pytest.raises(CancelledError):
        future.result(5)
    assert ended.wait(5)


def test_work_is_cancelled_when_its_waiter_is_interrupted(loop: BackgroundLoop) -> None:
    """Ctrl-C in a terminal must not leave a model call under way."""
    ended = threading.Event()

    async def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(KeyboardInterrupt):
        loop.run(work())
    assert ended.wait(5)


def test_stopping_ends_what_is_under_way_and_the_thread() -> None:
    """Also asynchronous generators; stopping twice is nothing."""
    made, begun, ended = BackgroundLoop(), threading.Event(), []

    async def numbers() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            ended.append("generator")

    async def work() -> None:
        async for _ in numbers():
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("work")

    future = made.submit(work())
    assert begun.wait(5)
    made.stop()
    made.stop()
    assert {"work", "generator"} == set(ended)
    assert future.cancelled()
    assert not made._thread.is_alive()


def test_a_process_has_one_loop_and_a_new_one_after_it_was_stopped() -> None:
    """Whoever asks first starts it."""
    try:
        first = background_loop()
        assert first is background_loop()
        stop_background_loop()
        second = background_loop()
        assert second is not first
        assert second.run(ident())
    finally:
        stop_background_loop()
    stop_background_loop()


def test_importing_starts_no_thread() -> None:
    """Threads do not survive a fork, and importing comes before it."""
    code = (
        "import threading, heartbit, heartbit.loop, heartbit.tasks; print(threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "1\n" == done.stdout


def test_a_forked_child_has_a_loop_of_its_own() -> None:
    """And leaves its parent's alone."""
    parent = background_loop()
    try:
        here = parent.run(ident())
        child = os.fork()
        if child == 0:
            signal.alarm(10)  # what hangs must not hang the tests
            works = background_loop() is not parent and background_loop().run(ident()) != 0
            os._exit(0 if works else 1)
        assert (child, 0) == os.waitpid(child, 0)
        assert here == parent.run(ident())
        assert parent is background_loop()
    finally:
        stop_background_loop()
