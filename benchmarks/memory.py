"""How long an agent waits for what it recalls, of 10,000 memories: by words, then with vectors.

Their words are those that the standard library's docstrings are made of, so that some are in every
third text and most are rare, as in what people say. What is recalled is also counted, as it is in
earnest: in PostgreSQL that is a commit that waits for the disk. The vector of a query is there
before the clock starts: how long a model takes for it is the model's affair.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.docstrings import Collection, collection
from benchmarks.report import Found
from heartbit.core.memory import Embedding, MemoryQuery, Namespace
from heartbit.embedded import EmbeddedPostgres
from heartbit.stores.memories.base import MemoryStore, NewMemory
from heartbit.stores.memories.in_memory import InMemoryMemories
from heartbit.stores.memories.postgres import PostgresMemories
from heartbit.stores.migrate import migrate
from heartbit.testing import HashEmbedder

MEMORIES, QUERIES = 10_000, 200
WORDS = (8, 40)
EMBEDDER = HashEmbedder(dimension=384)
WHOSE = Namespace(agent="writer", user_id="ada")


def measure(count: int = MEMORIES, queries: int = QUERIES) -> list[Found]:
    """All rows of this module."""
    texts = collection()
    asked = [each.text for each in texts.questions[:queries]]
    memories = list(_memories(texts, count))
    with ExitStack() as stack:
        there = PostgresMemories.at(postgres(stack))
        stack.callback(there.close)
        places: dict[str, MemoryStore] = {"postgres": there, "in_memory": InMemoryMemories()}
        found = []
        for name, store in places.items():
            store.store_all(memories)
            _settle(store)
            found.append(_found(f"recall_{name}", store, dict.fromkeys(asked)))
        vectors = asyncio.run(_embeddings(asked))
        for name, store in places.items():
            _embed(store, count)
            _settle(store)
            found.append(_found(f"recall_vectors_{name}", store, vectors))
        return found


def _found(key: str, store: MemoryStore, asked: Mapping[str, Embedding | None]) -> Found:
    """Each query is asked in both ways, in turn: caches and neighbours serve both alike."""
    looked, recalled = [], []
    for text, vector in asked.items():
        looked.append(_milliseconds(store, text, vector, reinforce=False))
        recalled.append(_milliseconds(store, text, vector, reinforce=True))
    beside, ours = statistics.median(looked), statistics.median(recalled)
    return Found(key, beside, ours, ours)


async def _embeddings(texts: Sequence[str]) -> dict[str, Embedding | None]:
    return dict(zip(texts, await EMBEDDER.embed(texts), strict=True))


def _embed(store: MemoryStore, count: int) -> None:
    """Give every memory its vector, and the vectors an index where there is one to be had."""
    todo = store.without_embedding(EMBEDDER.model, limit=count)
    made = asyncio.run(EMBEDDER.embed([each.content for each in todo]))
    store.embed([*zip(todo, made, strict=True)])
    store.tend_indexes(EMBEDDER.model)


def _settle(store: MemoryStore) -> None:
    """What autovacuum does within a minute."""
    if isinstance(store, PostgresMemories):
        with store._database.connection() as connection:
            connection.execute("vacuum analyze memories")


def _milliseconds(
    store: MemoryStore, text: str, vector: Embedding | None, *, reinforce: bool
) -> float:
    query = MemoryQuery(user_id=WHOSE.user_id, agent=WHOSE.agent, text=text)
    begun = time.perf_counter()
    store.recall(query, embedding=vector, reinforce=reinforce)
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


def postgres(stack: ExitStack) -> str:
    """The url of an empty database with our tables, on a server that ends with the stack."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="heartbit-bench-")))
    folder.chmod(0o711)  # as root, the server is another user
    server = stack.enter_context(EmbeddedPostgres(folder / "postgres"))
    migrate(server.url)
    return server.url
