"""A blackboard that the journal keeps."""

from __future__ import annotations

import asyncio
from typing import Any

from heartbit.stores.journal import Journal


class JournalBlackboard:
    """The `Blackboard` of one scope, written on behalf of one run."""

    def __init__(self, journal: Journal, scope: str, run_id: str) -> None:
        self._journal = journal
        self._scope = scope
        self._run_id = run_id

    async def read(self, key: str) -> tuple[Any, int]:
        """The value of `key` and its version; (None, 0) if there is none."""
        return await asyncio.to_thread(self._journal.board_read, self._scope, key)

    async def write(self, key: str, value: Any, *, expected_version: int | None = None) -> int:
        """Set `key` and return its new version.

        Raises:
            ToolError: `expected_version` is given and is not the current version.
        """
        return await asyncio.to_thread(
            self._journal.board_write,
            self._scope,
            key,
            value,
            run_id=self._run_id,
            expected=expected_version,
        )

    async def keys(self) -> tuple[str, ...]:
        """All keys, sorted."""
        return await asyncio.to_thread(self._journal.board_keys, self._scope)
