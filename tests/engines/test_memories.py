"""What an engine does for memories by itself: kept together with the event, or not at all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from heartbit import Agent, Orchestrator
from heartbit.core.agent import ContextStrategy, MemoryPolicy
from heartbit.core.events import ContextSummarised, Event, MemoriesConsolidated, RunFinished
from heartbit.core.memory import Namespace
from heartbit.core.messages import Completion, TextPart, ToolResult, Usage
from heartbit.core.request import ModelRequest
from heartbit.errors import JournalUnavailable, Overloaded, RunError
from heartbit.providers.scripted import Reply, ScriptedProvider, call
from heartbit.stores.memories.base import MemoryStore
from heartbit.stores.memories.in_memory import InMemoryMemories
from heartbit.stores.memories.postgres import PostgresMemories
from heartbit.testing import HashEmbedder
from heartbit.tools.memory import Memories, memory_tools
from tests.support.memories import new
from tests.support.parity import make_tool
from tests.support.workshop import Workshop, execute, workshop

SOLO = Namespace(agent="solo")
SHORT = "A customer in Lyon who speaks French."
LONG = "The parcel 4711 lies in the depot of Lyon since Monday. "
READ = make_tool("read", lambda: LONG * 12)
TIDY = MemoryPolicy(consolidate_on_exit=True)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the memories of a test are, and the database that is in."""

    store: MemoryStore
    database: str | None

    def contents(self) -> list[str]:
        """What is remembered, in the order of the texts."""
        return sorted(each.content for each in self.store.export())

    def run(self, provider: ScriptedProvider, **options: Any) -> str:
        """The result of a run of an agent that remembers."""
        settings = {"consolidate_on_exit": True, **options}
        orchestrator = Orchestrator(
            provider=provider,
            agents=[Agent(name="solo", description="Does it.", tools=[READ])],
            database_url=self.database,
            memories=Memories(store=self.store, **settings),
        )
        return str(asyncio.run(orchestrator.run("Go.")).result)


@pytest.fixture(params=["in_memory", "postgres"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """Both stores, in one process."""
    if request.param == "in_memory":
        yield Place(store=InMemoryMemories(), database=None)
        return
    url = request.getfixturevalue("postgres")
    store = PostgresMemories.at(url)
    yield Place(store=store, database=url)
    store.close()


@pytest.fixture
def store(postgres: str) -> Iterator[PostgresMemories]:
    """A store in the database that the journal is in."""
    made = PostgresMemories.at(postgres)
    yield made
    made.close()


def fill(store: MemoryStore, **fields: Any) -> None:
    """Two memories that belong together, and one that belongs to nothing."""
    for number, content in enumerate(["They speak French.", "They live in Lyon."]):
        entry = new(f"m{number}", content, keywords=("customer",), **fields)
        store.store(replace(entry, namespace=SOLO))
    store.store(replace(new("m9", "Invoices leave on Fridays."), namespace=SOLO))


def says(request: ModelRequest) -> Reply:
    """Condenses what it is given, or is done."""
    return SHORT if "condense" in request.system else "Done."


def test_putting_memories_together_makes_the_others_no_stronger(place: Place) -> None:
    """Looking them up was no recall."""
    fill(place.store, strength=0.5)
    assert "Done." == place.run(ScriptedProvider(says))
    assert [SHORT, "Invoices leave on Fridays."] == sorted(place.contents(), key=len, reverse=True)
    [left] = [each for each in place.store.export() if each.id == "m9"]
    assert (0, 1.0) == (left.access_count, left.strength)


@pytest.mark.parametrize("level", ["internal", "confidential", "restricted"])
def test_what_is_put_together_is_as_confidential_as_the_strictest(place: Place, level: Any) -> None:
    """It tells what the strictest told."""
    fill(place.store)
    secret = new("m2", "They pay late.", keywords=("customer",), confidentiality=level)
    place.store.store(replace(secret, namespace=SOLO))
    place.run(ScriptedProvider(says))
    [made] = [each for each in place.store.export() if each.content == SHORT]
    assert level == made.confidentiality
    assert ("m0", "m1", "m2") == made.source_ids


def test_memories_of_other_agents_and_users_are_not_touched(place: Place) -> None:
    """An agent `sol` is not `solo`."""
    for number, whose in enumerate(
        [replace(SOLO, agent="sol"), replace(SOLO, user_id="u"), replace(SOLO, tenant_id="t")]
    ):
        for each in "ab":
            entry = new(f"{each}{number}", f"{each} {number}", keywords=("customer",))
            place.store.store(replace(entry, namespace=whose))
    provider = ScriptedProvider(says)
    place.run(provider)
    assert 1 == len(provider.requests)


def test_a_model_that_fails_changes_neither_the_result_nor_the_memories(place: Place) -> None:
    """The journal says why."""
    fill(place.store)

    def reply(request: ModelRequest) -> Reply:
        return Overloaded("The model is away.") if "condense" in request.system else "Done."

    assert "Done." == place.run(ScriptedProvider(reply))
    assert 3 == len(place.contents())


def test_one_cluster_that_fails_keeps_no_other_from_being_put_together(place: Place) -> None:
    """What has been paid for is used."""
    fill(place.store)
    for number in range(2):
        entry = new(f"x{number}", f"An {number}. office.", keywords=("office",))
        place.store.store(replace(entry, namespace=SOLO))

    def reply(request: ModelRequest) -> Reply:
        return Overloaded("Away.") if "office" in request.messages[0].text else says(request)

    place.run(ScriptedProvider(reply))
    found = place.contents()
    assert SHORT in found
    assert 4 == len(found)


def test_a_memory_that_changes_meanwhile_is_not_replaced_by_what_it_said(place: Place) -> None:
    """While the model was asked somebody else has corrected it."""
    fill(place.store)

    def reply(request: ModelRequest) -> Reply:
        if "condense" in request.system:
            place.store.update(SOLO, "m0", "They speak German.")
        return says(request)

    place.run(ScriptedProvider(reply))
    assert "They speak German." in place.contents()
    assert SHORT not in place.contents()


def test_a_run_that_fails_neither_puts_memories_together_nor_forgets_any(place: Place) -> None:
    """Only a run that has succeeded is a session that is over."""
    fill(place.store)
    faded = new("old", "Faded.", strength=0.01, created_at=datetime.now(UTC) - timedelta(days=2))
    place.store.store(replace(faded, namespace=SOLO))
    with pytest.raises(RunError):
        place.run(ScriptedProvider([Overloaded("Away.")]))
    assert 4 == len(place.contents())


def test_faded_memories_are_forgotten_at_the_end_of_a_run(place: Place) -> None:
    """By their strength as it is by now; what is young stays."""
    now = datetime.now(UTC)
    for id_, strength, days in (("old", 0.09, 2), ("strong", 0.5, 2), ("young", 0.01, 0)):
        entry = new(id_, id_, strength=strength, created_at=now - timedelta(days=days))
        place.store.store(replace(entry, namespace=replace(SOLO, agent="other")))
    place.run(ScriptedProvider(["Done."]))
    assert ["strong", "young"] == [each.content for each in place.store.export()]


def test_what_is_put_together_is_found_by_its_meaning(place: Place) -> None:
    """Its vector is that of the new text."""
    fill(place.store)
    place.run(ScriptedProvider(says), embedder=HashEmbedder())
    lacking = place.store.without_embedding(HashEmbedder().model, limit=10)
    assert ["m9"] == [each.id for each in lacking]


def reading(request: ModelRequest) -> Reply:
    """Reads until its context is summarised, and is done then."""
    if "summarise a conversation" in request.system:
        return "It was read."
    parts = [part for message in request.messages for part in message.parts]
    results = [part for part in parts if isinstance(part, ToolResult)]
    is_read = "It was read." in request.messages[0].text
    return "Done." if is_read or len(results) > 3 else call("read")


def summarising(shop_database: str, store: PostgresMemories, **options: Any) -> Any:
    """A worker with a run whose conversation gets a summary."""
    return workshop(
        shop_database,
        [READ],
        say=reading,
        memories=Memories(store=store, **options),
        memory=MemoryPolicy(),
        context_strategy=ContextStrategy(type="summarize", threshold=400),
    )


def until(shop: Workshop, step: str) -> None:
    """Deliver until this step's message is next."""
    while shop.outbox.messages[0][-1] != step:
        shop.deliver()


def kinds(shop: Workshop, kind: type[Event]) -> list[Any]:
    """Events of one kind."""
    return [event for event in shop.events if isinstance(event, kind)]


FULL_DISK = """
    create or replace function full_disk() returns trigger language plpgsql as $$
    begin raise exception using errcode = 'disk_full'; end $$;
    create trigger full_disk before insert on run_events for each row execute function full_disk();
"""


def test_what_tools_gave_is_kept_with_the_summary_or_not_at_all(
    postgres: str, store: PostgresMemories
) -> None:
    """And once, however often that is tried."""
    with summarising(postgres, store) as shop:
        until(shop, "3/summary")
        step = list(shop.outbox.messages)
        execute(postgres, FULL_DISK)
        try:
            with pytest.raises(JournalUnavailable):
                shop.deliver()
        finally:
            execute(postgres, "drop trigger full_disk on run_events")
        assert [] == list(store.export())
        execute(postgres, "update steps set state = 'pending' where step = '3/summary'")
        shop.outbox.messages = step
        shop.deliver_all()
        assert 1 == len(kinds(shop, ContextSummarised))
        [kept] = store.export()
        assert kept.content.startswith(LONG[:40])
        assert "internal" == kept.confidentiality


@pytest.mark.parametrize("batch_seconds", [None, 30.0], ids=["each", "batched"])
def test_memories_of_one_turn_are_linked_to_each_other(
    postgres: str, batch_seconds: float | None
) -> None:
    """Calls side by side, each in a transaction of its own, store one after the other."""
    store = PostgresMemories.at(postgres)
    memories = Memories(store=store)
    calls = [call("memory_store", content=f"Fact {n}.", keywords=["customer"]) for n in range(4)]
    options: Any = {"batch_seconds": batch_seconds, "memories": memories}
    with workshop(postgres, memory_tools(memories), *calls, **options) as shop:
        shop.deliver_all()
    found = list(store.export(agent="solo"))
    store.close()
    assert 4 == len(found)
    for each in found:
        assert {other.id for other in found} - {each.id} == set(each.related_ids)


def test_what_is_remembered_already_is_left_as_it_is(
    postgres: str, store: PostgresMemories
) -> None:
    """The agent may have corrected it since."""
    with summarising(postgres, store) as shop:
        shop.deliver_all()
        [kept] = store.export()
    store.update(SOLO, kept.id, "The parcel has arrived.")
    with summarising(postgres, store) as shop:
        shop.deliver_all()
    assert ["The parcel has arrived."] == [each.content for each in store.export()]


def test_flushed_results_have_vectors(postgres: str, store: PostgresMemories) -> None:
    """Computed before the transaction is opened."""
    with summarising(postgres, store, embedder=HashEmbedder()) as shop:
        shop.deliver_all()
    assert 1 == len(list(store.export()))
    assert [] == store.without_embedding(HashEmbedder().model, limit=5)


def tidying(database: str, store: PostgresMemories, say: Any = says) -> Any:
    """A worker with a run that puts memories together at its end."""
    return workshop(database, [READ], say=say, memories=Memories(store=store), memory=TIDY)


def test_memories_are_put_together_with_the_event_or_not_at_all(
    postgres: str, store: PostgresMemories
) -> None:
    """The attempt after a failed one finds everything as it was."""
    fill(store)
    with tidying(postgres, store) as shop:
        until(shop, "1/memories")
        step = list(shop.outbox.messages)
        execute(postgres, FULL_DISK)
        try:
            with pytest.raises(JournalUnavailable):
                shop.deliver()
        finally:
            execute(postgres, "drop trigger full_disk on run_events")
        assert 3 == len(list(store.export()))
        execute(postgres, "update steps set state = 'pending' where step = '1/memories'")
        shop.outbox.messages = step
        shop.deliver_all()
        assert 1 == len(kinds(shop, MemoriesConsolidated))
        assert "Done." == shop.engine.output(shop.run_id).result
    assert {SHORT, "Invoices leave on Fridays."} == {each.content for each in store.export()}


def test_a_worker_that_is_lost_with_its_memories_each_time_ends_the_run_nevertheless(
    postgres: str, store: PostgresMemories
) -> None:
    """The result stands in the journal long before."""
    fill(store)
    with tidying(postgres, store) as shop:
        until(shop, "1/memories")
        for _ in range(4):
            shop.lose("1/memories")
            shop.runtime.sweep._sweep.once()
            execute(postgres, "update sweeps set at = at - interval '1 minute'")
            if kinds(shop, RunFinished):
                break
        output = shop.engine.output(shop.run_id)
        assert ("succeeded", "Done.") == (output.status, output.result)
        [event] = kinds(shop, MemoriesConsolidated)
        assert "was lost" in event.reason
    assert 3 == len(list(store.export()))


def test_a_late_attempt_counts_what_it_has_used(postgres: str, store: PostgresMemories) -> None:
    """Its memories are undone, its tokens are spent."""
    fill(store)

    def say(request: ModelRequest) -> Reply:
        if "condense" in request.system and not taken:
            taken.append(True)
            execute(
                postgres,
                "update steps set attempt = 2, lease_owner = 'other' where step = '1/memories'",
            )
        text = says(request)
        return Completion(
            parts=(TextPart(text=str(text)),), stop_reason="end_turn", usage=Usage(input_tokens=7)
        )

    taken: list[bool] = []
    with tidying(postgres, store, say) as shop:
        until(shop, "1/memories")
        shop.deliver()
        assert [] == kinds(shop, MemoriesConsolidated)
        assert 14 == shop.engine.output(shop.run_id).usage.input_tokens
    assert 3 == len(list(store.export()))


def test_memory_that_is_not_configured_here_is_told_and_is_no_failure(postgres: str) -> None:
    """The run was opened where it is."""
    with workshop(postgres, [READ], say=says, memory=TIDY) as shop:
        shop.deliver_all()
        [event] = kinds(shop, MemoriesConsolidated)
        assert "no memory is configured" in event.reason
        assert "Done." == shop.engine.output(shop.run_id).result


def test_a_database_that_cannot_be_pruned_is_a_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The run has its result."""

    class Broken(InMemoryMemories):
        def prune(self, **conditions: Any) -> int:
            raise OSError("no")

    place = Place(store=Broken(), database=None)
    with caplog.at_level(logging.WARNING, "heartbit"):
        assert "Done." == place.run(ScriptedProvider(["Done."]))
    assert ["Faded memories could not be deleted: OSError: no"] == caplog.messages
