"""The tool `list`: the tree of a directory."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice

from heartbit.core.messages import Json
from heartbit.errors import ToolError
from heartbit.tools.base import ToolContext
from heartbit.tools.builtin.build import build_tool, in_thread
from heartbit.tools.builtin.deadline import Deadline
from heartbit.tools.builtin.globs import compile_glob
from heartbit.tools.builtin.text import printable
from heartbit.tools.builtin.walk import SKIPPED, Entry, Walk
from heartbit.tools.builtin.workspace import existing_entry, locate

MAX_ENTRIES = 1000
MAX_DEPTH = 20

DESCRIPTION = f"""Show the tree of a directory of the workspace, at most {MAX_ENTRIES} entries and \
{MAX_DEPTH} levels.

Hidden entries and {", ".join(sorted(SKIPPED))} are left out. `/` marks directories, `@` links, \
which are not followed, `?` what is neither."""


def list_tree(arguments: Json, context: ToolContext) -> str:
    """The tree, one entry a line."""
    place = locate(context, arguments.get("path", "."))
    walk = Walk(Deadline(), max_depth=MAX_DEPTH, ignore=_ignore(arguments.get("ignore", ())))
    with existing_entry(place) as opened:
        if not stat.S_ISDIR(os.fstat(opened).st_mode):
            raise ToolError(f"{place.shown} is not a directory; use read to see a file.")
        lines = [f"{place.shown}/", *_lines(walk, opened)]
    if len(lines) == 1:
        lines.append("  (empty)")
    return "\n".join([*lines, *(f"[{note}]" for note in walk.notes)])


def _lines(walk: Walk, directory: int) -> Iterator[str]:
    with closing(walk.entries(directory)) as entries:
        yield from map(_line, islice(entries, MAX_ENTRIES))
        if next(entries, None) is not None:
            yield f"[cut after {MAX_ENTRIES} entries: list a directory below]"


def _line(entry: Entry) -> str:
    mark = {"directory": "/", "file": "", "link": "@", "other": "?"}[entry.kind]
    return f"{'  ' * (entry.depth + 1)}{printable(entry.name)}{mark}"


def _ignore(patterns: list[str]) -> Callable[[str], bool]:
    try:
        tests = [(compile_glob(pattern), "/" in pattern) for pattern in patterns]
    except ValueError as failure:
        raise ToolError(str(failure)) from None
    return lambda path: any(
        test(path if whole else path.rpartition("/")[2]) for test, whole in tests
    )


LIST = build_tool(
    "list",
    DESCRIPTION,
    properties={
        "path": {
            "type": "string",
            "description": "The directory, relative to the workspace or absolute (default: all).",
        },
        "ignore": {
            "type": "array",
            "items": {"type": "string", "minLength": 1},
            "maxItems": 100,
            "description": "Globs to leave out: on names, or on paths if they contain a slash.",
        },
    },
    effect="pure",
    answer=in_thread(list_tree),
)
