"""The tools `glob` (files by name) and `grep` (lines by content)."""

from __future__ import annotations

import heapq
import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from heartbit.core.messages import Json
from heartbit.errors import ToolError
from heartbit.tools.base import ToolContext
from heartbit.tools.builtin.build import build_tool, in_thread
from heartbit.tools.builtin.deadline import SECONDS, Deadline
from heartbit.tools.builtin.globs import compile_glob
from heartbit.tools.builtin.scan import MAX_MATCHES, REFUSED
from heartbit.tools.builtin.text import printable
from heartbit.tools.builtin.walk import SKIPPED, Walk
from heartbit.tools.builtin.workspace import Place, existing_entry, locate

MAX_PATHS = 100
MAX_OUTPUT_BYTES = 200_000
_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from heartbit.tools.builtin.scan import main; sys.exit(main(sys.argv[2]))"
)
_PACKAGES = str(Path(__file__).resolve().parents[3])

LEFT_OUT = (
    f"Hidden names and {', '.join(sorted(SKIPPED))} are left out unless path leads into them."
)

GLOB_DESCRIPTION = f"""Find files of the workspace whose path matches a pattern, the least nested \
first, at most {MAX_PATHS}.

`*` and `?` stay within one name, `**` stands for any directories, `{{a,b}}` for either: `**/*.py` \
finds all Python files, `*.py` those in path itself. {LEFT_OUT}"""

GREP_DESCRIPTION = f"""Find the lines of text files in the workspace that match a Python regular \
expression, at most {MAX_MATCHES}, as `path:line: text`.

{LEFT_OUT} A search that takes longer than {SECONDS:.0f} seconds is ended."""


def find_paths(arguments: Json, context: ToolContext) -> str:
    """The matching paths, the least nested first."""
    place = locate(context, arguments.get("path", "."))
    walk = Walk(Deadline())
    try:
        matches = compile_glob(arguments["pattern"])
    except ValueError as failure:
        raise ToolError(str(failure)) from None
    with existing_entry(place) as opened:
        if not stat.S_ISDIR(os.fstat(opened).st_mode):
            raise ToolError(f"{place.shown} is not a directory.")
        counted = _Counted(
            entry.path
            for entry in walk.entries(opened)
            if entry.kind in ("file", "link") and matches(entry.path)
        )
        paths = heapq.nsmallest(MAX_PATHS, counted, key=lambda path: (path.count("/"), path))
    lines = [_prefix(place) + printable(path) for path in paths] or ["No files match."]
    if counted.count > len(paths):
        lines.append(f"[{len(paths)} of {counted.count} files: use a narrower pattern or path]")
    return "\n".join([*lines, *(f"[{note}]" for note in walk.notes)])


class _Counted:
    """The paths, and how many there were."""

    def __init__(self, paths: Iterator[str]) -> None:
        self._paths = paths
        self.count = 0

    def __iter__(self) -> Iterator[str]:
        for path in self._paths:
            self.count += 1
            yield path


def _prefix(place: Place) -> str:
    return f"{place.shown}/" if place.parts else ""


async def find_lines(arguments: Json, context: ToolContext) -> str:
    """The matching lines. The search is a process of its own, ended when it takes too long."""
    from heartbit.tools.builtin.process import Output, collecting, run_group

    place = locate(context, arguments.get("path", "."))
    output = Output(MAX_OUTPUT_BYTES)
    with existing_entry(place) as opened, collecting(output) as stdout:
        code = await run_group(
            [sys.executable, "-I", "-c", _START, _PACKAGES, _request(arguments, place, opened)],
            stdout=stdout,
            cwd=place.root,
            env={},
            timeout=SECONDS,
            pass_fds=(opened,),
            grace=0.0,
        )
    text = output.text().removesuffix("\n")
    if code is None:
        return (
            f"{text}\n[ended after {SECONDS:.0f} seconds: use a simpler pattern or narrower path]"
        )
    if code == REFUSED:
        raise ToolError(text)
    if code:
        raise ToolError("The search failed; use a simpler pattern or a narrower path.")
    return text


def _request(arguments: Json, place: Place, opened: int) -> str:
    return json.dumps(
        {
            "pattern": arguments["pattern"],
            "literal": arguments.get("literal", False),
            "include": arguments.get("include"),
            "prefix": _prefix(place),
            "opened": opened,
        }
    )


_PATH = {
    "type": "string",
    "description": "Where to search, relative to the workspace or absolute (default: all of it).",
}

GLOB = build_tool(
    "glob",
    GLOB_DESCRIPTION,
    properties={
        "pattern": {
            "type": "string",
            "minLength": 1,
            "description": "A glob for the path below `path`.",
        },
        "path": _PATH,
    },
    required=("pattern",),
    effect="pure",
    answer=in_thread(find_paths),
)

GREP = build_tool(
    "grep",
    GREP_DESCRIPTION,
    properties={
        "pattern": {
            "type": "string",
            "minLength": 1,
            "description": "A Python regular expression, searched in each line.",
        },
        "path": _PATH,
        "include": {
            "type": "string",
            "minLength": 1,
            "description": "Only files that match this glob: on names, or on paths with a slash.",
        },
        "literal": {
            "type": "boolean",
            "description": "Take the pattern as plain text (default false).",
        },
    },
    required=("pattern",),
    effect="pure",
    answer=find_lines,
)
