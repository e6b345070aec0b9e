"""Glob patterns on relative paths, matched in time linear in the path.

`*`, `?` and `[...]` stay within one name, `**` stands for any number of directories (also none),
`{a,b}` for either.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator

MAX_ALTERNATIVES = 100
_BRACES = re.compile(r"\{([^{}]*)\}")

Matches = Callable[[str], bool]


def compile_glob(pattern: str) -> Matches:
    """A test for relative paths; raises ValueError, as a sentence, for what can match none."""
    if pattern.startswith("/") or ".." in pattern.split("/"):
        raise ValueError("A glob pattern is relative: it has no leading slash and no `..`.")
    alternatives = [_segments(text) for text in _expanded(pattern)]
    return lambda path: any(_fits(segments, path.split("/")) for segments in alternatives)


_Segment = Callable[[str], object] | None
"""One name's test, or None for `**`."""


def _segments(pattern: str) -> list[_Segment]:
    return [_segment(part) for part in pattern.split("/") if part not in ("", ".")]


def _segment(part: str) -> _Segment:
    return None if part == "**" else re.compile(fnmatch.translate(part)).match


def _expanded(pattern: str) -> Iterator[str]:
    pending, made = [pattern], 0
    while pending:
        text = pending.pop()
        braces = _BRACES.search(text)
        if braces is None:
            yield text
            continue
        choices = braces[1].split(",")
        made += len(choices)
        if made > MAX_ALTERNATIVES:
            raise ValueError(f"A glob pattern has at most {MAX_ALTERNATIVES} alternatives.")
        before, after = text[: braces.start()], text[braces.end() :]
        pending.extend(f"{before}{choice}{after}" for choice in reversed(choices))


def _fits(segments: list[_Segment], names: list[str]) -> bool:
    """Follow all ways at once: `reached` holds the segments that may come next."""
    reached = _beyond_stars(segments, {0})
    for name in names:
        following = set()
        for position in reached:
            if position == len(segments):
                continue
            test = segments[position]
            if test is None:
                following.add(position)
            elif test(name):
                following.add(position + 1)
        reached = _beyond_stars(segments, following)
    return len(segments) in reached


def _beyond_stars(segments: list[_Segment], reached: set[int]) -> set[int]:
    every = set(reached)
    for position in reached:
        while position < len(segments) and segments[position] is None:
            position += 1
            every.add(position)
    return every
