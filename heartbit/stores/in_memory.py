"""Stores that live and die with the process: what the standalone path uses.

They are used from one event loop; nothing here awaits, so that every operation is atomic.
"""

from __future__ import annotations

import json
from typing import Any

from heartbit.errors import ToolError

MAX_KEY_BYTES = 512


class InMemoryBlackboard:
    """The `Blackboard` of one scope.

    Values are kept as JSON text: nobody changes the board by changing what was read or written.
    """

    def __init__(self) -> None:
        self._entries: dict[str, tuple[str, int]] = {}

    async def read(self, key: str) -> tuple[Any, int]:
        """The value of `key` and its version; (None, 0) if there is none.

        Raises:
            ToolError: it cannot be a key.
        """
        text, version = self._entries.get(_checked_key(key), ("null", 0))
        return json.loads(text), version

    async def write(self, key: str, value: Any, *, expected_version: int | None = None) -> int:
        """Set `key` and return its new version.

        Raises:
            ToolError: `expected_version` is given and is not the current version, it cannot be a
                key, or the value is not JSON.
        """
        _, version = self._entries.get(_checked_key(key), ("", 0))
        if expected_version is not None and expected_version != version:
            raise ToolError(
                f"Blackboard key {key!r} is at version {version}, not {expected_version}; "
                "nothing was written."
            )
        self._entries[key] = (_encoded(value), version + 1)
        return version + 1

    async def keys(self) -> tuple[str, ...]:
        """All keys, sorted."""
        return tuple(sorted(self._entries))


class InMemoryBlackboards:
    """The blackboards of all scopes (`RunStarted.blackboard`)."""

    def __init__(self) -> None:
        self._boards: dict[str, InMemoryBlackboard] = {}

    def scope(self, name: str) -> InMemoryBlackboard:
        """The board of the scope, empty at first."""
        return self._boards.setdefault(name, InMemoryBlackboard())

    def forget(self, name: str) -> None:
        """Drop the board of a scope whose runs have ended; there need not be one."""
        self._boards.pop(name, None)


def _checked_key(key: str) -> str:
    """The key, if every store can keep it: Postgres takes neither NUL nor half a character."""
    if not 0 < len(key.encode("utf-8", "replace")) <= MAX_KEY_BYTES:
        raise ToolError(f"A blackboard key is a text of 1 to {MAX_KEY_BYTES} bytes.")
    if "\0" in key or any("\ud800" <= character <= "\udfff" for character in key):
        raise ToolError("A blackboard key holds whole characters and no NUL.")
    return key


def _encoded(value: Any) -> str:
    """The value as JSON text that gives exactly this value back."""
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
