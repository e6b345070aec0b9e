"""What Celery loses in normal life, and the sweep of a worker finds: no run waits for ever."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from kombu.exceptions import OperationalError

from heartbit.errors import RunCancelled
from heartbit.outbox import FINISH_RUN, LLM_TURN
from heartbit.tasks import run_agent
from tests.celery.conftest import IN_BOTH_MODES
from tests.support.canvas import SECONDS, until

pytestmark = [IN_BOTH_MODES, pytest.mark.slow]  # the sweep looks a second at a time


def delegated(fleet: Any) -> Any:
    """A run with two sub-agents, one of which is in its model call until the gate is opened."""
    result = run_agent.delay("delegate wait; say one")
    assert fleet.scene.waiting.acquire(timeout=SECONDS)
    until(lambda: [row for row in sub_runs(fleet, result) if row.completion_done])
    return result


def sub_runs(fleet: Any, result: Any) -> list[Any]:
    """The rows of the sub-runs."""
    return [row for row in fleet.journal.tree(result.id) if row.parent_run_id]


def refuse_once(monkeypatch: pytest.MonkeyPatch, fleet: Any, name: str) -> list[str]:
    """The broker is away when the first message of this name is sent; gives what was refused."""
    refused: list[str] = []
    send: Callable[..., Any] = fleet.app.send_task

    def send_task(task: str, *args: Any, **options: Any) -> Any:
        if task == name and not refused:
            refused.append(task)
            raise OperationalError("connection refused")
        return send(task, *args, **options)

    monkeypatch.setattr(fleet.app, "send_task", send_task)
    return refused


def ended(fleet: Any, result: Any) -> dict[str, Any]:
    """The output of a delegating run after the gate was opened, in a few seconds."""
    fleet.scene.gate.set()
    begun = time.monotonic()
    output: dict[str, Any] = result.get(timeout=SECONDS)
    assert time.monotonic() - begun < 6
    return output


def test_a_chord_whose_keys_are_gone_is_not_missed(fleet: Any) -> None:
    """They expire after a day, and an operator may delete them."""
    result = delegated(fleet)
    client = fleet.app.backend.client
    keys = client.keys("celery-taskset-meta-*")
    assert keys
    client.delete(*keys)
    output = ended(fleet, result)
    assert "waited" in output["result"]
    assert "one" in output["result"]


def test_a_chord_that_failed_is_not_missed(fleet: Any) -> None:
    """A member that is counted as failed kills the body; the sub-run itself goes on."""
    result = delegated(fleet)
    [member] = [row for row in sub_runs(fleet, result) if not row.completion_done]
    place = member.completion
    request = SimpleNamespace(
        id=member.task_id,
        group=place["group_id"],
        group_index=place["group_index"],
        chord=place["chord"],
        task=FINISH_RUN,
    )
    fleet.app.backend.on_chord_part_return(request, "FAILURE", RuntimeError("lost"))
    assert "waited" in ended(fleet, result)["result"]


def test_a_member_that_is_revoked_cancels_the_tree(fleet: Any) -> None:
    """Who waits for the whole is told; nothing hangs."""
    result = delegated(fleet)
    [member] = [row for row in sub_runs(fleet, result) if not row.completion_done]
    fleet.app.control.revoke(member.task_id)
    with pytest.raises(RunCancelled):
        result.get(timeout=SECONDS)
    until(
        lambda: {row.status for row in fleet.journal.tree(result.id)} == {"cancelled", "succeeded"}
    )
    assert "cancelled" == fleet.journal.run(member.run_id).status


def test_a_turn_that_could_not_be_sent_is_sent_later(
    fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row of the step is the outbox."""
    refused = refuse_once(monkeypatch, fleet, LLM_TURN)
    assert "hi" == run_agent.delay("say hi", agent="worker").get(timeout=SECONDS)["result"]
    assert [LLM_TURN] == refused


def test_an_end_that_could_not_be_published_is_published_later(
    fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With everything that waits for it."""
    refused = refuse_once(monkeypatch, fleet, FINISH_RUN)
    result = run_agent.apply_async(
        ("say hi",), {"agent": "worker"}, link=fleet.host.hear.si("linked")
    )
    assert "hi" == result.get(timeout=SECONDS)["result"]
    assert [(("linked",), {})] == until(lambda: fleet.scene.heard)
    assert [FINISH_RUN] == refused


def test_redis_may_be_emptied_while_runs_are_under_way(fleet: Any) -> None:
    """Messages, chords and results: all of it is made anew from the journal."""
    plain = run_agent.delay("wait", agent="worker")
    assert fleet.scene.waiting.acquire(timeout=SECONDS)
    result = delegated(fleet)
    fleet.app.backend.client.flushall()
    assert "waited" in ended(fleet, result)["result"]
    assert "waited" == plain.get(timeout=SECONDS)["result"]
