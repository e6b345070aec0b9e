"""Paths that cannot leave the workspace.

A path is resolved first (`..`, absolute paths, symlinks, also those of parents that do not exist
yet) and refused when the result is outside the root. It is then opened name by name from the root,
never following a symlink: a directory that is swapped for a link between the check and the opening
makes the call fail, it does not lead outside.
What this cannot see: a hard link or a mount inside the workspace that shows a file from elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from heartbit.errors import ToolError
from heartbit.tools.base import ToolContext
from heartbit.tools.builtin.text import printable

# Comparing names is slow: a directory of a million must not make a typing error expensive.
MAX_CANDIDATES = 2000

# O_PATH needs no permission to read the directories on the way.
_PASSING = os.O_DIRECTORY | os.O_NOFOLLOW | getattr(os, "O_PATH", os.O_RDONLY)
# O_NONBLOCK: opening a pipe that nobody writes must not hang.
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A resolved path inside the workspace `root`; `parts` are the names that lead to it."""

    root: str
    parts: tuple[str, ...]

    @property
    def shown(self) -> str:
        """The path as the model should see it: relative to the workspace."""
        return printable("/".join(self.parts)) or "."

    @property
    def path(self) -> str:
        """The absolute path."""
        return os.path.join(self.root, *self.parts)


def workspace_root(context: ToolContext) -> str:
    """The resolved root; raises ToolError if none is configured or it is not a directory."""
    if context.workspace is None:
        raise ToolError("No workspace is configured for this agent, so this tool cannot be used.")
    root = os.path.realpath(context.workspace)
    if not os.path.isdir(root):
        raise ToolError(f"The workspace {root} is not a directory; create it first.")
    return root


def locate(context: ToolContext, path: str) -> Place:
    """Where `path` (relative to the workspace, or absolute) leads; raises ToolError if outside."""
    root = workspace_root(context)
    try:
        target = os.path.realpath(os.path.join(root, path))
    except ValueError:
        raise ToolError("The path holds a character that no file name can hold.") from None
    if target != root and not target.startswith(root.rstrip("/") + "/"):
        raise ToolError(
            f"{printable(path)} is outside the workspace; use a path inside {printable(root)}."
        )
    return Place(root=root, parts=tuple(part for part in target[len(root) :].split("/") if part))


@contextlib.contextmanager
def parent_of(place: Place, *, create: bool = False) -> Iterator[int]:
    """A descriptor of the directory that holds `place`; with `create`, missing ones are made."""
    directory = _descend(place, place.parts[:-1], create=create)
    try:
        yield directory
    finally:
        os.close(directory)


def open_file(place: Place, flags: int, directory: int) -> int:
    """Open the regular file `place`, whose parent `directory` is.

    Raises ToolError for everything that is no regular file, FileNotFoundError if there is nothing.
    """
    if not place.parts:
        raise ToolError(f"{place.shown} is a directory; use list to see what is in it.")
    try:
        opened = os.open(place.parts[-1], flags | _FILE, dir_fd=directory)
    except IsADirectoryError:
        raise ToolError(f"{place.shown} is a directory; use list to see what is in it.") from None
    except PermissionError:
        raise ToolError(f"Permission denied: {place.shown}.") from None
    try:
        _require_regular(place, os.fstat(opened).st_mode)
    except ToolError:
        os.close(opened)
        raise
    return opened


@contextlib.contextmanager
def existing_file(place: Place) -> Iterator[int]:
    """A descriptor to read the file `place` from; raises ToolError, with similar names, if none."""
    with parent_of(place) as directory:
        try:
            opened = open_file(place, os.O_RDONLY, directory)
        except FileNotFoundError:
            raise missing(place, directory) from None
    try:
        yield opened
    finally:
        os.close(opened)


@contextlib.contextmanager
def existing_entry(place: Place) -> Iterator[int]:
    """A descriptor of the file or directory `place`; raises ToolError if there is neither."""
    with parent_of(place) as directory:
        name = place.parts[-1] if place.parts else "."
        try:
            opened = os.open(name, os.O_RDONLY | _FILE, dir_fd=directory)
        except FileNotFoundError:
            raise missing(place, directory) from None
        except PermissionError:
            raise ToolError(f"Permission denied: {place.shown}.") from None
    try:
        yield opened
    finally:
        os.close(opened)


def missing(place: Place, directory: int) -> ToolError:
    """The error for a `place` that does not exist in `directory`, naming what is similar."""
    import difflib

    names = _names_in(directory)
    close = difflib.get_close_matches(place.parts[-1], names, n=3)
    hint = f" Did you mean {', '.join(printable(name) for name in close)}?" if close else ""
    return ToolError(f"{place.shown} does not exist.{hint}")


def _names_in(directory: int) -> list[str]:
    try:
        listable = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory)
    except OSError:
        return []
    try:
        return sorted(os.listdir(listable))[:MAX_CANDIDATES]
    finally:
        os.close(listable)


def _require_regular(place: Place, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise ToolError(f"{place.shown} is a directory; use list to see what is in it.")
    if not stat.S_ISREG(mode):
        raise ToolError(f"{place.shown} is not a regular file.")


def _descend(place: Place, names: tuple[str, ...], *, create: bool) -> int:
    directory = os.open(place.root, os.O_DIRECTORY | getattr(os, "O_PATH", os.O_RDONLY))
    for name in names:
        try:
            inner = _enter(place, name, directory, create=create)
        finally:
            os.close(directory)
        directory = inner
    return directory


def _enter(place: Place, name: str, directory: int, *, create: bool) -> int:
    try:
        if create:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=directory)
        return os.open(name, _PASSING, dir_fd=directory)
    except FileNotFoundError:
        raise ToolError(
            f"{place.shown} does not exist: there is no directory {printable(name)}."
        ) from None
    except NotADirectoryError:
        raise ToolError(f"{place.shown} cannot exist: {printable(name)} is no directory.") from None
    except PermissionError:
        raise ToolError(f"Permission denied: {place.shown}.") from None
