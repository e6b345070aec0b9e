"""Both stores put what they find in the same order, however much of it there is."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from heartbit.core.memory import MemoryQuery
from heartbit.core.ranking import CANDIDATES
from heartbit.stores.database import Database
from heartbit.stores.knowledge.in_memory import InMemoryKnowledge
from heartbit.stores.knowledge.postgres import PostgresKnowledge
from heartbit.stores.memories.in_memory import InMemoryMemories
from heartbit.stores.memories.postgres import PostgresMemories
from tests.support.knowledge import document
from tests.support.memories import ME, WORDS, many, new, vector_of

TEXTS = ("lease", "queue worker", "journal retry crash turn", "the", "", "?!")
FEW = 6
"""So few different words that many texts are as good as others."""


@pytest.fixture
def database(postgres: str) -> Iterator[Database]:
    """An empty database."""
    made = Database(postgres, pool_size=2)
    yield made
    made.close()


def query(text: str, limit: int) -> MemoryQuery:
    """A query of the writer's."""
    return MemoryQuery(
        text=text, limit=limit, tenant_id=ME.tenant_id, user_id=ME.user_id, agent=ME.agent
    )


def alike(count: int) -> list[str]:
    """Short texts of a few words, many of them the same, and some of no word at all."""
    chance = random.Random(3)
    return [" ".join(chance.choices(WORDS[:FEW], k=chance.randint(0, 3))) for _ in range(count)]


@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize("equals", [False, True])
def test_a_namespace_with_more_memories_than_candidates_is_recalled_alike(
    database: Database, hybrid: bool, equals: bool
) -> None:
    """All that is found, and not only its beginning; also where most of it is equally good."""
    here, there = InMemoryMemories(), PostgresMemories(database)
    memories = [replace(each, namespace=ME) for each in many(450)]
    if equals:
        given = zip(memories, alike(450), strict=True)
        memories = [new(old.id, text, created_at=old.created_at) for old, text in given]
    for memory in memories:
        for store in (here, there):
            store.store(memory, vector_of(memory.content) if hybrid else None)
    for text in TEXTS:
        for limit in (0, 150, 10):
            vector = vector_of(text) if hybrid else None
            expected, got = (
                store.recall(query(text, limit), embedding=vector, reinforce=False)
                for store in (here, there)
            )
            assert [x.memory.id for x in expected] == [x.memory.id for x in got], (text, limit)
            assert [x.relevance for x in expected] == [x.relevance for x in got], (text, limit)
            if text in ("lease", "queue worker") and limit == 0:
                assert len(got) >= CANDIDATES


@pytest.mark.parametrize("hybrid", [False, True])
def test_a_collection_with_many_equal_chunks_is_searched_alike(
    database: Database, hybrid: bool
) -> None:
    """What is cut off at the number of candidates is the same."""
    here, there = InMemoryKnowledge(), PostgresKnowledge(database)
    texts = alike(450)
    for store in (here, there):
        store.replace_documents(
            [document(f"d{at % 9}", *texts[at : at + 50]) for at in range(0, 450, 50)]
        )
        if hybrid:
            todo = store.without_embedding("hash", limit=1_000)
            store.embed([(each, vector_of(each.text)) for each in todo])
    for text in TEXTS:
        vector = vector_of(text) if hybrid else None
        expected, got = (store.search(text, limit=300, embedding=vector) for store in (here, there))
        assert expected == got, text
