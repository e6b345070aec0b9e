"""stdout and stderr as something that can be written to at any moment.

A write never raises: the callers stand in the middle of a run, where an exception would pass for a
failure of the model. What went wrong is kept, and whoever asked for it is told.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO


class Sink:
    """A text stream; after its first failure it swallows everything.

    `at_line_start` tells whether the last thing written was the end of a line.
    """

    def __init__(self, file: TextIO) -> None:
        self.failure: OSError | None = None
        self.on_failure: Callable[[], None] = lambda: None
        self.at_line_start = True
        self.empty = True
        self._file = file

    @property
    def encoding(self) -> str:
        """For rich, which draws with what the encoding has."""
        return self._file.encoding

    @property
    def reader_left(self) -> bool:
        """Whether the other end of the pipe was closed: nothing that has to be reported."""
        return self.failure is not None and self.failure.errno == errno.EPIPE

    def isatty(self) -> bool:
        """Whether a person sees it."""
        return self._file.isatty()

    def fileno(self) -> int:
        """The file descriptor."""
        return self._file.fileno()

    def write(self, text: str) -> int:
        """Write and flush."""
        if text and self.failure is None:
            self.empty = False
            self.at_line_start = text.endswith("\n")
            self._try(text)
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def line(self, text: str) -> None:
        """Write a line of its own."""
        self.write(f"{text}\n")

    def end_line(self) -> None:
        """End the line that is open, if one is."""
        if not self.at_line_start:
            self.write("\n")

    def shares_terminal_with(self, other: Sink) -> bool:
        """Whether a person sees both in one place."""
        if not (self.isatty() and other.isatty()):
            return False
        with suppress(OSError):
            return os.ttyname(self.fileno()) == os.ttyname(other.fileno())
        return True

    def _try(self, text: str) -> None:
        try:
            self._write(text)
            self._file.flush()
        except OSError as error:
            self.failure = error
            self.on_failure()

    def _write(self, text: str) -> None:
        try:
            self._file.write(text)
        except UnicodeEncodeError:
            escaped = text.encode(self.encoding, "backslashreplace")
            self._file.write(escaped.decode(self.encoding))
