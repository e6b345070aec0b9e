"""A conversation as one prompt: each line of a chat is a run, told what was said before. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

MAX_BYTES = 48_000


class Exchange(NamedTuple):
    """What the user said, and what was answered."""

    user: str
    answer: str


def with_earlier(earlier: Sequence[Exchange], line: str, max_bytes: int = MAX_BYTES) -> str:
    """`line` as a prompt, after as many of the last exchanges as fit into `max_bytes`."""
    if not earlier:
        return line
    told: list[str] = []
    left = max_bytes
    for exchange in reversed(earlier):
        text = f"User: {exchange.user}\n\nAssistant: {exchange.answer}"
        left -= len(text.encode(errors="replace"))
        if left < 0:
            break
        told.insert(0, text)
    if len(told) < len(earlier):
        told.insert(0, f"({len(earlier) - len(told)} earlier exchanges are left out.)")
    before = "\n\n".join(told)
    return f"The conversation so far:\n\n{before}\n\nThe user now says:\n\n{line}"
