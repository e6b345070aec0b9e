"""What every memory store does: one suite over the one in this process and the one in Postgres."""

from __future__ import annotations

import json
import logging
import random
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from heartbit.core.memory import MemoryQuery, Namespace, Recalled, Weights
from heartbit.core.terms import MAX_QUERY_TERMS
from heartbit.errors import MemoryStoreError
from heartbit.stores.database import Database
from heartbit.stores.memories import postgres as postgres_memories
from heartbit.stores.memories.base import MemoryStore
from heartbit.stores.memories.exchange import as_object, from_lines
from heartbit.stores.memories.in_memory import InMemoryMemories
from heartbit.stores.memories.postgres import PostgresMemories
from tests.support.memories import ME, many, new, vector_of

ANYTHING = "\0 \ud800 \U0001f40d é % _ ' {x}"
WHOSE = {"tenant_id": ME.tenant_id, "user_id": ME.user_id}
OTHERS = [
    replace(ME, agent="write"),
    replace(ME, agent="writer:x"),
    replace(ME, tenant_id="t2"),
    replace(ME, tenant_id=None),
    replace(ME, user_id="u2"),
    replace(ME, user_id=None),
]


@pytest.fixture(params=["in_memory", "postgres"])
def store(request: pytest.FixtureRequest) -> Iterator[MemoryStore]:
    """An empty store of each kind."""
    if request.param == "in_memory":
        yield InMemoryMemories()
        return
    made = PostgresMemories(Database(request.getfixturevalue("postgres"), pool_size=2))
    yield made
    made.close()


@pytest.fixture
def in_postgres(postgres: str) -> Iterator[PostgresMemories]:
    """An empty store in Postgres."""
    made = PostgresMemories(Database(postgres, pool_size=4))
    yield made
    made.close()


def query(text: str = "", **conditions: Any) -> MemoryQuery:
    """A query of the writer's."""
    mine = {"tenant_id": ME.tenant_id, "user_id": ME.user_id, "agent": ME.agent}
    return MemoryQuery(text=text, **mine | conditions)


def ids(found: list[Recalled]) -> list[str]:
    """Which memories were recalled, in order."""
    return [each.memory.id for each in found]


def given(**values: str) -> str:
    """A line of an export with these fields, as JSON each."""
    fields = {"agent": '"a"', "id": '"i"', "content": '"c"'} | values
    said = [f'"{name}": {value}' for name, value in fields.items()]
    return f"{{{', '.join(said)}}}"


def ago(**time: float) -> datetime:
    """A moment before now."""
    return datetime.now(UTC) - timedelta(**time)


def test_a_memory_comes_back_as_it_was_whatever_its_text(store: MemoryStore) -> None:
    """NUL, half characters and what SQL or LIKE would read into it."""
    put = new(
        "a",
        ANYTHING,
        summary=ANYTHING,
        keywords=(ANYTHING,),
        tags=(ANYTHING,),
        category=ANYTHING,
        memory_type="reflection",
        importance=7,
        strength=0.5,
        related_ids=("b",),
        source_ids=("c",),
        confidentiality="internal",
        created_at=ago(hours=2),
        last_accessed=ago(hours=1),
        access_count=3,
    )
    store.store(put)
    [got] = store.get(ME, ["a"])
    for name in set(put.__slots__):
        assert getattr(put, name) == getattr(got, name), name
    assert ["a"] == ids(store.recall(query("", tags=(ANYTHING,), category=ANYTHING)))


def test_importance_and_strength_are_kept_within_their_ranges(store: MemoryStore) -> None:
    """Whatever a model says."""
    store.store(new("a", importance=99, strength=7))
    [got] = store.get(ME, ["a"])
    assert (10, 1.0) == (got.importance, got.strength)


def test_a_new_memory_is_of_now_and_was_never_accessed(store: MemoryStore) -> None:
    """By the store's clock."""
    store.store(new("a"))
    [got] = store.get(ME, ["a"])
    assert (0, got.created_at) == (got.access_count, got.last_accessed)
    assert abs(got.created_at - datetime.now(UTC)) < timedelta(minutes=1)


def test_many_are_stored_or_none(store: MemoryStore) -> None:
    """An import that fails in the middle has changed nothing."""
    store.store(new("c", namespace=replace(ME, agent="write")))
    with pytest.raises(MemoryStoreError):
        store.store_all([new("a"), new("b"), new("c")])
    assert [] == store.get(ME, ["a", "b"])
    assert 2 == store.store_all(new(id_) for id_ in "ab")
    assert 2 == len(store.get(ME, ["a", "b"]))


def test_an_export_is_imported_as_it_was(store: MemoryStore) -> None:
    """Whatever is in it, links, strength and accesses included."""
    for memory in many(40):
        store.store(replace(memory, content=f"{ANYTHING} {memory.content}"))
    store.recall(query("journal worker"))
    before = [*store.export(tenant_id="t", user_id="u")]
    lines = [json.dumps(as_object(each)) for each in before]
    other = InMemoryMemories()
    assert len(before) == other.store_all(from_lines([*lines, "", "\n"])) > 9
    assert before == [*other.export(tenant_id="t", user_id="u")]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("no json", "Line 2 is no memory: Expecting value"),
        ("[]", "Line 2 is no memory: it is no JSON object"),
        ('{"agent": "a"}', "Line 2 is no memory: id: Field required"),
        ('{"agent": "a", "id": "i", "content": "c", "x": 1}', "x: Unexpected"),
        ('{"agent": "a", "id": "i", "content": "c", "importance": "much"}', "importance: Input"),
        ('{"id": "i", "content": "c"}', "agent: Input"),
        ("[" * 100_000, "Line 2 is no memory: it is nested too deeply"),
        (given(strength="NaN"), "strength: Input should be a finite number"),
        (given(strength="Infinity"), "strength: Input should be a finite number"),
        (given(created_at='"2026-01-02T03:04:05"'), "created_at: Input should have timezone"),
        (given(last_accessed='"2026-01-02"'), "last_accessed: Input should have timezone"),
        (given(created_at='"0001-01-01T00:00:00+14:00"'), "created_at: Input should be greater"),
        (given(access_count="-1"), "access_count: Input should be greater"),
        (given(access_count="2147483648"), "access_count: Input should be less"),
        (given(id=f'"{"i" * 9_000}"'), "id: String should have at most"),
        (given(related_ids=f'["{"i" * 9_000}"]'), "related_ids.0: String should have at most"),
        (given(source_ids=f'["{"i" * 9_000}"]'), "source_ids.0: String should have at most"),
        (given(agent=f'"{"i" * 9_000}"'), "namespace: the name of its agent has more than"),
        (given(user_id=f'"{"é" * 400}"'), "namespace: the name of its user has more than"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_line_that_is_no_memory_is_named_with_its_reason(line: str, why: str) -> None:
    """A person can mend the file, before any database has seen it."""
    with pytest.raises(MemoryStoreError, match=re.escape(why)):
        [*from_lines(["", line])]


@pytest.mark.parametrize("charset", ["latin-1", "utf-16"])
def test_bytes_that_are_no_utf_8_are_named_with_their_line(charset: str) -> None:
    """What another program has written the file in, nobody guesses."""
    line = given(content='"Café"')
    with pytest.raises(MemoryStoreError, match=r"^Line 1 is no memory: it is not in UTF-8\.$"):
        [*from_lines(f"{line}\n".encode(charset).splitlines(keepends=True))]


def test_a_mark_at_the_beginning_of_a_file_is_no_part_of_it() -> None:
    """Editors on Windows put one there."""
    lines = [f"{given(content=chr(34) + 'Café' + chr(34))}\r\n".encode("utf-8-sig"), b"\r\n"]
    assert ["Café"] == [each.content for each in from_lines(lines)]


def test_the_longest_names_that_an_import_takes_can_be_stored(store: MemoryStore) -> None:
    """Each has a place in the indexes, whatever its characters are."""
    chance = random.Random(7)  # what repeats itself takes less space

    def name(length: int) -> str:
        return "".join(chr(chance.randrange(0x20000, 0x2A000)) for _ in range(length))

    whose = {"agent": name(150), "tenant_id": name(150), "user_id": name(150)}
    line = {"id": name(200), "content": "lease", "related_ids": [name(200)]} | whose
    assert 1 == store.store_all(from_lines([json.dumps(line)]))
    assert [line["id"]] == ids(store.recall(query("lease", **whose)))


def test_those_who_wait_for_their_turn_see_what_was_stored_before(store: MemoryStore) -> None:
    """The second one reads after the first one's transaction, however early it asks."""
    seen: list[list[str]] = []
    asked = threading.Event()

    def second() -> None:
        asked.set()
        with store.in_turn(ME) as mine:
            seen.append([each.id for each in mine.get(ME, ["a"])])

    thread = threading.Thread(target=second)
    with store.in_turn(ME) as mine:
        mine.store(new("a"))
        thread.start()
        assert asked.wait(30)
        thread.join(0.2)  # it may not come to its end; one that does has not waited
        assert [] == seen
    thread.join()
    assert [["a"]] == seen


def test_storing_again_replaces_what_is_said_and_keeps_the_age(store: MemoryStore) -> None:
    """The same id in the same namespace."""
    store.store(new("a", "queue", created_at=ago(days=2)))
    [before] = store.get(ME, ["a"])
    store.store(new("a", "lease"))
    [after] = store.get(ME, ["a"])
    assert ("lease", before.created_at) == (after.content, after.created_at)
    assert [] == store.recall(query("queue"))


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_an_agent_named_write_never_touches_writer(store: MemoryStore, other: Namespace) -> None:
    """Nor does any other namespace: not by reading, changing, linking, deleting or pruning."""
    store.store(new("a", created_at=ago(days=99)))
    store.store(new("b"))
    where = {"tenant_id": other.tenant_id, "user_id": other.user_id, "agent": other.agent}
    assert [] == store.recall(query("late acks", **where))
    assert [] == store.get(other, ["a"])
    assert not store.update(other, "a", "x")
    assert not store.forget(other, "a")
    assert not store.link(other, "a", "b")
    assert [] == store.consolidate(new("c", namespace=other), ["a", "b"])
    assert 0 == store.prune(namespace=other)
    assert 2 == len(store.get(ME, ["a", "b"]))


def test_an_id_of_somebody_else_in_the_tenant_is_refused(store: MemoryStore) -> None:
    """And theirs stays as it was; another tenant may use it."""
    store.store(new("a", "mine"))
    with pytest.raises(MemoryStoreError, match="somebody else"):
        store.store(new("a", "yours", namespace=replace(ME, agent="write")))
    store.store(new("a", "far away", namespace=replace(ME, tenant_id="t2")))
    assert ["mine"] == [each.content for each in store.get(ME, ["a"])]


def test_a_recall_finds_whole_words_and_ranks_rare_ones_first(store: MemoryStore) -> None:
    """`art` does not match `start`, and % and _ mean nothing."""
    store.store(new("common", "the queue and the worker"))
    store.store(new("common2", "the queue and the broker"))
    store.store(new("rare", "the queue and the chord"))
    store.store(new("start", "start"))
    assert "rare" == ids(store.recall(query("queue chord")))[0]
    assert [] == store.recall(query("art"))
    assert [] == store.recall(query("% _ %%"))


def test_a_megabyte_is_remembered_and_may_be_asked_for(store: MemoryStore) -> None:
    """Whatever is in it, and by its own text."""
    text = f"é\0\ud800 {' '.join(f'w{number}' for number in range(150_000))}"
    assert len(text) > 1_000_000
    store.store(new("a", text))
    store.store(new("b", "w1 w149999"))
    assert [text] == [each.content for each in store.get(ME, ["a"])]
    assert {"a", "b"} == set(ids(store.recall(query("w149999"))))
    assert {"a", "b"} == set(ids(store.recall(query(text))))


def test_the_first_terms_of_a_long_query_are_searched_for(store: MemoryStore) -> None:
    """The same ones in every store."""
    words = [f"w{number}" for number in range(MAX_QUERY_TERMS + 1)]
    store.store(new("last", words[-2]))
    store.store(new("beyond", words[-1]))
    assert ["last"] == ids(store.recall(query(" ".join(words))))


def test_a_keyword_is_found_like_a_word(store: MemoryStore) -> None:
    """In every store."""
    store.store(new("a", "something", keywords=("Lease time",)))
    assert ["a"] == ids(store.recall(query("lease")))


def test_a_memory_is_found_by_its_meaning_alone(store: MemoryStore) -> None:
    """No word in common is needed; vectors of other models are not compared."""
    store.store(new("near", "alpha"), vector_of("lease"))
    store.store(new("other", "beta"), vector_of("lease", model="another"))
    store.store(new("short", "gamma"), vector_of("lease", dimension=8))
    assert ["near"] == ids(store.recall(query("lease"), embedding=vector_of("lease")))
    assert [] == store.recall(query("lease"))


def test_the_weight_of_a_vector_decides_between_words_and_meaning(store: MemoryStore) -> None:
    """The best match by words comes first, or the best one by meaning."""
    store.store(new("said", "lease lease"), vector_of("alpha"))
    store.store(new("meant", "alpha beta"), vector_of("lease"))
    asked = vector_of("lease")
    for weight, expected in ((0.1, "said"), (9.0, "meant")):
        [first, _] = store.recall(query("lease"), embedding=replace(asked, weight=weight))
        assert expected == first.memory.id


def test_others_memories_never_crowd_out_ones_own(store: MemoryStore) -> None:
    """Candidates of both rankings are taken inside the filters, however many others fit better."""
    for number in range(150):
        other = new(f"o{number:03}", "lease lease", namespace=replace(ME, agent="write"))
        store.store(other, vector_of("lease lease"))
    store.store(new("mine", "alpha lease beta gamma"), vector_of("alpha lease beta gamma"))
    assert ["mine"] == ids(store.recall(query("lease"), embedding=vector_of("lease")))


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, ["a", "b"]),
        ({"category": "procedure"}, ["b"]),
        ({"tags": ("x", "y")}, ["a"]),
        ({"memory_type": "semantic"}, ["b"]),
        ({"min_strength": 0.5}, ["a"]),
        ({"max_confidentiality": "internal"}, ["a"]),
        ({"limit": 1}, ["a"]),
        ({"limit": 0}, ["a", "b"]),
    ],
    ids=str,
)
@pytest.mark.parametrize("text", ["", "late"])
def test_each_condition_holds_for_what_is_recalled(
    store: MemoryStore, text: str, conditions: dict[str, Any], expected: list[str]
) -> None:
    """With words and without."""
    store.store(new("a", tags=("y", "z"), importance=9))
    store.store(
        new(
            "b",
            category="procedure",
            memory_type="semantic",
            strength=0.4,
            confidentiality="confidential",
        )
    )
    assert expected == ids(store.recall(query(text, **conditions)))


NONE = {"recency": 0.0, "importance": 0.0, "relevance": 0.0, "strength": 0.0}


@pytest.mark.parametrize(
    ("weight", "text"),
    [
        (weight, text)
        for weight in NONE
        for text in ("", "lease")
        if (weight, text) != ("relevance", "")
    ],
)
def test_the_weight_of_a_part_decides_what_is_recalled_first(
    store: MemoryStore, weight: str, text: str
) -> None:
    """With words and without; the one memory that has more of that part comes first."""
    old = {"importance": 1, "strength": 0.2, "created_at": ago(days=30), "last_accessed": ago()}
    filler = "queue worker broker turn tool"
    store.store(new("recency", f"lease {filler}", **old | {"created_at": ago()}))
    store.store(new("importance", f"lease {filler}", **old | {"importance": 10}))
    store.store(new("relevance", "lease", **old))
    store.store(new("strength", f"lease {filler}", **old | {"strength": 1.0}))
    found = store.recall(query(text), weights=Weights(**NONE | {weight: 1.0}))
    assert 4 == len(found)
    assert weight == found[0].memory.id
    assert pytest.approx(1.0, abs=0.01) == found[0].score
    assert found[1].score < 0.9


def test_a_recall_reinforces_what_it_gives_and_nothing_else(store: MemoryStore) -> None:
    """Access count, time and strength; a look-up inside changes none."""
    for id_, text in (("a", "queue"), ("b", "lease")):
        store.store(new(id_, text, strength=0.5, created_at=ago(hours=10)))
    store.recall(query("queue"), reinforce=False)
    store.get(ME, ["a"])
    assert [0, 0] == [each.access_count for each in store.get(ME, ["a", "b"])]
    [before] = store.recall(query("queue"))
    first, second = store.get(ME, ["a", "b"])
    assert 0.5 == before.memory.strength
    assert (1, 0) == (first.access_count, second.access_count)
    assert first.last_accessed > second.last_accessed
    assert 0.5 * 0.951229 + 0.2 == pytest.approx(first.strength, abs=1e-4)
    assert 0.5 == second.strength


def test_what_is_linked_to_a_match_is_recalled_with_it_inside_the_filters(
    store: MemoryStore,
) -> None:
    """Half as relevant; links out of the filters are not followed."""
    store.store(new("match", "queue", importance=5))
    store.store(new("linked", "something", importance=5))
    store.store(new("secret", "something", confidentiality="restricted"))
    assert store.link(ME, "match", "linked")
    assert store.link(ME, "match", "linked")
    assert store.link(ME, "match", "secret")
    assert not store.link(ME, "match", "match")
    assert not store.link(ME, "match", "unknown")
    found = store.recall(query("queue", max_confidentiality="internal"))
    assert [("match", 1.0), ("linked", 0.5)] == [(x.memory.id, x.relevance) for x in found]
    assert (("match",),) == tuple(each.related_ids for each in store.get(ME, ["linked"]))


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_a_link_into_another_namespace_is_not_followed(
    store: MemoryStore, other: Namespace
) -> None:
    """An import can have one: whatever it names, a recall stays inside of its filters."""
    store.store(new("foreign", "something", namespace=other))
    store.store(new("match", "queue", related_ids=("foreign",)))
    for vector in (None, vector_of("queue")):
        assert ["match"] == ids(store.recall(query("queue"), embedding=vector))
    where = {"tenant_id": other.tenant_id, "user_id": other.user_id, "agent": other.agent}
    assert [] == store.recall(query("queue", **where))


def test_what_is_linked_to_matches_leaves_their_relevance_as_it_was(store: MemoryStore) -> None:
    """By words and meaning together; what is linked to two has half of the better one's."""
    for id_, text in (("a", "queue worker"), ("b", "queue"), ("c", "worker lease turn tool")):
        store.store(new(id_, text), vector_of(text))
    asked = vector_of("queue worker")
    store.store(new("linked", "something"))
    before = {
        each.memory.id: each.relevance
        for each in store.recall(query("queue worker"), embedding=asked)
    }
    assert ["a", "b", "c"] == sorted(before, key=lambda id_: -before[id_])
    assert 1.0 == before["a"] > before["b"] > before["c"] > 0
    for id_ in "bc":
        store.link(ME, id_, "linked")
    found = store.recall(query("queue worker"), embedding=asked)
    expected = before | {"linked": pytest.approx(before["b"] / 2)}
    assert expected == {each.memory.id: each.relevance for each in found}


def test_an_update_changes_what_a_memory_is_found_by(store: MemoryStore) -> None:
    """Its words, keywords, summary and vector: nothing that was said before finds it."""
    before = new("a", "queue", keywords=("old",), summary="A broker.", importance=9)
    store.store(before, vector_of("queue"))
    assert store.update(ME, "a", "lease", embedding=vector_of("lease"))
    for word in ("queue", "old", "broker"):
        assert [] == store.recall(query(word))
    assert ["a"] == ids(store.recall(query("nothing"), embedding=vector_of("lease")))
    assert store.update(ME, "a", "turn", keywords=["new"], summary="A retry.")
    for word in ("turn", "new", "retry"):
        assert ["a"] == ids(store.recall(query(word)))
    assert [] == store.recall(query("nothing"), embedding=vector_of("lease"))
    [got] = store.get(ME, ["a"])
    assert (("new",), "A retry.", 9) == (got.keywords, got.summary, got.importance)
    assert not store.update(ME, "unknown", "x")


def test_a_forgotten_memory_leaves_no_links(store: MemoryStore) -> None:
    """An unknown one is told apart."""
    for id_ in "ab":
        store.store(new(id_))
    store.link(ME, "a", "b")
    assert store.forget(ME, "b")
    assert not store.forget(ME, "b")
    assert [()] == [each.related_ids for each in store.get(ME, ["a"])]


def test_consolidation_never_makes_anything_public(store: MemoryStore) -> None:
    """One memory takes the place of several, with their links, as secret as the strictest."""
    for id_, level in (("a", "public"), ("b", "confidential"), ("c", "internal")):
        store.store(new(id_, confidentiality=level))
    store.store(new("friend"))
    store.link(ME, "a", "friend")
    gone = store.consolidate(new("new", "both", memory_type="semantic"), ["b", "a", "b", "x"])
    assert ["b", "a"] == gone
    made, friend = store.get(ME, ["new", "friend"])
    assert ("confidential", ("b", "a")) == (made.confidentiality, made.source_ids)
    assert (("friend",), ("new",)) == (made.related_ids, friend.related_ids)
    assert [] == store.get(ME, ["a", "b"])


def test_a_consolidated_memory_may_have_the_id_of_one_of_its_sources(store: MemoryStore) -> None:
    """It stays, and the others go."""
    for id_ in "ab":
        store.store(new(id_))
    store.store(new("friend", related_ids=("b",)))
    assert ["a", "b"] == store.consolidate(new("a", "both"), ["a", "b"])
    left = {each.id: (each.content, each.related_ids) for each in store.export(**WHOSE)}
    assert {"a": ("both", ()), "friend": ("Late acks.", ("a",))} == left


def test_consolidation_of_fewer_than_two_changes_nothing(store: MemoryStore) -> None:
    """Nothing half-done."""
    store.store(new("a"))
    assert ["a"] == store.consolidate(new("new"), ["a", "x"])
    assert ["a"] == [each.id for each in store.get(ME, ["a", "new"])]


def test_pruning_goes_by_the_strength_of_now(store: MemoryStore) -> None:
    """A memory that was stored at full strength and never recalled fades in 19 days."""
    store.store(new("faded", created_at=ago(hours=470)))
    store.store(new("fading", created_at=ago(hours=440)))
    store.store(new("weak but new", strength=0.01))
    store.store(new("friend", related_ids=("faded",)))
    assert 1 == store.prune()
    left = {each.id: each.related_ids for each in store.export(tenant_id="t", user_id="u")}
    assert {"fading": (), "friend": (), "weak but new": ()} == left


def test_pruning_in_a_namespace_leaves_the_others_alone(store: MemoryStore) -> None:
    """By its whole name."""
    for number, where in enumerate([ME, *OTHERS]):
        store.store(new(f"m{number}", namespace=where, created_at=ago(days=99)))
    assert 1 == store.prune(namespace=ME)
    assert len(OTHERS) == store.prune()


def test_an_export_has_everything_of_a_user_by_id(store: MemoryStore) -> None:
    """Of all agents, or of one."""
    for number in range(1_005):
        agent = "writer" if number % 2 else "write"
        store.store(new(f"m{number:04}", namespace=replace(ME, agent=agent)))
    store.store(new("other", namespace=replace(ME, user_id="u2")))
    assert [f"m{n:04}" for n in range(1_005)] == [
        each.id for each in store.export(tenant_id="t", user_id="u")
    ]
    assert 502 == len(list(store.export(tenant_id="t", user_id="u", agent="writer")))


def test_what_was_remembered_since_the_last_reflection_adds_up(store: MemoryStore) -> None:
    """In one namespace, until something is made of it."""
    assert 0 == store.unreflected(ME)
    store.store(new("a", importance=9, created_at=ago(hours=3)))
    store.store(new("b", importance=4, created_at=ago(hours=1)))
    store.store(new("c", importance=8, namespace=replace(ME, agent="write")))
    assert 13 == store.unreflected(ME)
    store.store(new("d", memory_type="semantic", created_at=ago(hours=2)))
    assert 4 == store.unreflected(ME)


def test_another_model_embeds_again_what_has_not_changed_since(store: MemoryStore) -> None:
    """Switching the model, or its dimension, never breaks anything that is stored."""
    store.store(new("a", "lease"), vector_of("lease"))
    store.store(new("b", "queue"))
    assert ["b"] == [each.id for each in store.without_embedding("hash", limit=9)]
    todo = store.without_embedding("better", limit=9)
    assert ["a", "b"] == [each.id for each in todo]
    store.update(ME, "b", "changed meanwhile")
    again = [(each, vector_of(each.content, model="better", dimension=48)) for each in todo]
    assert 1 == store.embed(again)
    assert ["b"] == [each.id for each in store.without_embedding("better", limit=9)]
    new_vector = vector_of("lease", model="better", dimension=48)
    assert ["a"] == ids(store.recall(query("nothing"), embedding=new_vector))


def test_what_has_no_vector_can_be_looked_through_in_parts(store: MemoryStore) -> None:
    """In the order of the ids, whoever they belong to."""
    for number in range(7):
        whose = replace(ME, agent=f"a{number % 2}")
        store.store(new(f"m{number}", "lease", namespace=whose))
    store.store(new("x", "lease"), vector_of("lease"))
    assert 7 == store.unembedded("hash")
    assert ["m0", "m1", "m2"] == [each.id for each in store.without_embedding("hash", limit=3)]
    rest = store.without_embedding("hash", limit=9, after="m2")
    assert ["m3", "m4", "m5", "m6"] == [each.id for each in rest]
    assert 8 == store.unembedded("has")


INDEXES = "select indexname from pg_indexes where indexname like 'memories_vector%' order by 1"


def test_an_index_is_made_for_many_vectors_and_dropped_with_the_last_of_them(
    in_postgres: PostgresMemories, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that is used no more costs nothing."""
    monkeypatch.setattr(postgres_memories, "INDEX_FROM", 2)

    def indexes(model: str) -> list[str]:
        in_postgres.tend_indexes(model)
        with psycopg.connect(postgres) as connection:
            return [name for (name,) in connection.execute(INDEXES).fetchall()]

    def embed(count: int) -> None:
        todo = in_postgres.without_embedding("new", limit=count)
        in_postgres.embed([(each, vector_of("lease", model="new")) for each in todo])

    in_postgres.store(new("a", "lease"), vector_of("lease", model="old"))
    assert [] == indexes("old")
    in_postgres.store(new("b", "queue"), vector_of("queue", model="old"))
    assert ["memories_vector_old/32"] == indexes("old")
    embed(1)
    assert ["memories_vector_old/32"] == indexes("new")
    embed(1)
    assert ["memories_vector_new/32"] == indexes("new")


def test_models_with_long_names_have_indexes_of_their_own(
    in_postgres: PostgresMemories, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL cuts names after 63 bytes."""
    monkeypatch.setattr(postgres_memories, "INDEX_FROM", 1)
    models = ["organisation/" + "x" * 60 + end for end in "ab"]
    for id_, model in zip("ab", models, strict=True):
        in_postgres.store(new(id_, "lease"), vector_of("lease", model=model))
        in_postgres.tend_indexes(model)
    with psycopg.connect(postgres) as connection:
        assert 2 == len(connection.execute(INDEXES).fetchall())


def test_an_index_that_was_not_finished_is_made_anew(
    in_postgres: PostgresMemories, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever made it was killed: it is there, but nobody may use it."""
    monkeypatch.setattr(postgres_memories, "INDEX_FROM", 1)
    in_postgres.store(new("a", "lease"), vector_of("lease"))
    in_postgres.tend_indexes("hash")
    invalid = """
        update pg_index set indisvalid = false
         where indexrelid = '"memories_vector_hash/32"'::regclass
    """
    valid = (
        "select indisvalid from pg_index where indexrelid = '\"memories_vector_hash/32\"'::regclass"
    )
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(invalid)
        in_postgres.tend_indexes("hash")
        assert [(True,)] == connection.execute(valid).fetchall()


@pytest.mark.parametrize("hybrid", [False, True])
def test_both_stores_recall_the_same_memories_in_the_same_order(
    in_postgres: PostgresMemories, hybrid: bool
) -> None:
    """On 300 memories of several namespaces, whatever is asked."""
    here = InMemoryMemories()
    for memory in many(300):
        for store in (here, in_postgres):
            store.store(memory, vector_of(memory.content) if hybrid else None)
    seen = 0
    for text in ("", "lease", "queue worker", "journal retry crash", "nothing of this", "the"):
        for more in ({}, {"agent": None}, {"tags": ("a",)}, {"max_confidentiality": "internal"}):
            asked = query(text, limit=20, **more)
            vector = vector_of(text) if hybrid else None
            expected = here.recall(asked, embedding=vector)
            got = in_postgres.recall(asked, embedding=vector)
            assert ids(expected) == ids(got), asked
            assert [x.score for x in expected] == pytest.approx([x.score for x in got], abs=1e-5)
            seen += len(got)
    assert seen > 100


@pytest.mark.parametrize("dimension", [3, 384, 1536, 3072, 5000])
def test_vectors_of_any_length_can_be_stored_and_compared(
    in_postgres: PostgresMemories, dimension: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What pgvector cannot index is compared without an index."""
    monkeypatch.setattr(postgres_memories, "INDEX_FROM", 1)
    vector = vector_of("lease", dimension=dimension, model="m")
    in_postgres.store(new("a"), vector)
    in_postgres.store(new("b"), vector_of("lease", dimension=7, model="m"))
    in_postgres.tend_indexes("m")
    in_postgres.tend_indexes("m")
    assert ["a"] == ids(in_postgres.recall(query("nothing"), embedding=vector))


def test_without_pgvector_memories_are_found_by_words_after_one_warning(
    postgres: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the vectors are kept for the day it is installed."""
    monkeypatch.setattr("heartbit.stores.memories.vectors.OLDEST", (99,))
    made = PostgresMemories(Database(postgres, pool_size=1))
    with caplog.at_level(logging.WARNING):
        made.store(new("a", "lease"), vector_of("lease"))
        made.store(new("b", "beta"), vector_of("lease"))
        for _ in range(2):
            assert ["a"] == ids(made.recall(query("lease"), embedding=vector_of("lease")))
    assert ["no pgvector" in record.message for record in caplog.records] == [True]
    made.close()
    monkeypatch.undo()
    later = PostgresMemories(Database(postgres, pool_size=1))
    assert {"a", "b"} == set(ids(later.recall(query("lease"), embedding=vector_of("lease"))))
    later.close()


def test_a_database_that_cannot_have_pgvector_finds_memories_by_words_after_one_warning(
    postgres_without_vectors: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Everything else works as anywhere, indexes over vectors included: there are none."""
    refused = pytest.raises(psycopg.errors.InsufficientPrivilege)
    with psycopg.connect(postgres_without_vectors) as connection, refused:
        connection.execute("create extension vector")
    made = PostgresMemories(Database(postgres_without_vectors, pool_size=1))
    with caplog.at_level(logging.WARNING):
        for id_, text in (("a", "lease"), ("b", "beta")):
            made.store(new(id_, text), vector_of("lease"))
        assert made.update(ME, "b", "gamma", embedding=vector_of("lease"))
        for _ in range(2):
            assert ["a"] == ids(made.recall(query("lease"), embedding=vector_of("lease")))
        assert ["a", "b"] == sorted(ids(made.recall(query(""))))
        made.tend_indexes("hash")
    made.close()
    assert ["no pgvector" in record.message for record in caplog.records] == [True]


def test_what_a_transaction_stores_is_gone_with_it(
    in_postgres: PostgresMemories, postgres: str
) -> None:
    """Bound to a connection, a store does everything inside of its transaction."""
    with psycopg.connect(postgres) as connection:
        bound = in_postgres.bound_to(connection)
        bound.store(new("a", "lease"), vector_of("lease"))
        assert ["a"] == ids(bound.recall(query("lease"), embedding=vector_of("lease")))
        assert [] == in_postgres.recall(query("lease"))
        connection.rollback()
    assert [] == in_postgres.recall(query("lease"))


def test_two_who_link_and_forget_the_same_memories_never_wait_in_a_circle(
    in_postgres: PostgresMemories,
) -> None:
    """Rows are locked in the order of their ids."""
    for id_ in "ab":
        in_postgres.store(new(id_))
    errors = []

    def link(one: str, other: str) -> None:
        try:
            for _ in range(50):
                in_postgres.link(ME, one, other)
                in_postgres.recall(query("late acks"))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=link, args=pair) for pair in ("ab", "ba", "ab")]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [] == errors
