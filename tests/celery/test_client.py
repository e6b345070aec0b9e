"""`heartbit.submit` and `RunHandle` with a worker that does the work."""

from __future__ import annotations

from typing import Any

import pytest

from heartbit.client import Client
from heartbit.config import load
from heartbit.errors import RunCancelled, RunError
from heartbit.outbox import CeleryOutbox
from tests.support.canvas import until

AGENT = """
[provider]
name = "scripted"
[[agents]]
name = "worker"
description = "Works."
system_prompt = "You work."
"""


def client(fleet: Any) -> Client:
    """The client of a process that has an agent of the same name."""
    return Client(fleet.journal, load(None, {}, text=AGENT).config, CeleryOutbox())


def test_a_submitted_run_gives_its_result(fleet: Any) -> None:
    handle = client(fleet).submit("say good morning", agent="worker")
    output = handle.result(timeout=20)
    assert ("succeeded", "good morning", 1) == (output.status, output.result, output.turns)
    assert ["run_started", "model_replied", "run_finished"] == [e["type"] for e in handle.events()]
    assert "succeeded" == handle.status()


def test_a_failed_run_raises_its_error_with_what_it_used(fleet: Any) -> None:
    handle = client(fleet).submit("fail", agent="worker")
    with pytest.raises(RunError, match="told to refuse") as caught:
        handle.result(timeout=20)
    assert "failed" == caught.value.output.status


def test_a_cancelled_run_raises_that(fleet: Any) -> None:
    handle = client(fleet).submit("wait", agent="worker")
    until(lambda: fleet.scene.waiting.acquire(blocking=False))
    handle.cancel()
    with pytest.raises(RunCancelled):
        handle.result(timeout=20)
