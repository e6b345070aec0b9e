"""The tool `write`, and the atomic replacement that `edit` shares with it.

A file is never seen half written: the new content goes into a temporary file of the same directory,
which then takes the name. One lock per process makes "known and unmodified" and the replacement one
step; another process that changes the file in that moment is not noticed.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from dataclasses import dataclass

from heartbit.core.messages import Json
from heartbit.errors import ToolError
from heartbit.tools.base import ToolContext
from heartbit.tools.builtin.build import build_tool, in_thread
from heartbit.tools.builtin.seen import remember, require_known
from heartbit.tools.builtin.text import utf8
from heartbit.tools.builtin.workspace import Place, locate, open_file, parent_of

REPLACING = threading.Lock()
NEW_MODE = 0o666

DESCRIPTION = """Write a text file of the workspace: create it (and its directories), or replace \
all of its content.

A file that exists must have been read by you, and not changed since. Prefer edit for small \
changes."""


def write_file(arguments: Json, context: ToolContext) -> str:
    """Make the file hold exactly the content; doing it twice is the same as doing it once."""
    place = locate(context, arguments["file_path"])
    data = utf8(arguments["content"], "The content")
    with parent_of(place, create=True) as directory, REPLACING:
        before = current(place, directory)
        if before is not None and before.holds(data):
            remember(context, place, before.status)
            return f"{place.shown} already holds exactly this content; nothing was changed."
        if before is not None:
            require_known(context, place, before.status)
        status = replace(place, directory, data, before)
        remember(context, place, status)
    done = "Created" if before is None else "Replaced the content of"
    return f"{done} {place.shown} ({len(data)} bytes)."


@dataclass(frozen=True, kw_only=True, slots=True)
class Current:
    """The file that has the name now; `directory` and `name` lead to it."""

    place: Place
    directory: int
    status: os.stat_result

    def holds(self, data: bytes) -> bool:
        """Whether its content is exactly `data`."""
        return self.status.st_size == len(data) and self.content() == data

    def content(self) -> bytes:
        """All of its content."""
        opened = open_file(self.place, os.O_RDONLY, self.directory)
        with open(opened, "rb") as file:
            return file.read()


def current(place: Place, directory: int) -> Current | None:
    """The existing file `place`, or None. Raises ToolError if it may not be written."""
    try:
        opened = open_file(place, os.O_RDWR, directory)
    except FileNotFoundError:
        return None
    try:
        return Current(place=place, directory=directory, status=os.fstat(opened))
    finally:
        os.close(opened)


def replace(place: Place, directory: int, data: bytes, before: Current | None) -> os.stat_result:
    """Atomically give the name of `place` to a new file with `data` and the mode of `before`."""
    temporary = f".heartbit-{os.urandom(8).hex()}.tmp"
    try:
        status = _write_new(temporary, directory, data, before)
        os.replace(temporary, place.parts[-1], src_dir_fd=directory, dst_dir_fd=directory)
    except PermissionError:
        raise ToolError(f"Permission denied: {place.shown}.") from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=directory)
    return status


def _write_new(name: str, directory: int, data: bytes, before: Current | None) -> os.stat_result:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with open(os.open(name, flags, NEW_MODE, dir_fd=directory), "wb") as file:
        file.write(data)
        file.flush()
        if before is not None:
            os.fchmod(file.fileno(), stat.S_IMODE(before.status.st_mode))
        os.fsync(file.fileno())
        return os.fstat(file.fileno())


WRITE = build_tool(
    "write",
    DESCRIPTION,
    properties={
        "file_path": {"type": "string", "description": "Relative to the workspace, or absolute."},
        "content": {"type": "string", "description": "The whole new content of the file."},
    },
    required=("file_path", "content"),
    effect="idempotent",
    answer=in_thread(write_file),
)
