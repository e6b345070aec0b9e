"""A batch of documents: compared with what is kept, and written in one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from heartbit.core.chunking import Chunk
from heartbit.core.knowledge import NewDocument
from heartbit.errors import DocumentUnreadable
from heartbit.knowledge.extract import Text
from heartbit.knowledge.report import Report
from heartbit.knowledge.sources import Problem
from heartbit.stores.knowledge.base import KnowledgeStore
from heartbit.tools.builtin.fetching import Page

FULL_BYTES = 8 * 1024 * 1024
"""A batch with so much text is written before it is complete."""
DAMAGED = "It is not valid UTF-8; what could not be read is shown as \ufffd."


class Batch:
    """Takes in documents with these names, made by a recipe."""

    def __init__(self, store: KnowledgeStore, names: Sequence[str], recipe: str) -> None:
        self._store = store
        self._recipe = recipe
        self._known = {each.source: each for each in store.documents(names)}
        self._new: list[NewDocument] = []
        self._bytes = 0
        self._gone: list[str] = []
        self._report = Report()

    @contextmanager
    def problems_of(self, name: str) -> Iterator[None]:
        """What is wrong with one document keeps none of the others out."""
        try:
            yield
        except DocumentUnreadable as error:
            self._note(Report(problems=(Problem(name=name, message=error.message),)))
            if error.gone and name in self._known:
                self._gone.append(name)

    def has(self, name: str, digest: str | None) -> bool:
        """Whether a document is kept as it is now; None says that its server thinks so."""
        known = self._known.get(name)
        same = known is not None and known.recipe == self._recipe
        if same and digest in (None, known.content_hash if known else None):
            self._note(Report(unchanged=1))
            return True
        return False

    def put(
        self,
        name: str,
        digest: str,
        text: Text,
        chunks: tuple[Chunk, ...],
        page: Page | None = None,
    ) -> None:
        """Have a document written."""
        self._new.append(
            NewDocument(
                source=name,
                title=text.title or name.rstrip("/").rpartition("/")[2],
                content_hash=digest,
                recipe=self._recipe,
                chunks=chunks,
                etag=page.etag if page else None,
                last_modified=page.last_modified if page else None,
            )
        )
        known = name in self._known
        self._note(Report(added=int(not known), changed=int(known), chunks=len(chunks)))
        if text.damaged:
            self._note(Report(problems=(Problem(name=name, message=DAMAGED),)))
        self._bytes += sum(len(each.text) for each in chunks)
        if self._bytes > FULL_BYTES:
            self._write()

    def written(self) -> Report:
        """Write what is not yet written; what became of all documents of the batch."""
        self._write()
        if self._gone:
            self._note(Report(removed=len(self._store.remove_documents(self._gone))))
        return self._report

    def _write(self) -> None:
        if self._new:
            self._store.replace_documents(self._new)
        self._new, self._bytes = [], 0

    def _note(self, more: Report) -> None:
        self._report += more
