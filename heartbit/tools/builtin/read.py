"""The tool `read`: lines of a text file, numbered. No more of the file is kept in memory."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator

from heartbit.core.messages import Json
from heartbit.errors import ToolError
from heartbit.tools.base import ToolContext
from heartbit.tools.builtin.build import build_tool, in_thread
from heartbit.tools.builtin.deadline import Deadline
from heartbit.tools.builtin.seen import remember
from heartbit.tools.builtin.text import PROBE_BYTES, head, looks_binary
from heartbit.tools.builtin.workspace import Place, existing_file, locate

DEFAULT_LINES = 2000
MAX_LINE_BYTES = 2000
MAX_BYTES = 256 * 1024

DESCRIPTION = f"""Read a text file of the workspace, as numbered lines.

Lines are cut after {MAX_LINE_BYTES} bytes and the whole answer after {MAX_BYTES // 1024} KiB; a \
longer file is read in several calls with offset. A file must be read before write or edit may \
change it. Directories are shown by list."""


def read_lines(arguments: Json, context: ToolContext) -> str:
    """The lines that were asked for, and a note of what was left out."""
    place = locate(context, arguments["file_path"])
    with existing_file(place) as opened:
        status = os.fstat(opened)
        with open(opened, "rb", closefd=False) as file:
            _require_text(place, file, status.st_size)
            page = _Page(offset=arguments.get("offset", 1), limit=arguments.get("limit"))
            page.fill(file, Deadline())
    text = page.rendered(place)
    remember(context, place, status)
    return text


def _require_text(place: Place, file: io.BufferedReader, size: int) -> None:
    if looks_binary(file.peek(PROBE_BYTES)[:PROBE_BYTES]):
        raise ToolError(f"{place.shown} is a binary file ({size} bytes); read shows only text.")


class _Page:
    """The numbered lines from `offset` on, filled while there is room."""

    def __init__(self, *, offset: int, limit: int | None) -> None:
        self.offset = offset
        self.limit = limit or DEFAULT_LINES
        self.lines: list[str] = []
        self.notes: list[str] = []
        self.seen = 0
        self.size = 0
        self.undecodable = False

    def fill(self, file: io.BufferedReader, deadline: Deadline) -> None:
        """Take the lines of `file` until the page is full, the file ends or the time is over."""
        for line in _short_lines(file):
            if len(self.lines) == self.limit or self.size >= MAX_BYTES:
                self.notes.append(f"there is more: continue with offset={self.seen + 1}")
                return
            if self.seen % 1000 == 0 and deadline.passed:
                self.notes.append(f"stopped at line {self.seen}: the file takes too long to read")
                return
            self.seen += 1
            if self.seen >= self.offset:
                self._take(line)

    def _take(self, line: bytes) -> None:
        shown = head(line, MAX_LINE_BYTES)
        mark = "" if shown == line else " [line cut]"
        text = shown.decode("utf-8", "replace")
        self.undecodable = self.undecodable or text.encode() != shown
        numbered = f"{self.seen:6}\t{text}{mark}"
        self.lines.append(numbered)
        self.size += len(numbered.encode()) + 1

    def rendered(self, place: Place) -> str:
        """The page as the model gets it; raises ToolError if the offset is past the end."""
        if not self.lines and self.seen and not self.notes:
            raise ToolError(f"{place.shown} has only {self.seen} lines; use a smaller offset.")
        if self.undecodable:
            self.notes.append("not valid UTF-8: what could not be decoded is shown as \ufffd")
        if not self.lines and not self.notes:
            self.notes.append("the file is empty")
        return "\n".join([*self.lines, *(f"[{note}]" for note in self.notes)])


def _short_lines(file: io.BufferedReader) -> Iterator[bytes]:
    """The lines without their ends; what is beyond the line limit is read in pieces and dropped."""
    while line := file.readline(MAX_LINE_BYTES + 2):
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = file.readline(64 * 1024)
        yield line.removesuffix(b"\n").removesuffix(b"\r")


READ = build_tool(
    "read",
    DESCRIPTION,
    properties={
        "file_path": {"type": "string", "description": "Relative to the workspace, or absolute."},
        "offset": {
            "type": "integer",
            "minimum": 1,
            "description": "The first line to show, counted from 1 (default 1).",
        },
        "limit": {
            "type": "integer",
            "minimum": 1,
            "description": f"The most lines to show (default {DEFAULT_LINES}).",
        },
    },
    required=("file_path",),
    effect="pure",
    answer=in_thread(read_lines),
)
