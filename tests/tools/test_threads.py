"""Blocking calls beside the loop: threads used again, and nobody waits for one that hangs."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import subprocess
import sys
import threading
import weakref
from functools import partial

import pytest

from heartbit.tools import threads
from heartbit.tools.threads import in_thread

TENANT = contextvars.ContextVar("tenant", default="nobody")


def here() -> threading.Thread:
    """The thread that this is called in."""
    return threading.current_thread()


def test_calls_one_after_another_share_threads() -> None:
    """Starting a thread costs more than the call; two take turns at most."""

    async def main() -> set[threading.Thread]:
        return {await in_thread(here, "tool") for _ in range(50)}

    assert len(asyncio.run(main())) <= 2


def test_calls_at_the_same_time_have_a_thread_each() -> None:
    """They all meet at one barrier, so none of them waits behind another."""
    meeting = threading.Barrier(20, timeout=10)

    async def main() -> list[int]:
        return await asyncio.gather(*(in_thread(meeting.wait, "tool") for _ in range(20)))

    assert set(range(20)) == set(asyncio.run(main()))


def test_a_call_that_hangs_keeps_its_thread_and_nobody_elses() -> None:
    """It is given up; later calls are done by others."""
    begun, release = threading.Semaphore(0), threading.Event()

    def hang() -> None:
        begun.release()
        release.wait()

    async def main() -> set[threading.Thread]:
        for _ in range(3):
            hanging = asyncio.ensure_future(in_thread(hang, "hanging"))
            await asyncio.to_thread(begun.acquire)
            hanging.cancel()
        return {await in_thread(here, "tool") for _ in range(5)}

    used = asyncio.run(main())
    stuck = [thread for thread in threading.enumerate() if thread.name == "hanging"]
    release.set()
    assert 3 == len(stuck)
    assert not used & set(stuck)


def test_a_process_ends_though_a_call_hangs_and_others_are_idle() -> None:
    """All of them are daemons."""
    program = (
        "import asyncio, threading\n"
        "from heartbit.tools.threads import in_thread\n"
        "async def main():\n"
        "    await in_thread(lambda: None, 'idle')\n"
        "    asyncio.ensure_future(in_thread(threading.Event().wait, 'hanging'))\n"
        "    await asyncio.sleep(0)\n"
        "    print('done', flush=True)\n"
        "    raise SystemExit\n"
        "asyncio.run(main())\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30)
    assert (0, b"done\n") == (ended.returncode, ended.stdout), ended.stderr


def test_each_call_has_the_context_of_its_caller() -> None:
    """Also in a thread that has done calls of somebody else, and what it sets stays with it."""

    def change() -> str:
        before = TENANT.get()
        TENANT.set("changed in the thread")
        return before

    async def main() -> list[str]:
        found = []
        for tenant in ("acme", "globex"):
            TENANT.set(tenant)
            found.append(await in_thread(change, "tool"))
        return [*found, TENANT.get()]

    assert ["acme", "globex", "globex"] == asyncio.run(main())


def test_a_thread_is_called_like_the_tool_it_works_for() -> None:
    """So that people find it in a debugger."""

    async def main() -> list[str]:
        return [await in_thread(lambda: here().name, name) for name in ("read", "write", "read")]

    assert ["read", "write", "read"] == asyncio.run(main())


def test_an_idle_thread_ends_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next call gets a new one."""
    monkeypatch.setattr(threads, "IDLE_SECONDS", 0.01)
    monkeypatch.setattr(threads, "_idle", [])

    async def main() -> tuple[threading.Thread, threading.Thread]:
        first = await in_thread(here, "tool")
        await asyncio.to_thread(first.join, 10)
        return first, await in_thread(here, "tool")

    first, second = asyncio.run(main())
    assert not first.is_alive()
    assert first is not second


def test_calls_that_come_just_when_threads_end_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that was chosen while it gave up waiting does the call nevertheless."""
    monkeypatch.setattr(threads, "IDLE_SECONDS", 0.0)
    monkeypatch.setattr(threads, "_idle", [])

    async def main() -> list[int]:
        return [await in_thread(partial(int, n), "tool") for n in range(500)]

    assert list(range(500)) == asyncio.run(main())


class _Thing:
    """Something a call works with."""

    def __call__(self) -> None:
        """Be used."""


def test_an_idle_thread_keeps_nothing_of_its_calls_alive() -> None:
    """A tool's arguments may be large."""

    async def main() -> list[weakref.ref[_Thing]]:
        return [await _used() for _ in range(3)]

    async def _used() -> weakref.ref[_Thing]:
        thing = _Thing()
        await in_thread(thing, "tool")
        return weakref.ref(thing)

    used = asyncio.run(main())
    for _ in range(1000):  # a thread delivers before it lets go
        if not any(each() for each in used):
            return
        asyncio.run(in_thread(gc.collect, "tool"))
    raise AssertionError("an idle thread holds on to what it has called")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_starts_threads_of_its_own() -> None:
    """The idle ones of its parent do not exist in it."""
    asyncio.run(in_thread(here, "tool"))
    child = os.fork()
    if child == 0:
        answer = asyncio.run(asyncio.wait_for(in_thread(lambda: 7, "tool"), 10))
        os._exit(answer)
    assert 7 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
