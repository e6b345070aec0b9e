"""Lines from a terminal or a pipe, awaited by the event loop itself.

There is no thread that could be left behind in a read: a cancelled `line` leaves nothing.
"""

from __future__ import annotations

import asyncio
import os
import sys

_CHUNK = 65_536


class Keyboard:
    """Reads a file descriptor by lines; what was read beyond one is kept for the next."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = b""
        self._ended = False

    async def line(self) -> str | None:
        """The next line without its end; None at the end of the input."""
        while b"\n" not in self._buffer and not self._ended:
            await self._readable()
            self._read()
        line, newline, self._buffer = self._buffer.partition(b"\n")
        if not newline and not line:
            return None
        return line.decode(errors="replace").removesuffix("\r")

    def forget_type_ahead(self) -> None:
        """Drop what was typed before now: nobody can have answered a question not yet seen."""
        import termios

        self._buffer = b""
        if os.isatty(self._descriptor):
            termios.tcflush(self._descriptor, termios.TCIFLUSH)

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        try:
            loop.add_reader(self._descriptor, ready.set)
        except PermissionError:  # a regular file is always readable
            return
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._descriptor)

    def _read(self) -> None:
        try:
            chunk = os.read(self._descriptor, _CHUNK)
        except OSError:  # the terminal was hung up
            chunk = b""
        self._buffer += chunk
        self._ended = not chunk


def approval_keyboard(*, stdin_is_free: bool) -> Keyboard | None:
    """Where a person answers: stdin if it is a terminal; /dev/tty if stdin brought the prompt.

    None when there is no terminal to ask on: questions are shown on stderr, so that counts too.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        return None
    if stdin_is_free:
        return Keyboard(sys.stdin.fileno()) if sys.stdin and sys.stdin.isatty() else None
    try:
        return Keyboard(os.open("/dev/tty", os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY))
    except OSError:
        return None
