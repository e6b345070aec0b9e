"""Many vectors in PostgreSQL are compared through an index: it is made, used, and complete."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from heartbit.core.memory import Embedding, MemoryQuery
from heartbit.embedded import EmbeddedPostgres
from heartbit.stores.database import Database
from heartbit.stores.knowledge.postgres import PostgresKnowledge
from heartbit.stores.memories import postgres as postgres_memories
from heartbit.stores.memories.postgres import INDEX_FROM, PostgresMemories
from heartbit.stores.migrate import migrate
from tests.support.knowledge import document
from tests.support.memories import ME, new, vector_of

DIMENSION = 384
CROWD = 600
SCANS = "select pg_stat_get_xact_numscans(%s::regclass)"


def directions(count: int) -> list[Embedding]:
    """Vectors that point anywhere; always the same."""
    chance = random.Random(7)
    return [
        Embedding(model="m", vector=tuple(chance.gauss(0, 1) for _ in range(DIMENSION)))
        for _ in range(count)
    ]


def scans(connection: psycopg.Connection[Any], index: str) -> int:
    """How often an index was begun to be read in this transaction; one that goes on counts anew."""
    row = connection.execute(SCANS, [f'"{index}"']).fetchone()
    return int(row[0]) if row else 0


def mine(text: str) -> MemoryQuery:
    """A query of the writer's."""
    return MemoryQuery(tenant_id=ME.tenant_id, user_id=ME.user_id, agent=ME.agent, text=text)


@contextmanager
def through_the_index(url: str, name: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection whose searches do without what else would be quicker for a few rows."""
    with psycopg.connect(url) as connection:
        for other in ("seqscan", "bitmapscan", "sort"):
            connection.execute(f"set local enable_{other} = off")
        yield connection
        assert scans(connection, name) >= 1


@pytest.fixture(params=[pytest.param(16, marks=pytest.mark.slow), 18])
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty database on each release that can be had."""
    if request.param == 18:
        yield request.getfixturevalue("postgres")
        return
    directory: Path = request.getfixturevalue("server_directory")
    with EmbeddedPostgres(directory, durable=False, version=request.param) as made:
        migrate(made.url)
        yield made.url


def test_memories_are_compared_through_the_index_once_there_is_one(server: str) -> None:
    """From as many vectors on as it is made for."""
    store = PostgresMemories(Database(server, pool_size=2))
    store.store_all(new(f"m{number:04}") for number in range(INDEX_FROM))
    vectors = directions(INDEX_FROM)
    store.embed([*zip(store.without_embedding("m", limit=INDEX_FROM), vectors, strict=True)])
    store.tend_indexes("m")
    with psycopg.connect(server) as connection:
        connection.execute("analyze memories")
        [first, *_] = store.bound_to(connection).recall(mine("none"), embedding=vectors[7])
        assert "m0007" == first.memory.id
        assert scans(connection, f"memories_vector_m/{DIMENSION}") >= 1
    store.close()


def test_chunks_are_compared_through_the_index_once_there_is_one(server: str) -> None:
    """The same for what stands in documents."""
    store = PostgresKnowledge(Database(server, pool_size=2))
    store.replace_documents([document("a.md", *["Late acks."] * INDEX_FROM)])
    vectors = directions(INDEX_FROM)
    store.embed([*zip(store.without_embedding("m", limit=INDEX_FROM), vectors, strict=True)])
    store.prepare_model("m", DIMENSION)
    with psycopg.connect(server) as connection:
        connection.execute("analyze knowledge_chunks")
        [first, *_] = store.bound_to(connection).search("none", embedding=vectors[7])
        assert 7 == first.number
        assert scans(connection, f"knowledge_chunks_vector_m/{DIMENSION}") >= 1
    store.close()


DEFINITIONS = "select indexdef from pg_indexes where indexname like %s"


@pytest.mark.parametrize(
    ("dimension", "expected"),
    [
        (384, ["((embedding)::vector(384)) vector_cosine_ops"]),
        (3072, ["((embedding)::halfvec(3072)) halfvec_cosine_ops"]),
        (5000, []),
    ],
)
@pytest.mark.parametrize("kind", ["memories", "knowledge_chunks"])
def test_long_vectors_are_indexed_with_half_the_precision_and_the_longest_not_at_all(
    postgres: str, monkeypatch: pytest.MonkeyPatch, kind: str, dimension: int, expected: list[str]
) -> None:
    """What pgvector can index depends on the length."""
    monkeypatch.setattr(postgres_memories, "INDEX_FROM", 1)
    database = Database(postgres, pool_size=1)
    if kind == "memories":
        memories = PostgresMemories(database)
        memories.store(new("a"), vector_of("lease", dimension=dimension, model="m"))
        memories.tend_indexes("m")
    else:
        PostgresKnowledge(database).prepare_model("m", dimension)
    with database.connection() as connection:
        pattern = [rf"{kind}\_vector\_m/{dimension}"]
        found = [definition for (definition,) in connection.execute(DEFINITIONS, pattern)]
    database.close()
    assert expected == [how for each in found for how in re.findall(r"hnsw \((.+)\) WHERE", each)]
    assert len(expected) == len(found)


def test_others_memories_crowd_out_nobody_in_an_index_either(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them fit better than an index looks at, and still one's own is found."""
    monkeypatch.setattr(postgres_memories, "INDEX_FROM", 1)
    store = PostgresMemories(Database(postgres, pool_size=2))
    other = replace(ME, agent="write")
    store.store_all(
        new(f"o{number:03}", f"lease w{number}", namespace=other) for number in range(CROWD)
    )
    store.store(new("mine", "alpha lease beta gamma"))
    todo = store.without_embedding("hash", limit=CROWD + 1)
    store.embed([(each, vector_of(each.content)) for each in todo])
    store.tend_indexes("hash")
    for text in ("lease", "nothing"):
        with through_the_index(postgres, "memories_vector_hash/32") as connection:
            found = store.bound_to(connection).recall(mine(text), embedding=vector_of("lease"))
        assert ["mine"] == [each.memory.id for each in found]
    store.close()


def test_other_sources_crowd_out_none_in_an_index_either(postgres: str) -> None:
    """The same for what stands in documents."""
    store = PostgresKnowledge(Database(postgres, pool_size=2))
    others = [f"lease w{number}" for number in range(CROWD)]
    store.replace_documents(
        [document("other/1", *others), document("mine/1", "alpha lease beta gamma")]
    )
    todo = store.without_embedding("hash", limit=CROWD + 1)
    store.embed([(each, vector_of(each.text)) for each in todo])
    store.prepare_model("hash", 32)
    for text in ("lease", "nothing"):
        with through_the_index(postgres, "knowledge_chunks_vector_hash/32") as connection:
            bound = store.bound_to(connection)
            found = bound.search(text, source_filter="mine/", embedding=vector_of("lease"))
        assert ["mine/1"] == [each.source for each in found]
    store.close()
