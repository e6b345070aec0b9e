"""Blackboards as a step sees them: what it writes is stored with its outcome, or not at all."""

from __future__ import annotations

import json
from typing import Any, Protocol

from heartbit.core.delegation import BlackboardWrite
from heartbit.errors import ToolError
from heartbit.stores.board_values import checked_key, conflict, encoded


class BoardReads(Protocol):
    """What is stored."""

    def board_read(self, scope: str, key: str) -> tuple[Any, int]:
        """The value of a key and its version; (None, 0) if there is none."""

    def board_keys(self, scope: str) -> tuple[str, ...]:
        """All keys of a scope, sorted."""


class StepBoards:
    """Reads what is stored and what the step has written; keeps its writes for the append.

    Each write says which version it was made for, so that the append fails if somebody was faster.
    """

    def __init__(self, stored: BoardReads) -> None:
        self.writes: list[BlackboardWrite] = []
        self._stored = stored
        self._own: dict[tuple[str, str], tuple[str, int]] = {}

    def board_read(self, scope: str, key: str) -> tuple[Any, int]:
        """The value of a key and its version; (None, 0) if there is none."""
        if (own := self._own.get((scope, key))) is None:
            return self._stored.board_read(scope, key)
        text, version = own
        return json.loads(text), version

    def board_keys(self, scope: str) -> tuple[str, ...]:
        """All keys of a scope, sorted."""
        own = {key for board, key in self._own if board == scope}
        return tuple(sorted(own.union(self._stored.board_keys(scope))))

    def board_write(
        self, scope: str, key: str, value: Any, *, run_id: str, expected: int | None = None
    ) -> int:
        """Write a key, for now only for this step; gives its new version.

        Raises:
            ToolError: the key is not at version `expected`, it cannot be a key, or the value is
                not JSON.
        """
        _, version = self.board_read(scope, checked_key(key))
        if expected is not None and expected != version:
            raise ToolError(conflict(key, version, expected))
        text = encoded(value)
        self._own[scope, key] = (text, version + 1)
        self.writes.append(
            BlackboardWrite(scope=scope, key=key, value=json.loads(text), expected_version=version)
        )
        return version + 1
