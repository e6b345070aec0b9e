"""A database in which tools have tables of their own, for runs that have no journal there.

Nothing is imported or connected before the first tool asks for a transaction.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heartbit.stores.database import Database
    from heartbit.stores.tool_tables import ToolTables


class ToolDatabase:
    """Where `url` leads to. It may be used again after `close`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._database: Database | None = None

    def tables(self, seconds: float | None) -> AbstractContextManager[ToolTables]:
        """A transaction in which a statement may take `seconds`, committed at the block's end."""
        from heartbit.stores.database import Database

        if self._database is None:
            self._database = Database(self._url)
        return self._database.tool_tables(seconds)

    def close(self) -> None:
        """Close the connections."""
        if self._database is not None:
            self._database.close()
