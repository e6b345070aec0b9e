"""A rate limit holds up the run that hit it, and no other: its worker is free meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.live_workers import LiveWorkers, live_workers
from tests.support.model_server import Recorded, Reply, json_answer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

RETRY_AFTER = 6


class Limiter:
    """A model that refuses the first request of a run that is "limited"."""

    def __init__(self) -> None:
        self.limited: list[float] = []

    def __call__(self, request: Recorded) -> Any:
        if "limited" not in request.body.decode():
            return Reply(text="Here you are.")
        self.limited.append(time.monotonic())
        if len(self.limited) > 1:
            return Reply(text="At last.")
        error = {"type": "rate_limit_error", "message": "Slow down."}
        headers = {"retry-after": str(RETRY_AFTER)}
        return json_answer({"type": "error", "error": error}, status=429, headers=headers)


@pytest.fixture
def limiter() -> Limiter:
    """The model of all runs."""
    return Limiter()


@pytest.fixture
def workers(
    tmp_path: Path, postgres: str, valkey: str, monkeypatch: pytest.MonkeyPatch, limiter: Limiter
) -> Iterator[LiveWorkers]:
    """No worker yet."""
    with live_workers(tmp_path, postgres, valkey, limiter) as made:
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        yield made


@pytest.mark.parametrize("steps", ["each", "batched"])
def test_the_only_thread_of_a_worker_does_other_runs_while_one_waits_for_its_provider(
    workers: LiveWorkers, limiter: Limiter, steps: str
) -> None:
    """The run that waits goes on by itself when the provider's time is over."""
    workers.configure(steps=steps)
    workers.start(concurrency=1)
    waiting = workers.run("limited")
    workers.until(lambda: limiter.limited, "the provider has refused")
    other = workers.run("Go on.")
    assert "succeeded" == workers.until_ended(other.id)
    assert ("running", 1) == (waiting.status(), len(limiter.limited))
    assert time.monotonic() - limiter.limited[0] < RETRY_AFTER
    assert "At last." == waiting.result(timeout=30).result
    first, second = limiter.limited
    assert RETRY_AFTER <= second - first < RETRY_AFTER + 3


def test_a_run_that_waits_for_its_provider_can_be_cancelled(
    workers: LiveWorkers, limiter: Limiter
) -> None:
    """Its wait is nobody's work that would have to be interrupted."""
    workers.start(concurrency=1)
    waiting = workers.run("limited")
    workers.until(lambda: limiter.limited, "the provider has refused")
    waiting.cancel()
    assert "cancelled" == workers.until_ended(waiting.id)
    assert 1 == len(limiter.limited)
