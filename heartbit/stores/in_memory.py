"""Stores that live and die with the process: what the standalone path uses.

They are used from one event loop; nothing here awaits, so that every operation is atomic.
"""

from __future__ import annotations

import json
from typing import Any

from heartbit.errors import ToolError
from heartbit.stores.board_values import checked_key, conflict, encoded


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
        text, version = self._entries.get(checked_key(key), ("null", 0))
        return json.loads(text), version

    async def write(self, key: str, value: Any, *, expected_version: int | None = None) -> int:
        """Set `key` and return its new version.

        Raises:
            ToolError: `expected_version` is given and is not the current version, it cannot be a
                key, or the value is not JSON.
        """
        _, version = self._entries.get(checked_key(key), ("", 0))
        if expected_version is not None and expected_version != version:
            raise ToolError(conflict(key, version, expected_version))
        self._entries[key] = (encoded(value), version + 1)
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
