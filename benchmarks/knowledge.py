"""How long documents take until they can be found: 1,000 Markdown files, 10 MB, without vectors.

Their words are those of the standard library's docstrings. Everything counts from the search for
files to the last commit, which waits for the disk in PostgreSQL.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.docstrings import collection
from benchmarks.memory import postgres
from benchmarks.report import Found
from heartbit.knowledge.index import Index
from heartbit.knowledge.sources import GlobSource
from heartbit.stores.knowledge.base import KnowledgeStore
from heartbit.stores.knowledge.in_memory import InMemoryKnowledge
from heartbit.stores.knowledge.postgres import PostgresKnowledge

FILES, FILE_BYTES = 1_000, 10_000
SECTION_BYTES = 600


def measure(files: int = FILES) -> list[Found]:
    """All rows of this module; beside PostgreSQL is the store in this process."""
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="heartbit-bench-")))
        _write(root, files)
        there = PostgresKnowledge.at(postgres(stack))
        stack.callback(there.close)
        beside, ours = (_times(store, root) for store in (InMemoryKnowledge(), there))
    keys = ("knowledge_new", "knowledge_unchanged")
    return [
        Found(key, here, there_, there_)
        for key, here, there_ in zip(keys, beside, ours, strict=True)
    ]


def _times(store: KnowledgeStore, root: Path) -> tuple[float, float]:
    """Seconds for the first look at the files, and for one at files that have not changed."""
    index = Index(store, [GlobSource("*.md")], root=root)
    begun = time.perf_counter()
    new = asyncio.run(index.refresh())
    written = time.perf_counter()
    again = asyncio.run(index.refresh())
    ended = time.perf_counter()
    if new.added != again.unchanged or again.added:
        raise RuntimeError(f"Files were taken for changed: {new.summary()}; {again.summary()}")
    return written - begun, ended - written


def _write(root: Path, files: int) -> None:
    """Sections under headings, of pieces of docstrings; always the same."""
    chance = random.Random(7)
    words = " ".join(collection().documents.values()).split()
    for number in range(files):
        parts: list[str] = []
        while sum(map(len, parts)) < FILE_BYTES:
            at = chance.randrange(len(words) - SECTION_BYTES)
            text = " ".join(words[at : at + SECTION_BYTES])[:SECTION_BYTES]
            parts.append(f"## {' '.join(words[at : at + 4])}\n\n{text}\n\n")
        (root / f"{number:04}.md").write_text("".join(parts))
