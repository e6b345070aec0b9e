"""Messages that come twice, late, or to runs that have ended or were revoked."""

from __future__ import annotations

import uuid
from functools import partial
from typing import Any

import pytest
from celery import chain, chord
from celery.exceptions import ChordError, TaskRevokedError

from heartbit.engines.ids import run_id_of_task
from heartbit.errors import RunCancelled
from heartbit.outbox import cancel_run, publish
from heartbit.tasks import continue_run, finish_run, llm_turn, run_agent
from tests.celery.conftest import IN_BOTH_MODES
from tests.support.canvas import SECONDS, until

pytestmark = IN_BOTH_MODES


def waiting_run(fleet: Any, **options: Any) -> Any:
    """A run whose model call is under way until the gate is opened."""
    result = run_agent.apply_async(("wait",), {"agent": "worker"}, **options)
    assert fleet.scene.waiting.acquire(timeout=SECONDS)
    return result


def completed(fleet: Any, result: Any) -> bool:
    """Whether the end of the run is published."""
    return bool(fleet.journal.run(result.id).completion_done)


def status(fleet: Any, result: Any) -> str:
    """The status of the run in the journal."""
    return fleet.journal.run(run_id_of_task(result.id)).status


def test_what_waits_is_put_down_before_the_run_can_end(fleet: Any) -> None:
    """While the first turn is still under way, the journal knows whom to tell."""
    result = waiting_run(fleet, link=fleet.host.hear.si("linked"))
    completion = fleet.journal.run(result.id).completion
    assert result.id == completion["task_id"]
    assert ["host.hear"] == [each["task"] for each in completion["link"]]


def test_a_run_that_ended_before_its_task_came_is_published(fleet: Any) -> None:
    """A run opened and worked on by others tells the late message its result."""
    first = run_agent.apply_async(("say hi",), {"agent": "worker"}, task_id="late")
    first.get(timeout=SECONDS)
    with fleet.journal._database.connection() as connection:
        connection.execute("update runs set completion = null, completion_done_at = null")
    fleet.app.backend.client.flushall()
    again = run_agent.apply_async(
        ("say hi",), {"agent": "worker"}, task_id="late", link=fleet.host.hear.si("told")
    )
    assert "hi" == again.get(timeout=SECONDS)["result"]
    assert [(("told",), {})] == until(lambda: fleet.scene.heard)


def test_run_agent_twice_asks_the_model_once(fleet: Any) -> None:
    """The second message finds the run under way."""
    result = waiting_run(fleet, task_id="twice")
    run_agent.apply_async(("wait",), {"agent": "worker"}, task_id="twice")
    continue_run.delay(run_id_of_task("twice"))
    llm_turn.delay(run_id_of_task("twice"), "1/model")
    assert not fleet.scene.waiting.acquire(timeout=0.5)
    fleet.scene.gate.set()
    assert "waited" == result.get(timeout=SECONDS)["result"]


def test_a_chord_counts_a_member_once_even_if_its_end_comes_twice_and_late(fleet: Any) -> None:
    """Two `finish_run`s while the others still work, and one after the body."""
    header = [run_agent.s("say a", agent="worker"), run_agent.s("wait", agent="worker")]
    body = chord(header)(fleet.host.texts.s())
    assert fleet.scene.waiting.acquire(timeout=SECONDS)
    [ended] = until(lambda: [row for row in fleet.journal.list_runs() if row.completion_done])
    for _ in range(2):
        publish(ended.run_id, ended.completion)
    fleet.scene.gate.set()
    assert "a waited" == body.get(timeout=SECONDS)
    publish(ended.run_id, ended.completion)
    late = finish_run.delay(ended.run_id)
    assert "a" == late.get(timeout=SECONDS)["result"]
    assert "a waited" == body.get(timeout=SECONDS)


def test_an_end_that_comes_too_early_says_nothing(
    fleet: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A foreign `finish_run` cannot fail a run that is under way."""
    result = waiting_run(fleet)
    finish_run.apply_async((result.id,), task_id=result.id)
    until(lambda: "has not ended" in caplog.text)
    assert "PENDING" == result.state
    fleet.scene.gate.set()
    assert "waited" == result.get(timeout=SECONDS)["result"]


def test_the_end_is_noted_when_it_is_published(fleet: Any) -> None:
    """Also for a failed run: the sweep must not publish it again."""
    good, bad = (run_agent.delay(p, agent="worker") for p in ("say a", "fail"))
    for each in (good, bad):
        each.get(timeout=SECONDS, propagate=False)
        until(partial(completed, fleet, each))


def test_a_task_revoked_before_it_starts_opens_no_run(fleet: Any) -> None:
    """The worker discards it; its caller hears so."""
    task_id = str(uuid.uuid4())
    fleet.app.control.revoke(task_id, reply=True, timeout=SECONDS, limit=1)
    result = run_agent.apply_async(("say hi",), {"agent": "worker"}, task_id=task_id)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=SECONDS)
    assert () == fleet.journal.list_runs()


def test_a_task_revoked_on_its_way_cancels_its_run(fleet: Any) -> None:
    """No message of its id is under way then, and yet the run ends."""
    result = waiting_run(fleet)
    result.revoke()
    until(lambda: status(fleet, result) == "cancelled")
    with pytest.raises(TaskRevokedError):
        result.get(timeout=SECONDS)
    until(lambda: fleet.journal.run(result.id).completion_done)


def test_a_revoked_member_fails_the_chord_of_its_caller(fleet: Any) -> None:
    """A chord of ordinary tasks would wait for ever."""
    header = [run_agent.s("wait", agent="worker"), run_agent.s("say a", agent="worker")]
    body: Any = chord(header)(fleet.host.texts.s())
    assert fleet.scene.waiting.acquire(timeout=SECONDS)
    body.parent.results[0].revoke()
    # Whoever waits for the body hears of its members, too, and may hear of this one first.
    with pytest.raises((ChordError, TaskRevokedError, RunCancelled)):
        body.get(timeout=SECONDS)


def test_a_task_revoked_after_its_end_keeps_its_result(fleet: Any) -> None:
    """There is nothing left to revoke."""
    result = run_agent.delay("say hi", agent="worker")
    output = result.get(timeout=SECONDS)
    fleet.app.control.revoke(result.id, reply=True, timeout=SECONDS, limit=1)
    assert ("SUCCESS", "succeeded") == (result.state, status(fleet, result))
    assert output == fleet.app.AsyncResult(result.id).get(timeout=SECONDS)


def test_a_cancelled_run_raises_for_its_caller(fleet: Any) -> None:
    """Cancelled by heartbit's own means, it is a failure like any other."""
    result = chain(run_agent.s("wait", agent="worker"), fleet.host.text.s())()
    assert fleet.scene.waiting.acquire(timeout=SECONDS)
    cancel_run(result.parent.id)
    with pytest.raises(RunCancelled):
        result.get(timeout=SECONDS)
