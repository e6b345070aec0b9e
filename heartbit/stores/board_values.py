"""What a blackboard can keep: the same keys and values in every store."""

from __future__ import annotations

import json
from typing import Any

from heartbit.errors import ToolError

MAX_KEY_BYTES = 512


def checked_key(key: str) -> str:
    """The key, if every store can keep it: Postgres takes neither NUL nor half a character.

    Raises:
        ToolError: it cannot be a key.
    """
    if not 0 < len(key.encode("utf-8", "replace")) <= MAX_KEY_BYTES:
        raise ToolError(f"A blackboard key is a text of 1 to {MAX_KEY_BYTES} bytes.")
    if "\0" in key or any("\ud800" <= character <= "\udfff" for character in key):
        raise ToolError("A blackboard key holds whole characters and no NUL.")
    return key


def encoded(value: Any) -> str:
    """The value as ASCII JSON text that gives exactly this value back.

    Raises:
        ToolError: it is not JSON.
    """
    try:
        text = json.dumps(value, allow_nan=False)
        same = json.loads(text) == value
    except (TypeError, ValueError, RecursionError) as error:
        raise ToolError(f"A blackboard value must be JSON: {error}") from error
    if not same:
        raise ToolError(
            "A blackboard value must be JSON: objects with text keys, lists, texts, numbers, "
            "true, false, null."
        )
    return text


def conflict(key: str, version: int, expected: int) -> str:
    """What is said to somebody who wanted to write another version."""
    return f"Blackboard key {key!r} is at version {version}, not {expected}; nothing was written."
