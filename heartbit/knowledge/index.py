"""Keeping an index of documents up to date: only what has changed is cut and written again.

Every document is read and hashed, which is quicker than a second per thousand files: a time and a
size that are the same do not say that nothing has changed. A batch is one transaction.
"""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from heartbit.core.chunking import Chunk
from heartbit.core.knowledge import Document, searched_text
from heartbit.errors import ConfigError, ProviderError
from heartbit.knowledge.batch import Batch
from heartbit.knowledge.extract import Text, recipe, text_of
from heartbit.knowledge.pages import Pages, page_text
from heartbit.knowledge.report import Report
from heartbit.knowledge.sources import Found, Listing, Problem, Source, listed, read, source_id
from heartbit.providers.embedder import Embedder
from heartbit.stores.knowledge.base import KnowledgeStore
from heartbit.tools.builtin.fetching import Page

BATCH_DOCUMENTS = 50
BATCH_VECTORS = 128

OnProgress = Callable[[int, int], None]
"""Hears how many of how many documents have been looked at."""


class Index:
    """The documents of some sources in a store.

    Args:
        root: what relative paths are seen from.
        size: of a chunk, at most, in bytes; `overlap` is what it repeats of the one before.
        pages: makes what fetches the pages of one look at the sources.
    """

    def __init__(
        self,
        store: KnowledgeStore,
        sources: Sequence[Source],
        *,
        root: Path,
        size: int = 1000,
        overlap: int = 200,
        embedder: Embedder | None = None,
        pages: Callable[[], Pages] = Pages,
    ) -> None:
        self.sources = tuple(dict.fromkeys(sources))
        self._store = store
        self._root = root
        self._size = size
        self._overlap = overlap
        self._recipe = recipe(size, overlap)
        self._embedder = embedder
        self._pages = pages
        self._prepared: set[tuple[str, int]] = set()

    async def refresh(self, on_progress: OnProgress | None = None) -> Report:
        """Bring everything up to date, and drop what no source names any more."""
        listing = await asyncio.to_thread(listed, self.sources, self._root)
        report = await self._index(list(listing.found.values()), on_progress)
        removed = await asyncio.to_thread(self._remove_gone, listing)
        return report + Report(removed=removed, problems=tuple(listing.problems))

    async def refresh_part(self, source: str, part: int, parts: int) -> Report:
        """The same for one of `parts` parts of the source with this id; nothing else is dropped.

        Which part a document belongs to depends on its name alone.

        Raises:
            ConfigError: there is no such source here.
        """
        chosen = [each for each in self.sources if source_id(each) == source]
        if not chosen:
            raise ConfigError(
                f"The configuration of this process has no knowledge source {source}; it is not "
                "that of the process that asked for it."
            )
        listing = await asyncio.to_thread(listed, chosen, self._root)
        mine = [each for each in listing.found.values() if part_of(each.name, parts) == part]
        problems = tuple(listing.problems) if part == 0 else ()
        return await self._index(mine) + Report(problems=problems)

    def listing(self) -> dict[str, int]:
        """How many documents each source names by now, by the ids of the sources."""
        return {source_id(x): len(listed([x], self._root).found) for x in self.sources}

    def remove_gone(self) -> int:
        """Drop what no source names any more, without reading anything; how many that was."""
        return self._remove_gone(listed(self.sources, self._root))

    def _remove_gone(self, listing: Listing) -> int:
        if not listing.complete:
            return 0
        return len(self._store.remove_documents_except(list(listing.found)))

    async def _index(self, found: Sequence[Found], on_progress: OnProgress | None = None) -> Report:
        report, done, pages, embedder = Report(), 0, self._pages(), self._embedder
        for batch in _batches(found):
            files = [each for each in batch if each.place is not None]
            report += await asyncio.to_thread(self._files, files)
            report += await self._web([each for each in batch if each.place is None], pages)
            if embedder is not None:
                embedded = await self._embed(embedder, [each.name for each in batch])
                embedder = None if embedded.problems else embedder  # which is asked no more
                report += embedded
            done += len(batch)
            if on_progress is not None:
                on_progress(done, len(found))
        return report

    def _files(self, files: Sequence[Found]) -> Report:
        batch = Batch(self._store, [each.name for each in files], self._recipe)
        for each in files:
            assert each.place is not None  # noqa: S101 - chosen by the caller
            with batch.problems_of(each.name):
                data = read(each.place)
                digest = hashlib.sha256(data).hexdigest()
                if not batch.has(each.name, digest):
                    text = text_of(each.name, data)
                    batch.put(each.name, digest, text, self._cut(text))
        return batch.written()

    async def _web(self, found: Sequence[Found], pages: Pages) -> Report:
        if not found:
            return Report()
        known = await asyncio.to_thread(self._known, [each.name for each in found])
        got = await asyncio.gather(
            *(pages.fetch(each.name, known.get(each.name)) for each in found),
            return_exceptions=True,
        )
        return await asyncio.to_thread(self._take_in, [each.name for each in found], got)

    def _known(self, names: Sequence[str]) -> Mapping[str, Document]:
        """Of documents made by another recipe nobody asks whether they have changed."""
        documents = self._store.documents(names)
        return {each.source: each for each in documents if each.recipe == self._recipe}

    def _take_in(self, names: Sequence[str], got: Sequence[Page | BaseException]) -> Report:
        batch = Batch(self._store, names, self._recipe)
        for name, page in zip(names, got, strict=True):
            with batch.problems_of(name):
                if isinstance(page, BaseException):
                    raise page
                if page.unchanged:
                    batch.has(name, None)
                    continue
                text = page_text(page)
                if batch.has(name, text.digest):
                    self._store.confirm(name, etag=page.etag, last_modified=page.last_modified)
                else:
                    batch.put(name, text.digest, text, self._cut(text), page)
        return batch.written()

    def _cut(self, text: Text) -> tuple[Chunk, ...]:
        return tuple(text.chunks(size=self._size, overlap=self._overlap))

    async def _embed(self, embedder: Embedder, names: Sequence[str]) -> Report:
        """Vectors for the chunks of these documents that have none; without them words are left."""
        done = 0
        try:
            while count := await self._embed_some(embedder, names):
                done += count
        except (ProviderError, ConfigError) as error:
            message = f"Documents are found by their words only: {error.message}"
            return Report(embedded=done, problems=(Problem(name=embedder.model, message=message),))
        return Report(embedded=done)

    async def _embed_some(self, embedder: Embedder, names: Sequence[str]) -> int:
        todo = await asyncio.to_thread(
            self._store.without_embedding, embedder.model, sources=names, limit=BATCH_VECTORS
        )
        if not todo:
            return 0
        vectors = await embedder.embed([searched_text(x.heading, x.text) for x in todo])
        await asyncio.to_thread(self._prepare, embedder.model, len(vectors[0].vector))
        return await asyncio.to_thread(self._store.embed, list(zip(todo, vectors, strict=True)))

    def _prepare(self, model: str, dimension: int) -> None:
        if (model, dimension) not in self._prepared:
            self._store.prepare_model(model, dimension)
            self._prepared.add((model, dimension))


def part_of(name: str, parts: int) -> int:
    """Which of so many parts a document belongs to, in every process."""
    return zlib.crc32(name.encode("utf-8", "surrogatepass")) % parts


def _batches(found: Iterable[Found]) -> Iterator[list[Found]]:
    rest = iter(found)
    while batch := list(islice(rest, BATCH_DOCUMENTS)):
        yield batch
