"""The result backend: chord counters in Redis, results of runs also from the journal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from celery import chord, group

from heartbit import results
from heartbit.errors import ConfigError, ModelCallFailed
from heartbit.tasks import run_agent
from tests.support.canvas import SECONDS, until

BIG = results.MAX_REDIS_BYTES + 1000


def forget(fleet: Any) -> None:
    """Empty Redis, and what the backend itself remembers."""
    fleet.app.backend.client.flushall()
    fleet.app.backend._cache.clear()


def test_a_result_that_redis_forgot_comes_from_the_journal(fleet: Any) -> None:
    """FLUSHALL, and `AsyncResult(id).get()` still works."""
    result = run_agent.delay("say hi", agent="worker")
    output = result.get(timeout=SECONDS)
    forget(fleet)
    again = fleet.app.AsyncResult(result.id)
    assert ("SUCCESS", True) == (again.state, again.ready())
    assert output == again.get(timeout=SECONDS)


def test_an_error_that_redis_forgot_comes_from_the_journal(fleet: Any) -> None:
    """With its class and its sentence."""
    result = run_agent.delay("fail", agent="worker")
    result.get(timeout=SECONDS, propagate=False)
    forget(fleet)
    with pytest.raises(ModelCallFailed, match="told to refuse"):
        fleet.app.AsyncResult(result.id).get(timeout=SECONDS)


def test_a_group_that_redis_forgot_comes_from_the_journal(fleet: Any) -> None:
    """Results that are asked for together, a failed one among them."""
    made = group(run_agent.s(p, agent="worker") for p in ("say a", "fail"))()
    made.join(timeout=SECONDS, propagate=False)
    forget(fleet)
    ids = [each.id for each in made.results]
    found = dict(fleet.app.backend.get_many(ids, timeout=SECONDS))
    assert ["SUCCESS", "FAILURE"] == [found[each]["status"] for each in ids]
    assert "a" == found[ids[0]]["result"]["result"]


def test_other_tasks_are_as_with_celerys_own_backend(fleet: Any) -> None:
    """The journal knows nothing of them."""
    result = fleet.host.fetch.delay("x")
    assert "say x" == result.get(timeout=SECONDS)
    forget(fleet)
    assert "PENDING" == fleet.app.AsyncResult(result.id).state


def test_a_run_that_has_not_ended_is_pending(fleet: Any) -> None:
    """The journal answers only for what has ended."""
    result = run_agent.delay("wait", agent="worker")
    assert fleet.scene.waiting.acquire(timeout=SECONDS)
    assert "PENDING" == result.state


def test_a_large_result_stays_in_the_journal(fleet: Any) -> None:
    """Redis has a note of it; who reads it sees no difference."""
    result = run_agent.delay(f"big {BIG}", agent="worker")
    assert BIG == len(result.get(timeout=SECONDS)["result"])
    stored = fleet.app.backend.get(fleet.app.backend.get_key_for_task(result.id))
    assert {results.NOTE: result.id} == json.loads(stored)["result"]


def test_large_results_of_a_chord_reach_its_body(fleet: Any) -> None:
    """They are not put beside the counter, and the body gets them whole."""
    header = [run_agent.s(f"big {BIG}", agent="worker"), run_agent.s("wait", agent="worker")]
    made = chord(header)(fleet.host.texts.s())
    assert fleet.scene.waiting.acquire(timeout=SECONDS)
    client = fleet.app.backend.client
    [counted] = until(lambda: client.keys("celery-taskset-meta-*.j"))
    [(part, _)] = until(lambda: client.zrange(counted, 0, -1, withscores=True))
    assert len(part) < 1000
    fleet.scene.gate.set()
    assert "x" * BIG + " waited" == made.get(timeout=SECONDS)


def test_a_result_published_while_the_connection_was_lost_is_found(fleet: Any) -> None:
    """Redis forgot it before the reader was back: the journal is asked."""
    result = run_agent.delay("wait", agent="worker")
    assert fleet.scene.waiting.acquire(timeout=SECONDS)
    consumer = fleet.app.backend.result_consumer
    consumer.consume_from(result.id)
    consumer._pubsub.unsubscribe(fleet.app.backend.get_key_for_task(result.id))
    fleet.scene.gate.set()
    until(lambda: fleet.journal.run(result.id).completion_done)
    fleet.app.backend.client.flushall()
    consumer._reconnect_pubsub()
    assert "waited" == result.get(timeout=SECONDS)["result"]


def test_without_a_database_a_note_says_what_is_missing(
    fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller that knows no database cannot have a large result, and is told so."""

    def no_database() -> None:
        raise ConfigError("Durable runs need a PostgreSQL database: set [database] url")

    result = run_agent.delay(f"big {BIG}", agent="worker")
    until(lambda: [row for row in fleet.journal.list_runs() if row.completion_done])
    fleet.app.backend._cache.clear()
    monkeypatch.setattr("heartbit.runtime.journal", no_database)
    with pytest.raises(ConfigError, match="need a PostgreSQL database"):
        fleet.app.AsyncResult(result.id).get(timeout=SECONDS)
    assert "PENDING" == fleet.app.AsyncResult("unknown").state
