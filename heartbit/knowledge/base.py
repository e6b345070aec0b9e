"""The knowledge base as agents have it: an index that is brought up to date, and searched."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

from heartbit.core.knowledge import Passage
from heartbit.core.memory import Embedding
from heartbit.errors import ConfigError, ProviderError
from heartbit.knowledge.index import Index, OnProgress
from heartbit.knowledge.report import Report
from heartbit.providers.embedder import Embedder
from heartbit.stores.knowledge.base import KnowledgeStore

OnReport = Callable[[Report], None]

_logger = logging.getLogger("heartbit.knowledge")


class Knowledge:
    """The documents of a process.

    With an `index` the first search waits until that is up to date, and so does every other one
    meanwhile; without one the documents are indexed elsewhere.
    """

    def __init__(
        self,
        store: KnowledgeStore,
        *,
        index: Index | None = None,
        embedder: Embedder | None = None,
        on_progress: OnProgress | None = None,
        on_report: OnReport | None = None,
    ) -> None:
        self._store = store
        self._index = index
        self._embedder = embedder
        self._on_progress = on_progress
        self._on_report = on_report
        self._refreshing: asyncio.Task[None] | None = None

    @property
    def has_tables(self) -> bool:
        """Whether a search can be part of a transaction."""
        return self._store.has_tables

    async def ready(self, query: str) -> Embedding | None:
        """Have the documents indexed, and give the vector of a query if it has one.

        Raises:
            HeartbitError: the documents cannot be indexed; the next search tries it again.
        """
        if self._index is not None:
            # Whoever does not wait any longer must not stop it for the others.
            await asyncio.shield(self._refresh(self._index))
        return await self._embedding(query)

    def search(
        self,
        query: str,
        *,
        source_filter: str | None,
        limit: int,
        embedding: Embedding | None,
        connection: Any = None,
    ) -> Sequence[Passage]:
        """The best passages, the best first; blocks."""
        return self._bound(connection).search(
            query, source_filter=source_filter, limit=limit, embedding=embedding
        )

    def sources(self, connection: Any = None) -> Sequence[str]:
        """The names of all documents; blocks."""
        return [each.source for each in self._bound(connection).documents()]

    async def aclose(self) -> None:
        """Stop indexing, and let go of connections."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._refreshing
        await asyncio.to_thread(self._store.close)

    def _bound(self, connection: Any) -> KnowledgeStore:
        return self._store.bound_to(connection) if connection is not None else self._store

    def _refresh(self, index: Index) -> asyncio.Task[None]:
        task = self._refreshing
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            task = self._refreshing = asyncio.create_task(self._refreshed(index))
        return task

    async def _refreshed(self, index: Index) -> None:
        report = await index.refresh(self._on_progress)
        if self._on_report is not None:
            self._on_report(report)

    async def _embedding(self, query: str) -> Embedding | None:
        if self._embedder is None:
            return None
        try:
            return (await self._embedder.embed([query], "query"))[0]
        except (ProviderError, ConfigError) as error:
            _logger.warning("Documents are searched by words only: %s", error.message)
            return None
