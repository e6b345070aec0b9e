"""The search of `grep`, run as a program of its own: `main` is given its request as JSON.

Python's regular expressions can take for ever on a few characters, hold the interpreter meanwhile
and cannot be interrupted from another thread: a process can be ended.
This module and what it imports need only the standard library, so that it starts quickly.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from heartbit.tools.builtin.deadline import Deadline
from heartbit.tools.builtin.globs import Matches, compile_glob
from heartbit.tools.builtin.text import PROBE_BYTES, looks_binary, printable
from heartbit.tools.builtin.walk import Walk

MAX_MATCHES = 100
MAX_LINE_BYTES = 64 * 1024
SHOWN_CHARS = 400
REFUSED = 2

Find = Callable[[str], "re.Match[str] | None"]


def main(request: str) -> int:
    """Print what `request` asks for, or one sentence and return REFUSED."""
    wanted = json.loads(request)
    warnings.simplefilter("ignore")
    try:
        search = _Search(wanted)
    except (re.error, OverflowError, RecursionError) as failure:
        _say(f"The pattern is not a valid regular expression: {failure}.")
        return REFUSED
    except ValueError as failure:
        _say(str(failure))
        return REFUSED
    _print_matches(search)
    return 0


def _print_matches(search: _Search) -> None:
    matches = search.matches()
    shown = 0
    for line in islice(matches, MAX_MATCHES):
        _say(line)
        shown += 1
    if next(matches, None) is not None:
        _say(f"[cut after {MAX_MATCHES} matches: use a narrower pattern, path or include]")
    if not shown:
        _say("No matches.")
    for note in search.walk.notes:
        _say(f"[{note}]")


def _say(line: str) -> None:
    data = f"{line}\n".encode("utf-8", "replace")
    # Unbuffered: what was found stays found when the search is ended.
    while data:
        data = data[os.write(1, data) :]


class _Search:
    """One pattern over one open file or directory."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        pattern = wanted["pattern"]
        self._find: Find = re.compile(re.escape(pattern) if wanted["literal"] else pattern).search
        self._included = _included(wanted["include"])
        self._opened: int = wanted["opened"]
        self._prefix: str = wanted["prefix"]
        self.walk = Walk(Deadline(math.inf))

    def matches(self) -> Iterator[str]:
        """Each matching line as `path:number: text`."""
        if not stat.S_ISDIR(os.fstat(self._opened).st_mode):
            yield from self._in_file(self._opened, self._prefix.rstrip("/"))
            return
        for entry in self.walk.entries(self._opened):
            if entry.kind != "file" or not self._included(entry.path):
                continue
            opened = _open(entry.name, entry.parent)
            if opened is not None:
                yield from self._in_file(opened, self._prefix + entry.path)

    def _in_file(self, opened: int, path: str) -> Iterator[str]:
        with open(opened, "rb") as file:
            if looks_binary(file.peek(PROBE_BYTES)[:PROBE_BYTES]):
                return
            number = 0
            while line := file.readline(MAX_LINE_BYTES):
                number += 1
                text = line.rstrip(b"\r\n").decode("utf-8", "replace")
                match = self._find(text)
                if match is not None:
                    yield f"{printable(path)}:{number}: {_window(text, match.start())}"
                while line and not line.endswith(b"\n"):
                    line = file.readline(MAX_LINE_BYTES)


def _included(pattern: str | None) -> Matches:
    if pattern is None:
        return lambda path: True
    matches = compile_glob(pattern)
    if "/" in pattern:
        return matches
    return lambda path: matches(path.rpartition("/")[2])


def _open(name: str, parent: int) -> int | None:
    try:
        opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=parent)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(opened).st_mode):
        return opened
    os.close(opened)
    return None


def _window(text: str, start: int) -> str:
    """The part of a long line where the match is."""
    if len(text) <= SHOWN_CHARS:
        return text
    begin = max(0, start - SHOWN_CHARS // 4)
    end = begin + SHOWN_CHARS
    return f"{'...' if begin else ''}{text[begin:end]}{'...' if end < len(text) else ''}"
