"""The knowledge base that a configuration describes: where documents come from, and are kept.

`heartbit run` imports it only where [knowledge] is configured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from heartbit.config import Config
from heartbit.config.knowledge import KnowledgeTable, SourceTable
from heartbit.knowledge.base import Knowledge
from heartbit.knowledge.index import Index, OnProgress
from heartbit.knowledge.report import Report
from heartbit.knowledge.sources import FileSource, GlobSource, Source, UrlSource
from heartbit.providers.embedder import Embedder
from heartbit.stores.knowledge.base import KnowledgeStore


@dataclass(frozen=True, kw_only=True, slots=True)
class Library:
    """The store of a configuration, and what keeps it up to date."""

    store: KnowledgeStore
    index: Index
    embedder: Embedder | None


def open_library(config: Config, embedder: Embedder | None) -> Library:
    """Where documents are kept, and the index of the configured sources in it.

    They are in the database of [database], or in this process if there is none.
    """
    table = config.knowledge or KnowledgeTable()
    store = _store(config, table.collection)
    index = Index(
        store,
        [_source(each) for each in table.sources],
        root=Path(config.workspace.root).expanduser().absolute(),
        size=table.chunk_size,
        overlap=table.chunk_overlap,
        embedder=embedder,
    )
    return Library(store=store, index=index, embedder=embedder)


def knowledge_of(
    library: Library,
    *,
    refreshed: bool,
    on_warning: Callable[[str], None],
    on_progress: OnProgress | None = None,
) -> Knowledge:
    """The knowledge base of agents; one that is `refreshed` is indexed before its first search."""
    return Knowledge(
        library.store,
        index=library.index if refreshed else None,
        embedder=library.embedder,
        on_progress=on_progress,
        on_report=partial(_warn, on_warning),
    )


def _warn(on_warning: Callable[[str], None], report: Report) -> None:
    for warning in report.warnings():
        on_warning(f"knowledge: {warning}")


def _store(config: Config, collection: str) -> KnowledgeStore:
    if config.database.url is None:
        from heartbit.stores.knowledge.in_memory import InMemoryKnowledge

        return InMemoryKnowledge()
    from heartbit.stores.knowledge.postgres import PostgresKnowledge

    return PostgresKnowledge.at(config.database.url.get_secret_value(), collection=collection)


def _source(table: SourceTable) -> Source:
    match table.type:
        case "file":
            return FileSource(table.path or "")
        case "glob":
            return GlobSource(table.pattern or "")
        case "url":
            return UrlSource(table.url.get_secret_value() if table.url else "")
