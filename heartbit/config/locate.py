"""On which line of a TOML text each key stands.

It reads only text that tomllib has accepted, so it looks for what it knows and ignores the rest.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_left
from contextlib import suppress

from heartbit.config.walk import KeyPath

_BLANK = re.compile(r"(?:\s|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_KEY = re.compile(r"""[A-Za-z0-9_-]+|"(?:\\.|[^"\\])*"|'[^']*'""")
_STRING = re.compile(
    r"""
    \"{3} (?: \\. | [^\\] )*? \"{3} \"{0,2}     # up to two quotes may stand before the closing ones
    | '{3} .*? '{3} '{0,2}
    | " (?: \\. | [^"\\] )* "
    | ' [^']* '
    """,
    re.DOTALL | re.VERBOSE,
)
_SCALAR = re.compile(r"[^,\]}\n#]*")


def locate(text: str) -> dict[KeyPath, int]:
    """The line, from 1, of every key, table and list entry of a valid TOML text.

    A table without a header of its own stands where its first key does.
    """
    scanner = _Scanner(text)
    with suppress(RecursionError):  # a deep value: what was found before it is still right
        scanner.document()
    return scanner.lines


def line_of(lines: dict[KeyPath, int], path: KeyPath) -> int | None:
    """The line of the key at `path`, or of the nearest table or list around it."""
    return next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), None)


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[KeyPath, int] = {}
        self.counts: dict[KeyPath, int] = {}
        self.newlines = [found.start() for found in re.finditer("\n", text)]

    def document(self) -> None:
        table: KeyPath = ()
        self.skip(_BLANK)
        while self.at < len(self.text):
            start = self.at
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.pair(table)
            self.skip(_BLANK)
            if self.at == start:
                return

    def header(self) -> KeyPath:
        start = self.at
        is_list = self.text.startswith("[[", start)
        self.at += 2 if is_list else 1
        *outer, last = self.keys()
        self.at += 2 if is_list else 1
        path: KeyPath = ()
        for key in outer:
            path = self.newest((*path, key), start)
        if is_list:
            path = (*path, last)
            self.record(path, start)
            self.counts[path] = self.counts.get(path, 0) + 1
            path = (*path, self.counts[path] - 1)
        else:
            path = (*path, last)
        self.record(path, start)
        return path

    def newest(self, path: KeyPath, at: int) -> KeyPath:
        """The table a header's outer key means: of a list of tables, the last one."""
        self.record(path, at)
        return (*path, self.counts[path] - 1) if path in self.counts else path

    def pair(self, table: KeyPath) -> None:
        start = self.at
        path = table
        for key in self.keys():
            path = (*path, key)
            self.record(path, start)
        self.skip_char("=")
        self.value(path)

    def keys(self) -> list[str]:
        keys = []
        while True:
            self.skip(_SPACE)
            keys.append(_plain(self.take(_KEY)))
            self.skip(_SPACE)
            if not self.skip_char("."):
                return keys

    def value(self, path: KeyPath) -> None:
        self.skip(_SPACE)
        if self.skip_char("["):
            self.items(path)
        elif self.skip_char("{"):
            self.pairs(path)
        elif not self.take(_STRING):
            self.take(_SCALAR)

    def items(self, path: KeyPath) -> None:
        index = 0
        while self.inside("]"):
            self.record((*path, index), self.at)
            self.value((*path, index))
            index += 1

    def pairs(self, path: KeyPath) -> None:
        while self.inside("}"):
            self.pair(path)

    def inside(self, end: str) -> bool:
        self.skip(_BLANK)
        if self.skip_char(","):
            self.skip(_BLANK)
        return self.at < len(self.text) and not self.skip_char(end)

    def take(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        self.at = found.end() if found else self.at
        return found[0] if found else ""

    def skip(self, pattern: re.Pattern[str]) -> None:
        self.take(pattern)

    def skip_char(self, char: str) -> bool:
        found = self.text.startswith(char, self.at)
        self.at += len(char) if found else 0
        return found

    def record(self, path: KeyPath, at: int) -> None:
        self.lines.setdefault(path, bisect_left(self.newlines, at) + 1)


def _plain(key: str) -> str:
    if not key.startswith(('"', "'")):
        return key
    return str(tomllib.loads(f"_ = {key}")["_"])
