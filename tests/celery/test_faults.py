"""A journal or a broker that is away for a moment, and backends that count no chords."""

from __future__ import annotations

from typing import Any

import pytest
from celery import current_task
from kombu.exceptions import OperationalError

from heartbit import outbox, tasks
from heartbit.apps import QUEUES
from heartbit.errors import JournalUnavailable
from heartbit.outbox import CeleryOutbox
from heartbit.tasks import run_agent
from tests.support.canvas import SECONDS, host_app, until


def refusing(times: int, method: Any, error: Exception) -> Any:
    """A method that raises the first `times` times."""
    left = [error] * times

    def call(*args: Any, **kwargs: Any) -> Any:
        if left:
            raise left.pop()
        return method(*args, **kwargs)

    return call


def test_a_run_waits_in_its_queue_while_the_journal_is_away(
    fleet: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing but the message knows of it, so the message goes back."""
    monkeypatch.setattr(tasks, "PAUSE_SECONDS", 0.01)
    away = JournalUnavailable("The database is starting up; try again in a moment.")
    opened = refusing(3, fleet.journal.open_run, away)
    monkeypatch.setattr(fleet.journal, "open_run", opened)
    assert "hi" == run_agent.delay("say hi", agent="worker").get(timeout=SECONDS)["result"]
    assert 3 == caplog.text.count("waits in its queue: The database is starting up")
    assert "Traceback" not in caplog.text


def test_a_run_is_not_lost_when_journal_and_broker_are_away(
    fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot be sent again, so it is not acknowledged either."""
    away = JournalUnavailable("The database is starting up; try again in a moment.")
    opened = refusing(1, fleet.journal.open_run, away)
    monkeypatch.setattr(fleet.journal, "open_run", opened)
    result = fleet.app.signature("heartbit.run_agent", ("say hi",), {"agent": "worker"})
    made = result.apply_async(retry=False)
    gone = refusing(1, fleet.app.send_task, OperationalError("connection refused"))
    monkeypatch.setattr(fleet.app, "send_task", gone)
    assert "hi" == made.get(timeout=SECONDS)["result"]


def test_the_end_of_a_run_is_not_an_error_because_the_journal_is_away(
    fleet: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`finish_run` is dropped with one line; it is sent again, as its end was not noted."""
    result = run_agent.delay("wait", agent="worker")
    assert fleet.scene.waiting.acquire(timeout=SECONDS)
    away = JournalUnavailable("The database is starting up; try again in a moment.")
    real = fleet.journal.run

    def unless_finishing(run_id: str, **options: Any) -> Any:
        if current_task and current_task.name == outbox.FINISH_RUN:
            raise away
        return real(run_id, **options)

    monkeypatch.setattr(fleet.journal, "run", unless_finishing)
    fleet.scene.gate.set()
    until(lambda: "was dropped: The database is starting up" in caplog.text)
    assert None is fleet.app.backend.get(fleet.app.backend.get_key_for_task(result.id))
    assert not real(result.id).completion_done
    monkeypatch.undo()
    CeleryOutbox().finished(result.id)
    assert "waited" == result.get(timeout=SECONDS)["result"]


def test_a_broker_that_is_away_fails_no_step(
    fleet: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What could not be sent stands in the journal, and is sent later."""
    away = OperationalError("connection refused")
    sent = refusing(1, fleet.app.send_task, away)
    monkeypatch.setattr(fleet.app, "send_task", sent)
    outbox = CeleryOutbox()
    outbox.wake("00000000-0000-0000-0000-000000000000")
    assert "will be sent later: connection refused" in caplog.text
    assert "hi" == run_agent.delay("say hi", agent="worker").get(timeout=SECONDS)["result"]


@pytest.mark.parametrize("reason", ["refuses", "polls"])
def test_without_chords_the_last_sub_agent_wakes_its_parent(
    fleet: Any, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    """With rpc:// they are refused, SQL backends poll for them: there a group has to do."""
    backend = type(fleet.app.backend)
    if reason == "refuses":

        def refuse(self: Any) -> None:
            raise NotImplementedError("no chords")

        monkeypatch.setattr(backend, "ensure_chords_allowed", refuse)
    else:
        monkeypatch.setattr(backend, "supports_native_join", False)
    assert not outbox.has_chords()
    found = run_agent.delay("delegate say one; say two").get(timeout=SECONDS)["result"]
    assert "one" in found
    assert "two" in found
    assert [] == fleet.app.backend.client.keys("celery-taskset-meta-*")


def test_a_failed_sub_agent_fails_no_chord(fleet: Any) -> None:
    """It is a result for its parent; the chord's header has only ids and statuses."""
    found = run_agent.delay("delegate say one; fail").get(timeout=SECONDS)
    assert "succeeded" == found["status"]
    assert "one" in found["result"]
    assert "told to refuse" in found["result"]


def test_queues_that_hold_nothing_are_known(fleet: Any, valkey_server: str) -> None:
    """The sweep sends again sooner what was sent to a queue that is empty by now."""
    app: Any = host_app(f"{valkey_server.rpartition('/')[0]}/6")
    app.set_current()
    try:
        app.send_task("anything", queue="heartbit.llm", priority=3, ignore_result=True)
        assert sorted({*QUEUES} - {"heartbit.llm"}) == sorted(CeleryOutbox().empty_queues())
    finally:
        fleet.app.set_current()
        app.amqp.producer_pool.force_close_all()
        app.pool.force_close_all()
        app.close()
