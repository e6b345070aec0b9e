"""What every knowledge store does: one suite over the one in this process and that in Postgres."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import pytest

from heartbit.core.chunking import Chunk
from heartbit.core.knowledge import Passage
from heartbit.core.terms import MAX_QUERY_TERMS
from heartbit.stores.database import Database
from heartbit.stores.knowledge.base import KnowledgeStore
from heartbit.stores.knowledge.in_memory import InMemoryKnowledge
from heartbit.stores.knowledge.postgres import PostgresKnowledge
from tests.support.knowledge import document, many
from tests.support.memories import vector_of

ANYTHING = "\0 \ud800 \U0001f40d é % _ ' {x} \\ \t"


@pytest.fixture(params=["in_memory", "postgres"])
def store(request: pytest.FixtureRequest) -> Iterator[KnowledgeStore]:
    """An empty store of each kind."""
    if request.param == "in_memory":
        yield InMemoryKnowledge()
        return
    made = PostgresKnowledge(Database(request.getfixturevalue("postgres"), pool_size=2))
    yield made
    made.close()


@pytest.fixture
def in_postgres(postgres: str) -> Iterator[PostgresKnowledge]:
    """An empty store in Postgres."""
    made = PostgresKnowledge(Database(postgres, pool_size=4))
    yield made
    made.close()


def places(found: list[Passage]) -> list[str]:
    """Which chunks were found, in order."""
    return [f"{each.source}#{each.number}" for each in found]


def embed_all(store: KnowledgeStore, model: str = "hash", dimension: int = 32) -> int:
    """Give every chunk the vector of its text."""
    todo = store.without_embedding(model, limit=10_000)
    vectors = [(x, vector_of(x.text, model=model, dimension=dimension)) for x in todo]
    return store.embed(vectors)


def test_a_chunk_comes_back_as_it_was_whatever_its_text(store: KnowledgeStore) -> None:
    """NUL, half characters and what SQL or COPY would read into it."""
    chunk = Chunk(index=0, text=f"lease {ANYTHING}", heading=ANYTHING, first_line=3, last_line=9)
    store.replace_documents([document("a.md", title=ANYTHING, chunks=(chunk,))])
    [got] = store.search("lease")
    assert (chunk.text, chunk.heading, ANYTHING) == (got.text, got.heading, got.title)
    assert (3, 9, 1.0) == (got.first_line, got.last_line, got.relevance)


def test_a_document_is_known_by_its_source_and_what_it_was_made_of(store: KnowledgeStore) -> None:
    """Hash, recipe and what its server said; what no database can keep is replaced in both."""
    before = datetime.now(UTC)
    made = document("b\0.md", "x", "y", content_hash="1", recipe="2", etag='"3"', last_modified="4")
    store.replace_documents([made, document("a.md", "x")])
    first, second = store.documents()
    assert ("a.md", "b?.md") == (first.source, second.source)
    assert ("1", "2", '"3"', "4", 2) == (
        second.content_hash,
        second.recipe,
        second.etag,
        second.last_modified,
        second.chunks,
    )
    assert abs((second.indexed_at - before).total_seconds()) < 60
    assert [second] == store.documents(["b\0.md", "unknown"])
    assert [] == store.documents([])


def test_a_document_that_shrank_leaves_no_stale_chunks(store: KnowledgeStore) -> None:
    """What it said before is not found any more, and has no vector."""
    store.replace_documents([document("a.md", "lease one", "lease two", "lease three")])
    embed_all(store)
    store.replace_documents([document("a.md", "queue")])
    assert [] == store.search("lease")
    assert ["a.md#0"] == places(store.search("queue"))
    assert [1] == [each.chunks for each in store.documents()]
    assert [("a.md", 0)] == [(x.source, x.number) for x in store.without_embedding("hash", limit=9)]


def test_a_document_given_twice_is_kept_as_it_was_given_last(store: KnowledgeStore) -> None:
    """One batch may hold it more than once."""
    store.replace_documents([document("a.md", "old", "old"), document("a.md", "new")])
    assert ([], ["a.md#0"]) == (store.search("old"), places(store.search("new")))


def test_what_is_gone_is_removed_with_its_chunks(store: KnowledgeStore) -> None:
    """By name, or all but some."""
    store.replace_documents([document(f"{name}.md", "lease") for name in "abcd"])
    assert ["b.md"] == store.remove_documents(["b.md", "unknown"])
    assert ["d.md"] == store.remove_documents_except(["c.md", "a.md", "other"])
    assert ["a.md#0", "c.md#0"] == places(store.search("lease"))
    assert ["a.md", "c.md"] == store.remove_documents_except([])
    assert [] == store.search("lease")


def test_a_confirmed_document_keeps_its_chunks(store: KnowledgeStore) -> None:
    """Only what the server says of it changes."""
    store.replace_documents([document("a", "lease", etag="1")])
    store.confirm("a", etag=None, last_modified="now")
    store.confirm("unknown", etag="1", last_modified=None)
    [got] = store.documents()
    assert (None, "now", ["a#0"]) == (got.etag, got.last_modified, places(store.search("lease")))


def test_a_search_finds_whole_words_and_ranks_rare_ones_first(store: KnowledgeStore) -> None:
    """`art` does not match `start`, and % and _ mean nothing."""
    store.replace_documents(
        [
            document("common", "the queue and the worker", "the queue and the broker"),
            document("rare", "the queue and the chord"),
            document("start", "start"),
        ]
    )
    assert "rare#0" == places(store.search("queue chord"))[0]
    assert [] == store.search("art")
    assert [] == store.search("% _ %%")
    assert [] == store.search("")


def test_the_first_terms_of_a_long_query_are_searched_for(store: KnowledgeStore) -> None:
    """The same ones in every store."""
    words = [f"w{number}" for number in range(MAX_QUERY_TERMS + 1)]
    store.replace_documents([document("a", words[-2]), document("b", words[-1])])
    assert ["a"] == [each.source for each in store.search(" ".join(words))]


def test_a_chunk_is_found_by_the_heading_it_stands_under(store: KnowledgeStore) -> None:
    """The words of a heading need not be in the text."""
    chunk = Chunk(index=0, text="It ends.", heading="Guide > Leases", first_line=1, last_line=1)
    store.replace_documents([document("a", chunks=(chunk,))])
    assert ["a#0"] == places(store.search("leases"))


def test_a_chunk_is_found_by_its_meaning_alone(store: KnowledgeStore) -> None:
    """No word in common is needed; vectors of other models or lengths are not compared."""
    store.replace_documents([document("a", "alpha", "beta", "gamma")])
    alpha, beta, gamma = store.without_embedding("hash", limit=9)
    near = vector_of("lease")
    store.embed(
        [
            (alpha, near),
            (beta, vector_of("lease", model="another")),
            (gamma, vector_of("lease", dimension=8)),
        ]
    )
    assert ["a#0"] == places(store.search("lease", embedding=near))
    assert [] == store.search("lease")


def test_the_weight_of_a_vector_decides_between_words_and_meaning(store: KnowledgeStore) -> None:
    """The best match by words comes first, or the best one by meaning."""
    store.replace_documents([document("a", "lease lease", "alpha beta")])
    said, meant = store.without_embedding("hash", limit=9)
    store.embed([(said, vector_of("alpha")), (meant, vector_of("lease"))])
    asked = vector_of("lease")
    for weight, expected in ((0.1, "a#0"), (9.0, "a#1")):
        found = store.search("lease", embedding=replace(asked, weight=weight))
        assert expected == places(found)[0]


def test_other_sources_never_crowd_out_the_ones_asked_for(store: KnowledgeStore) -> None:
    """Candidates of both rankings are taken inside the filter, however many others fit better."""
    others = [document(f"other/{number:03}", "lease lease") for number in range(150)]
    store.replace_documents([*others, document("mine/1", "alpha lease beta gamma")])
    embed_all(store)
    vector = vector_of("lease")
    assert ["mine/1#0"] == places(store.search("lease", source_filter="mine/", embedding=vector))
    assert ["mine/1#0"] == places(store.search("lease", source_filter="mine/"))


def test_a_source_filter_is_the_beginning_of_a_name_and_no_pattern(store: KnowledgeStore) -> None:
    """Wildcards of SQL are ordinary characters."""
    store.replace_documents([document(name, "lease") for name in ("docs/a", "docs_b", "d%")])
    assert ["docs/a#0"] == places(store.search("lease", source_filter="docs/"))
    assert ["docs_b#0"] == places(store.search("lease", source_filter="docs_"))
    assert ["d%#0"] == places(store.search("lease", source_filter="d%"))
    assert [] == store.search("lease", source_filter="\0")


def test_no_more_is_found_than_was_asked_for_and_ties_go_by_name(store: KnowledgeStore) -> None:
    """The best come first; equals by source and place."""
    store.replace_documents([document("b", "lease"), document("a", *["lease"] * 12)])
    assert [f"a#{n}" for n in range(3)] == places(store.search("lease", limit=3))
    assert [*(f"a#{n}" for n in range(12)), "b#0"] == places(store.search("lease", limit=20))


def test_another_model_embeds_again_what_has_not_changed_since(store: KnowledgeStore) -> None:
    """Switching the model, or its dimension, never breaks anything that is stored."""
    store.replace_documents([document("a", "lease", "queue"), document("b", "turn")])
    assert 3 == embed_all(store)
    assert [] == store.without_embedding("hash", limit=9)
    assert ["turn"] == [x.text for x in store.without_embedding("new", sources=["b"], limit=9)]
    todo = store.without_embedding("new", limit=2)
    assert ["lease", "queue"] == [x.text for x in todo]
    store.replace_documents([document("a", "lease", "changed meanwhile")])
    assert 1 == store.embed([(x, vector_of(x.text, model="new", dimension=48)) for x in todo])
    vector = vector_of("lease", model="new", dimension=48)
    assert ["a#0"] == places(store.search("nothing", embedding=vector))


@pytest.mark.parametrize("hybrid", [False, True])
def test_both_stores_find_the_same_chunks_in_the_same_order(
    in_postgres: PostgresKnowledge, hybrid: bool
) -> None:
    """On 200 documents, whatever is asked."""
    here = InMemoryKnowledge()
    for store in (here, in_postgres):
        store.replace_documents(many(200))
        if hybrid:
            embed_all(store)
    seen = 0
    for text in ("", "lease", "queue worker", "journal retry crash", "nothing of this", "the"):
        for prefix in (None, "docs/", "docs/how-to/", "notes/0", "none"):
            vector = vector_of(text) if hybrid else None
            expected = here.search(text, source_filter=prefix, limit=20, embedding=vector)
            got = in_postgres.search(text, source_filter=prefix, limit=20, embedding=vector)
            assert expected == got, (text, prefix)
            seen += len(got)
    assert seen > 100


def test_collections_of_one_database_know_nothing_of_each_other(postgres: str) -> None:
    """Two projects on one server: neither finds, changes nor removes the other's documents."""
    database = Database(postgres, pool_size=2)
    one, other = (PostgresKnowledge(database, collection=name) for name in ("one", "other"))
    one.replace_documents([document("a.md", "lease")])
    other.replace_documents([document("a.md", "queue")])
    assert ([], ["a.md#0"]) == (one.search("queue"), places(one.search("lease")))
    assert ["a.md"] == other.remove_documents_except([])
    assert ["a.md#0"] == places(one.search("lease"))
    assert 1 == len(one.without_embedding("m", limit=9))
    database.close()


def test_without_pgvector_chunks_are_found_by_words_after_one_warning(
    postgres: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the vectors are kept for the day it is installed."""
    monkeypatch.setattr("heartbit.stores.memories.vectors.OLDEST", (99,))
    made = PostgresKnowledge(Database(postgres, pool_size=1))
    made.replace_documents([document("a", "lease", "beta")])
    lease = vector_of("lease")
    with caplog.at_level(logging.WARNING):
        made.embed([(each, lease) for each in made.without_embedding("hash", limit=9)])
        for _ in range(2):
            assert ["a#0"] == places(made.search("lease", embedding=lease))
    assert ["no pgvector" in record.message for record in caplog.records] == [True]
    made.close()
    monkeypatch.undo()
    later = PostgresKnowledge(Database(postgres, pool_size=1))
    assert {"a#0", "a#1"} == set(places(later.search("lease", embedding=lease)))
    later.close()


def test_a_database_that_cannot_have_pgvector_finds_chunks_by_words_after_one_warning(
    postgres_without_vectors: str, caplog: pytest.LogCaptureFixture
) -> None:
    """For a role that may not add it."""
    made = PostgresKnowledge(Database(postgres_without_vectors, pool_size=1))
    made.replace_documents([document("a", "lease", "beta")])
    lease = vector_of("lease")
    with caplog.at_level(logging.WARNING):
        made.prepare_model("hash", 32)
        made.embed([(each, lease) for each in made.without_embedding("hash", limit=9)])
        for _ in range(2):
            assert ["a#0"] == places(made.search("lease", embedding=lease))
    made.close()
    assert ["no pgvector" in record.message for record in caplog.records] == [True]


@pytest.mark.parametrize("dimension", [3, 384, 1536, 3072, 5000])
def test_vectors_of_any_length_can_be_kept_and_compared(
    in_postgres: PostgresKnowledge, dimension: int
) -> None:
    """A model's dimension is its own; what pgvector cannot index is compared without an index."""
    in_postgres.prepare_model("m", dimension)
    in_postgres.prepare_model("m", dimension)
    in_postgres.replace_documents([document("a", "lease", "queue")])
    lease, queue = in_postgres.without_embedding("m", limit=9)
    vector = vector_of("lease", dimension=dimension, model="m")
    in_postgres.embed([(lease, vector), (queue, vector_of("lease", dimension=7, model="m"))])
    assert ["a#0"] == places(in_postgres.search("nothing", embedding=vector))


def test_a_search_can_be_part_of_a_transaction(
    in_postgres: PostgresKnowledge, postgres: str
) -> None:
    """Bound to a connection, a store sees what that has written, and leaves it to be undone."""
    with psycopg.connect(postgres) as connection:
        bound = in_postgres.bound_to(connection)
        bound.replace_documents([document("a", "lease")])
        embed_all(bound)
        assert ["a#0"] == places(bound.search("lease", embedding=vector_of("lease")))
        assert [] == in_postgres.search("lease")
        connection.rollback()
    assert [] == in_postgres.documents()


def test_documents_are_replaced_all_at_once_whoever_reads_meanwhile(
    in_postgres: PostgresKnowledge,
) -> None:
    """Two who index the same documents, and one who searches, never see half of one."""
    batches = [
        [document(f"d{n}", *[f"lease {turn}"] * (3 + turn)) for n in range(6)] for turn in range(2)
    ]
    in_postgres.replace_documents(batches[0])
    problems: list[object] = []

    def write(order: int) -> None:
        try:
            for turn in range(8):
                in_postgres.replace_documents(batches[(turn + order) % 2][:: 1 - 2 * order])
        except Exception as error:
            problems.append(error)

    def read() -> None:
        for _ in range(20):
            found = in_postgres.search("lease", source_filter="d3", limit=20)
            if (len(found), len({each.text for each in found})) not in ((3, 1), (4, 1)):
                problems.append(found)

    threads = [threading.Thread(target=write, args=[order]) for order in range(2)]
    threads.append(threading.Thread(target=read))
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [] == problems


@pytest.mark.slow
def test_a_search_in_ten_thousand_chunks_is_quick(store: KnowledgeStore) -> None:
    """In the median of some: far below what a person or a model notices."""
    texts = [each.chunks[0].text for each in many(100)]
    store.replace_documents(
        [
            document(f"d{n:03}", *(f"{texts[(n + k) % 100]} w{n}x{k}" for k in range(50)))
            for n in range(200)
        ]
    )
    took = []
    for number in range(11):
        start = time.perf_counter()
        assert 5 == len(store.search(f"lease queue w7x{number}"))
        took.append(time.perf_counter() - start)
    assert sorted(took)[5] < 0.25
