"""How long an agent waits for what it recalls, of 10,000 memories of its own.

Their words are those that the standard library's docstrings are made of, so that some are in every
third text and most are rare, as in what people say. What is recalled is also counted, as it is in
earnest: in PostgreSQL that is a commit that waits for the disk.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.docstrings import Collection, collection
from benchmarks.report import Found
from heartbit.core.memory import MemoryQuery, Namespace
from heartbit.embedded import EmbeddedPostgres
from heartbit.stores.memories.base import MemoryStore, NewMemory
from heartbit.stores.memories.in_memory import InMemoryMemories
from heartbit.stores.memories.postgres import PostgresMemories
from heartbit.stores.migrate import migrate

MEMORIES, QUERIES = 10_000, 200
WORDS = (8, 40)
WHOSE = Namespace(agent="writer", user_id="ada")


def measure(count: int = MEMORIES, queries: int = QUERIES) -> list[Found]:
    """All rows of this module."""
    texts = collection()
    asked = [each.text for each in texts.questions[:queries]]
    memories = list(_memories(texts, count))
    with ExitStack() as stack:
        places: dict[str, MemoryStore] = {
            "recall_postgres": _in_postgres(stack),
            "recall_in_memory": InMemoryMemories(),
        }
        found = []
        for key, store in places.items():
            store.store_all(memories)
            _settle(store)
            found.append(_found(key, store, asked))
        return found


def _found(key: str, store: MemoryStore, asked: list[str]) -> Found:
    """Each query is asked in both ways, in turn: caches and neighbours serve both alike."""
    looked, recalled = [], []
    for text in asked:
        looked.append(_milliseconds(store, text, reinforce=False))
        recalled.append(_milliseconds(store, text, reinforce=True))
    beside, ours = statistics.median(looked), statistics.median(recalled)
    return Found(key, beside, ours, ours)


def _settle(store: MemoryStore) -> None:
    """What autovacuum does within a minute."""
    if isinstance(store, PostgresMemories):
        with store._database.connection() as connection:
            connection.execute("vacuum analyze memories")


def _milliseconds(store: MemoryStore, text: str, *, reinforce: bool) -> float:
    query = MemoryQuery(user_id=WHOSE.user_id, agent=WHOSE.agent, text=text)
    begun = time.perf_counter()
    store.recall(query, reinforce=reinforce)
    return (time.perf_counter() - begun) * 1000


def _memories(texts: Collection, count: int) -> Iterator[NewMemory]:
    """Pieces of the documents, one after the other; always the same."""
    chance = random.Random(7)
    words = " ".join(texts.documents.values()).split()
    at = 0
    for number in range(count):
        length = chance.randint(*WORDS)
        if at + length > len(words):
            at = chance.randrange(length)
        content = " ".join(words[at : at + length])
        at += length
        yield NewMemory(
            id=f"m{number:05}",
            namespace=WHOSE,
            content=content,
            keywords=tuple(chance.sample(content.split(), k=2)),
            importance=chance.randint(1, 10),
        )


def _in_postgres(stack: ExitStack) -> PostgresMemories:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="heartbit-bench-")))
    folder.chmod(0o711)  # as root, the server is another user
    server = stack.enter_context(EmbeddedPostgres(folder / "postgres"))
    migrate(server.url)
    store = PostgresMemories.at(server.url)
    stack.callback(store.close)
    return store
