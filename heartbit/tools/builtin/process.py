"""Running a program in a process group of its own, with bounded output, and ending all of it.

Whatever ends the call (the program's exit, the time limit, a cancellation), everything still in
the group gets SIGTERM and, after a grace, SIGKILL. A process that left the group (`setsid`) is out
of reach, but cannot make the call wait: only the program's exit is waited for, never the end of
its output. Output is read as it comes, and only its first and last part is kept.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import signal
from collections.abc import Iterator, Mapping, Sequence

# For what a program that has ended left behind in the background.
LEFTOVER_GRACE_SECONDS = 0.2
_POLL_SECONDS = 0.02
_READ_BYTES = 64 * 1024
# Enough for what a full pipe holds when the program has ended; a process that left the group could
# go on writing for ever.
_LAST_READS = 32


class Output:
    """The first and the last half of `limit` bytes of a stream of any length."""

    def __init__(self, limit: int) -> None:
        self._half = limit // 2
        self._first = bytearray()
        self._last = bytearray()
        self.total = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        room = self._half - len(self._first)
        self.total += len(data)
        self._first += data[:room]
        self._last += data[room:]
        del self._last[: max(len(self._last) - self._half, 0)]

    def text(self) -> str:
        """What was kept, decoded, with a note where bytes are missing."""
        omitted = self.total - 2 * self._half
        if omitted <= 0:
            return (self._first + self._last).decode("utf-8", "replace")
        # Not final: a character cut at the end of the first half is dropped, not mangled.
        first = codecs.getincrementaldecoder("utf-8")("replace").decode(bytes(self._first))
        return f"{first}\n\n[{omitted} bytes omitted]\n\n{_from_a_boundary(self._last)}"


def _from_a_boundary(data: bytearray) -> str:
    start = 0
    while start < 3 and data[start] & 0xC0 == 0x80:
        start += 1
    return data[start:].decode("utf-8", "replace")


@contextlib.contextmanager
def collecting(output: Output) -> Iterator[int]:
    """The end of a pipe to write to; what arrives until the block is left goes to `output`."""
    loop = asyncio.get_running_loop()
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    loop.add_reader(reader, _read, reader, output)
    try:
        yield writer
    finally:
        loop.remove_reader(reader)
        reads = 0
        while reads < _LAST_READS and _read(reader, output):
            reads += 1
        os.close(reader)
        os.close(writer)


def _read(reader: int, output: Output) -> bool:
    try:
        output.feed(os.read(reader, _READ_BYTES))
    except BlockingIOError:
        return False
    return True


async def run_group(
    argv: Sequence[str],
    *,
    stdout: int,
    cwd: str,
    env: Mapping[str, str],
    timeout: float,
    grace: float,
    pass_fds: Sequence[int] = (),
) -> int | None:
    """Run `argv` until it exits; its exit code (negative: a signal), or None if time was over.

    stderr joins stdout, stdin is empty; times are in seconds. Raises OSError if the program cannot
    be started, ValueError if an argument holds what no argument can.
    """
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=stdout,
        stderr=stdout,
        cwd=cwd,
        env=env,
        pass_fds=pass_fds,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(timeout):
            code = await process.wait()
            grace = min(grace, LEFTOVER_GRACE_SECONDS)
            return code
    except TimeoutError:
        return None
    finally:
        await _end(process, grace)


async def _end(process: asyncio.subprocess.Process, grace: float) -> None:
    """End what is left of the group; a second cancellation only shortens the grace."""
    try:
        _signal(process.pid, signal.SIGTERM)
        for _ in range(int(grace / _POLL_SECONDS)):
            if not _signal(process.pid, 0):
                break
            await asyncio.sleep(_POLL_SECONDS)
    finally:
        _signal(process.pid, signal.SIGKILL)
        await process.wait()


def _signal(group: int, number: int) -> bool:
    """Whether there was a process in the group to send the signal to."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
