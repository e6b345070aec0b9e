"""Where documents come from: files, patterns of file names, and pages.

Relative paths are seen from a root, the workspace. A file that is named may be a link; a pattern
never follows one, skips hidden names, and fits a limited number of files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from heartbit.errors import DocumentUnreadable, ToolError
from heartbit.tools.builtin.deadline import Deadline
from heartbit.tools.builtin.globs import Matches, compile_glob
from heartbit.tools.builtin.walk import Walk
from heartbit.tools.builtin.workspace import Place, existing_file

MAX_FILES = 20_000
MAX_FILE_BYTES = 20 * 1024 * 1024
WALK_SECONDS = 60.0
LONGEST_NAME = 2_000
"""Bytes: documents are looked up by their names, and a database has no index of longer ones."""
SHOWN_OF_NAME = 100
_WILD = frozenset("*?[{")


@dataclass(frozen=True, slots=True)
class FileSource:
    """One file."""

    path: str


@dataclass(frozen=True, slots=True)
class GlobSource:
    """All files whose paths fit a pattern; `**` stands for any directories."""

    pattern: str


@dataclass(frozen=True, slots=True)
class UrlSource:
    """One page; its address is shown wherever it is cited."""

    url: str


Source = FileSource | GlobSource | UrlSource


def described(source: Source) -> str:
    """A source as a person wrote it."""
    match source:
        case FileSource(path):
            return path
        case GlobSource(pattern):
            return pattern
        case UrlSource(url):
            return url


def source_id(source: Source) -> str:
    """The same short name for the same source in every process."""
    text = f"{type(source).__name__} {described(source)}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A document that a source names: a file at a place, or a page at the address `name`."""

    name: str
    place: Place | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Why a source, or a document, could not be taken in as it is."""

    name: str
    message: str


@dataclass(kw_only=True, slots=True)
class Listing:
    """What sources name, by name, nothing of it read yet.

    One that is not `complete` says nothing about what is missing in it.
    """

    found: dict[str, Found] = field(default_factory=dict)
    complete: bool = True
    problems: list[Problem] = field(default_factory=list)


def listed(sources: Iterable[Source], root: Path, *, max_files: int = MAX_FILES) -> Listing:
    """Every document that some sources name, each once."""
    listing = Listing()
    for source in sources:
        try:
            for each in _found(source, root, max_files):
                _add(each, listing)
        except DocumentUnreadable as error:
            listing.complete = listing.complete and error.gone
            listing.problems.append(Problem(name=described(source), message=error.message))
    return listing


def _add(found: Found, listing: Listing) -> None:
    if len(found.name.encode("utf-8", "surrogatepass")) <= LONGEST_NAME:
        listing.found.setdefault(found.name, found)
        return
    message = f"Its name is longer than {LONGEST_NAME:,} bytes."
    listing.problems.append(Problem(name=f"{found.name[:SHOWN_OF_NAME]}...", message=message))


def read(place: Place) -> bytes:
    """The content of a file.

    Raises:
        DocumentUnreadable: it is gone, no file, too large, or may not be read.
    """
    try:
        with existing_file(place) as opened, open(opened, "rb", closefd=False) as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except ToolError as error:
        raise DocumentUnreadable(error.message, gone=not os.path.lexists(place.path)) from None
    except OSError as error:
        raise DocumentUnreadable(f"It cannot be read: {error.strerror}.") from None
    if len(data) > MAX_FILE_BYTES:
        raise DocumentUnreadable(f"It is larger than {MAX_FILE_BYTES >> 20} MiB.", gone=True)
    return data


def _found(source: Source, root: Path, max_files: int) -> list[Found]:
    match source:
        case FileSource(path):
            return [_file(path, root)]
        case GlobSource(pattern):
            return _matches(pattern, root, max_files)
        case UrlSource(url):
            return [Found(name=url)]


def _file(path: str, root: Path) -> Found:
    given = os.path.expanduser(path)
    real = os.path.realpath(root / given)
    if not os.path.lexists(real):
        raise DocumentUnreadable("There is no such file.", gone=True)
    if os.path.isdir(real):
        raise DocumentUnreadable("It is a directory; name its files by a pattern.", gone=True)
    place = Place(root=os.path.dirname(real), parts=(os.path.basename(real),))
    return Found(name=_name(os.path.normpath(given)), place=place)


def _matches(pattern: str, root: Path, max_files: int) -> list[Found]:
    before, rest = _split(os.path.expanduser(pattern))
    base = os.path.realpath(root / before)
    try:
        fits = compile_glob(rest)
        directory = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
    except ValueError as error:
        raise DocumentUnreadable(str(error)) from None
    except OSError as error:
        gone = isinstance(error, FileNotFoundError | NotADirectoryError)
        raise DocumentUnreadable(f"{before or '.'}: {error.strerror}.", gone=gone) from None
    try:
        paths = _walked(directory, rest, max_files, fits)
    finally:
        os.close(directory)
    return [
        Found(
            name=_name(os.path.normpath(os.path.join(before, path))),
            place=Place(root=base, parts=tuple(path.split("/"))),
        )
        for path in paths
    ]


def _walked(directory: int, rest: str, max_files: int, fits: Matches) -> list[str]:
    levels = None if "**" in rest else len(rest.split("/"))
    walk = Walk(Deadline(WALK_SECONDS), ignore=lambda path: _too_deep(path, levels))
    paths: list[str] = []
    for entry in walk.entries(directory):
        if entry.kind == "file" and fits(entry.path):
            paths.append(entry.path)
            if len(paths) > max_files:
                raise DocumentUnreadable(
                    f"It fits more than {max_files:,} files; use narrower patterns."
                )
    if walk.notes:
        raise DocumentUnreadable(f"Not all files could be listed: {'; '.join(walk.notes)}.")
    if not paths:
        raise DocumentUnreadable("It fits no file.", gone=True)
    return paths


def _too_deep(path: str, levels: int | None) -> bool:
    return levels is not None and path.count("/") >= levels


def _split(pattern: str) -> tuple[str, str]:
    """The directory that a pattern begins with, and what is to be matched below it."""
    wild = next((at for at, char in enumerate(pattern) if char in _WILD), len(pattern))
    slash = pattern.rfind("/", 0, wild)
    return pattern[: max(slash, 1 if slash == 0 else 0)], pattern[slash + 1 :]


def _name(path: str) -> str:
    """A path as text: bytes that are none are spelled out."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
