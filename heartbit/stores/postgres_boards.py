"""Blackboards in PostgreSQL: what decides which value is the newest."""

from __future__ import annotations

from typing import Any

from heartbit.errors import BoardConflict, ToolError
from heartbit.stores.board_values import checked_key, encoded
from heartbit.stores.database import Database
from heartbit.stores.journal import BoardEntry


class PostgresBoards:
    """Reads and single writes of blackboards."""

    _database: Database

    def board_read(self, scope: str, key: str) -> tuple[Any, int]:
        """The value of a key and its version; (None, 0) if there is none."""
        rows = self._database.rows("board_read", scope=scope, key=checked_key(key))
        return (rows[0][0], rows[0][1]) if rows else (None, 0)

    def board_keys(self, scope: str) -> tuple[str, ...]:
        """All keys of a scope, sorted."""
        return tuple(sorted(key for (key,) in self._database.rows("board_keys", scope=scope)))

    def board_after(self, scope: str, seq: int) -> tuple[BoardEntry, ...]:
        """The writes of a scope after number `seq`, in order."""
        rows = self._database.records("board_after", scope=scope, seq=seq)
        return tuple(BoardEntry(**row) for row in rows)

    def board_write(
        self, scope: str, key: str, value: Any, *, run_id: str, expected: int | None = None
    ) -> int:
        """Write a key outside of any append, and give its new version."""
        try:
            version: int = self._database.value(
                "board_writes",
                run_id=run_id,
                scopes=[scope],
                keys=[checked_key(key)],
                values=[encoded(value)],
                expected=[expected],
            )
        except BoardConflict as error:
            raise ToolError(error.message) from error
        return version
