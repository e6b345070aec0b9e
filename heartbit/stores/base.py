"""What the engines need to keep: the protocols every store fulfils."""

from __future__ import annotations

from typing import Any, Protocol


class Blackboard(Protocol):
    """Keys shared by the agents of one run tree (or one squad). Values are any JSON.

    Every write of a key makes a new version, counted from 1; version 0 means the key is absent.
    """

    async def read(self, key: str) -> tuple[Any, int]:
        """The value of `key` and its version; (None, 0) if there is none."""

    async def write(self, key: str, value: Any, *, expected_version: int | None = None) -> int:
        """Set `key` and return its new version.

        Raises:
            ToolError: `expected_version` is given and is not the current version.
        """

    async def keys(self) -> tuple[str, ...]:
        """All keys, sorted."""
