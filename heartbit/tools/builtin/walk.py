"""Walking a directory tree that others may change meanwhile, without ever leaving it.

Directories are opened by name from their parent's descriptor and symlinks are never followed, so
that a directory swapped for a link is skipped.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Literal

from heartbit.tools.builtin.deadline import Deadline

SKIPPED = frozenset({"node_modules", "target", "__pycache__", "venv", "site-packages"})
MAX_DEPTH = 64
MAX_NOTES = 5
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW

Kind = Literal["directory", "file", "link", "other"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """Something in the tree: its path from where the walk began, and its parent's descriptor."""

    path: str
    name: str
    kind: Kind
    depth: int
    parent: int


class Walk:
    """One walk, depth first and by name; `notes` says what was left out when it is over."""

    def __init__(
        self,
        deadline: Deadline,
        *,
        max_depth: int = MAX_DEPTH,
        ignore: Callable[[str], bool] = lambda path: False,
    ) -> None:
        self.notes: list[str] = []
        self._deadline = deadline
        self._max_depth = max_depth
        self._ignore = ignore

    def entries(self, directory: int, prefix: str = "", depth: int = 0) -> Generator[Entry]:
        """What is below the open `directory`; hidden and `SKIPPED` names are not."""
        for found in _listed(directory):
            if self._deadline.passed:
                self._note("stopped: this takes too long, use a narrower path")
                return
            entry = _entry(found, prefix, depth, directory)
            if _is_skipped(found.name) or self._ignore(entry.path):
                continue
            yield entry
            if entry.kind == "directory":
                yield from self._below(entry)

    def _below(self, entry: Entry) -> Generator[Entry]:
        if entry.depth + 1 >= self._max_depth:
            self._note(f"directories deeper than {self._max_depth} levels are not shown")
            return
        try:
            directory = os.open(entry.name, _DIRECTORY, dir_fd=entry.parent)
        except OSError as failure:
            self._note(f"{entry.path} could not be opened: {failure.strerror}")
            return
        try:
            yield from self.entries(directory, f"{entry.path}/", entry.depth + 1)
        finally:
            os.close(directory)

    def _note(self, note: str) -> None:
        if note not in self.notes and len(self.notes) < MAX_NOTES:
            self.notes.append(note)


def _listed(directory: int) -> list[os.DirEntry[str]]:
    with os.scandir(directory) as found:
        return sorted(found, key=lambda entry: entry.name)


def _entry(found: os.DirEntry[str], prefix: str, depth: int, parent: int) -> Entry:
    path = prefix + found.name
    return Entry(path=path, name=found.name, kind=_kind(found), depth=depth, parent=parent)


def _kind(found: os.DirEntry[str]) -> Kind:
    if found.is_dir(follow_symlinks=False):
        return "directory"
    if found.is_symlink():
        return "link"
    return "file" if found.is_file(follow_symlinks=False) else "other"


def _is_skipped(name: str) -> bool:
    return name.startswith(".") or name in SKIPPED
