"""Agents that remember in a fleet: real workers, and the tasks that look after memories."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from celery import current_app

from heartbit.apps import ensure_app
from heartbit.core.events import MemoriesConsolidated
from heartbit.core.memory import Namespace
from heartbit.engines.chores import EMBED_MEMORIES, PRUNE_MEMORIES
from heartbit.errors import ConfigError
from heartbit.stores.memories.postgres import PostgresMemories
from heartbit.testing import HashEmbedder
from tests.support.live_workers import LiveWorkers, live_workers
from tests.support.memories import new
from tests.support.model_server import Call, Raw, Recorded, Reply
from tests.support.parity import Asked

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

MEMORY = """
[memory]
type = "postgres"
consolidate_on_exit = true
[memory.embedding]
provider = "openai"
base_url = "{model}"
model = "hash"
"""
SOLO = Namespace(agent="solo", tenant_id="acme", user_id="ada")
TASKS = (PRUNE_MEMORIES, EMBED_MEMORIES)
FACTS = ("They speak French.", "They live in Lyon.")
SHORT = "French speakers in Lyon."


def script(request: Recorded) -> Any:
    """Embeds, condenses, stores one fact a turn, or recalls what there is."""
    if request.path.endswith("/embeddings"):
        return embeddings(request.json["input"])
    asked = Asked(request.json)
    if "condense" in asked.system:
        return Reply(text=SHORT)
    if "Who" in asked.prompt:
        query = {"query": "Who is the customer?"}
        return Reply(text=asked.last) if asked.results else Reply(calls=(recall(query),))
    if asked.turn > len(FACTS):
        return Reply(text="Remembered.")
    fact = {"content": FACTS[asked.turn - 1], "keywords": ["customer"]}
    return Reply(calls=(Call(name="memory_store", arguments=fact),))


def recall(query: dict[str, str]) -> Call:
    """What a model asks for."""
    return Call(name="memory_recall", arguments=query)


def embeddings(texts: list[str]) -> Raw:
    """What a server of embeddings answers."""
    embedder = HashEmbedder(dimension=8)
    data = [{"index": n, "embedding": embedder.vector(text)} for n, text in enumerate(texts)]
    return Raw(body=json.dumps({"data": data}).encode())


@pytest.fixture
def workers(
    tmp_path: Path, postgres: str, valkey: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LiveWorkers]:
    """No worker yet."""
    with live_workers(tmp_path, postgres, valkey, script) as made:
        made.configure(tables=MEMORY.format(model=made.model.url))
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        yield made


@pytest.fixture
def store(postgres: str) -> Iterator[PostgresMemories]:
    """The memories of the fleet."""
    made = PostgresMemories.at(postgres)
    yield made
    made.close()


@pytest.mark.parametrize("steps", ["each", "batched"])
def test_a_fleet_remembers_from_run_to_run(
    workers: LiveWorkers, store: PostgresMemories, steps: str
) -> None:
    """Stored, put together at the end of the first run, and recalled in the second."""
    workers.configure(steps=steps, tables=MEMORY.format(model=workers.model.url))
    workers.start()
    first = workers.run("Remember.", tenant_id="acme", user_id="ada")
    assert "succeeded" == workers.until_ended(first.id)
    [event] = [e for e in workers.journal.events(first.id) if isinstance(e, MemoriesConsolidated)]
    [kept] = store.export(tenant_id="acme", user_id="ada")
    assert (event.ids, SHORT, SOLO) == ((kept.id,), kept.content, kept.namespace)
    assert 0 == store.unembedded("hash")
    second = workers.run("Who is it?", tenant_id="acme", user_id="ada")
    assert "succeeded" == workers.until_ended(second.id)
    assert SHORT in str(second.result(timeout=30).result)
    other = workers.run("Who is it?", tenant_id="acme", user_id="bob")
    workers.until_ended(other.id)
    assert "No memories found." == other.result(timeout=30).result


def test_a_worker_forgets_what_has_faded_and_embeds_what_has_no_vector(
    workers: LiveWorkers, store: PostgresMemories
) -> None:
    """Without beat, and without anybody asking for it."""
    faded = new("old", strength=0.01, created_at=datetime.now(UTC) - timedelta(days=2))
    for memory in (faded, new("a", "lease"), new("b", "queue")):
        store.store(replace(memory, namespace=SOLO))
    workers.start()
    workers.until(lambda: store.unembedded("hash") == 0, "all memories have vectors")
    workers.until(lambda: "1 faded memories were deleted" in workers.logs(), "the log says so")
    assert ["a", "b"] == [each.id for each in store.export(tenant_id="acme", user_id="ada")]


def test_anybody_may_send_these_tasks(workers: LiveWorkers, store: PostgresMemories) -> None:
    """An operator at a Python prompt, or beat."""
    workers.start()
    for task in TASKS:
        done = re.compile(rf"{re.escape(task)}\[\S+\] succeeded")
        workers.until(partial(lambda sent: sent.search(workers.logs()), done), f"{task} is done")
    faded = new("old", strength=0.01, created_at=datetime.now(UTC) - timedelta(days=2))
    for memory in (faded, new("a", "lease")):
        store.store(replace(memory, namespace=SOLO))
    ensure_app()
    sent = [current_app.send_task(name, queue="heartbit.tools") for name in TASKS]
    assert [{"pruned": 1}, {"embedded": 1, "left": 0}] == [each.get(timeout=30) for each in sent]


def test_a_run_is_not_opened_that_would_remember_in_one_process_of_many(
    workers: LiveWorkers,
) -> None:
    """Whoever submits it hears what to do."""
    workers.configure(tables="[memory]\ntype = 'in_memory'")
    with pytest.raises(ConfigError, match="set type to postgres in"):
        workers.run("Remember.")
