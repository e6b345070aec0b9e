"""The tool `edit`: replace one passage of a file and leave every other byte as it is."""

from __future__ import annotations

from heartbit.core.messages import Json
from heartbit.errors import ToolError
from heartbit.tools.base import ToolContext
from heartbit.tools.builtin.build import build_tool, in_thread
from heartbit.tools.builtin.seen import remember, require_known
from heartbit.tools.builtin.text import head, utf8
from heartbit.tools.builtin.workspace import Place, locate, missing, parent_of
from heartbit.tools.builtin.write import REPLACING, Current, current, replace

MAX_BYTES = 10 * 1024 * 1024
CONTEXT_LINES = 2
MAX_SHOWN_LINES = 40
MAX_LINE_BYTES = 500

DESCRIPTION = """Replace a passage of a text file of the workspace.

old_string must occur exactly once, character for character as in the file (without the line \
numbers that read shows): take in enough lines around it. With replace_all every occurrence is \
replaced. The file must have been read by you, and not changed since."""


def edit_file(arguments: Json, context: ToolContext) -> str:
    """Replace the passage and show the lines around it."""
    place = locate(context, arguments["file_path"])
    old, new = (utf8(arguments[name], name) for name in ("old_string", "new_string"))
    if old == new:
        raise ToolError("old_string and new_string are the same; there is nothing to change.")
    with parent_of(place) as directory, REPLACING:
        before = current(place, directory)
        if before is None:
            raise missing(place, directory)
        require_known(context, place, before.status)
        content = _content(place, before)
        old, new = _in_the_files_newlines(content, old, new)
        count = _count(content, old, place, every=arguments.get("replace_all", False))
        changed = content.replace(old, new)
        remember(context, place, replace(place, directory, changed, before))
    done = f"Replaced {count} occurrence{'s' if count > 1 else ''} in {place.shown}:"
    return f"{done}\n{_around(changed, content.find(old), len(new))}"


def _content(place: Place, before: Current) -> bytes:
    if before.status.st_size > MAX_BYTES:
        raise ToolError(f"{place.shown} is larger than {MAX_BYTES >> 20} MiB; edit it with bash.")
    return before.content()


def _in_the_files_newlines(content: bytes, old: bytes, new: bytes) -> tuple[bytes, bytes]:
    """A model sees no CR at a line's end: give its lines the ends that the file has."""
    windows = content.count(b"\r\n")
    mixed = windows != content.count(b"\n")
    if not windows or (mixed and old in content):
        return old, new
    return _with_crlf(old), _with_crlf(new)


def _with_crlf(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def _count(content: bytes, old: bytes, place: Place, *, every: bool) -> int:
    count = content.count(old)
    if not count:
        raise ToolError(
            f"old_string does not occur in {place.shown}; it must match exactly, with its blanks."
        )
    # bytes.count skips overlaps, and a passage that overlaps itself is not a unique one.
    overlaps = content.find(old, content.find(old) + 1) >= 0
    if not every and overlaps:
        times = f"{count} times" if count > 1 else "more than once, overlapping itself"
        raise ToolError(
            f"old_string occurs {times} in {place.shown}; "
            "take in more lines to make it unique, or set replace_all."
        )
    return count


def _around(content: bytes, start: int, length: int) -> str:
    """The lines of the change and those next to it, numbered."""
    lines = content.removesuffix(b"\n").split(b"\n")
    first = max(content.count(b"\n", 0, start) - CONTEXT_LINES, 0)
    last = content.count(b"\n", 0, start + length) + CONTEXT_LINES + 1
    shown = lines[first : min(last, first + MAX_SHOWN_LINES)]
    numbered = [f"{number:6}\t{_text(line)}" for number, line in enumerate(shown, first + 1)]
    more = ["[...]"] if last > first + MAX_SHOWN_LINES else []
    return "\n".join(numbered + more)


def _text(line: bytes) -> str:
    return head(line.removesuffix(b"\r"), MAX_LINE_BYTES).decode("utf-8", "replace")


EDIT = build_tool(
    "edit",
    DESCRIPTION,
    properties={
        "file_path": {"type": "string", "description": "Relative to the workspace, or absolute."},
        "old_string": {"type": "string", "minLength": 1, "description": "The passage to replace."},
        "new_string": {"type": "string", "description": "What takes its place."},
        "replace_all": {
            "type": "boolean",
            "description": "Replace every occurrence instead of exactly one (default false).",
        },
    },
    required=("file_path", "old_string", "new_string"),
    effect="at_most_once",
    answer=in_thread(edit_file),
)
