"""A worker that is asked to go finishes what it has, or hands it to another worker at once."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from heartbit.core.events import ModelReplied, ToolReturned
from tests.support.live_workers import LiveWorkers, live_workers, streaming
from tests.support.model_server import Call, Recorded, Reply

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

LEASE_SECONDS = 60
"""So long that nothing is taken over because a lease has run out."""
SOFT_SECONDS = 1.0
POOLS = pytest.mark.parametrize("pool", ["threads", "prefork"])
STEPS = pytest.mark.parametrize("steps", ["each", "batched"])


def script(request: Recorded) -> Any:
    """The first turn ever hangs in its stream for the prompt "stream"; else the prompt's tools."""
    *before, last = request.json["messages"]
    prompt = str((before or [last])[0]["content"])
    if before:
        return Reply(text="Done.")
    if "stream" in prompt:
        return streaming(request) if request.number == 0 else Reply(text="Done.")
    return Reply(calls=tuple(Call(name=each) for each in ("look", "pay") if each in prompt))


@pytest.fixture
def workers(
    tmp_path: Path, postgres: str, valkey: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LiveWorkers]:
    """No worker yet."""
    with live_workers(tmp_path, postgres, valkey, script) as made:
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        yield made


def configure(workers: LiveWorkers, steps: str = "each", soft: float = SOFT_SECONDS) -> None:
    """Workers with a soft shutdown."""
    workers.configure(
        lease=LEASE_SECONDS,
        steps=steps,
        worker_soft_shutdown_timeout=soft,
        worker_enable_soft_shutdown_on_idle=False,
    )


def stop(worker: subprocess.Popen[bytes], how: signal.Signals = signal.SIGTERM) -> float:
    """Ask a worker to go; gives how long it took."""
    since = time.monotonic()
    worker.send_signal(how)
    worker.wait(30)
    return time.monotonic() - since


@POOLS
@STEPS
def test_a_model_turn_is_handed_to_another_worker(
    workers: LiveWorkers, pool: str, steps: str
) -> None:
    """After the soft shutdown's time, not after the two minutes that the model takes."""
    configure(workers, steps)
    first = workers.start(pool, 2)
    run = workers.run("stream")
    [stream] = workers.model.wait_for_requests(1, timeout=30)
    workers.start(pool, 2)
    took = stop(first)
    assert stream.abandoned.wait(5)
    assert "Done." == run.result(timeout=20).result
    assert 2 == len(workers.model.requests)
    replies = [e for e in workers.journal.events(run.id) if isinstance(e, ModelReplied)]
    assert 1 == len(replies)
    assert SOFT_SECONDS < took < SOFT_SECONDS + 5


@pytest.mark.parametrize(("pool", "steps"), [("threads", "batched"), ("prefork", "each")])
def test_a_call_that_must_not_be_repeated_is_finished(
    workers: LiveWorkers, pool: str, steps: str
) -> None:
    """However long it takes; its neighbour that may be repeated is handed over."""
    configure(workers, steps)
    first = workers.start(pool, 3)
    run = workers.run("look and pay")
    workers.until(lambda: workers.begun("look") and workers.begun("pay"), "both are at work")
    workers.start(pool, 2)
    first.send_signal(signal.SIGTERM)
    workers.until(lambda: workers.begun("look") == 2, "the other worker looks")
    assert None is first.poll()
    workers.let("look")
    workers.let("pay")
    assert "Done." == run.result(timeout=20).result
    first.wait(20)
    assert (2, 1) == (workers.begun("look"), workers.begun("pay"))
    returned = [e for e in workers.journal.events(run.id) if isinstance(e, ToolReturned)]
    assert ["look done", "pay done"] == sorted(e.content for e in returned)


@POOLS
def test_without_a_soft_shutdown_a_worker_finishes_what_it_has(
    workers: LiveWorkers, pool: str
) -> None:
    """And begins nothing more, also in a batch: the next turn is another worker's."""
    configure(workers, "batched", soft=0)
    first = workers.start(pool, 2)
    run = workers.run("look")
    workers.until(lambda: workers.begun("look"), "the tool is at work")
    first.send_signal(signal.SIGTERM)
    workers.until(lambda: "arm shutdown" in workers.logs(), "the worker is told")
    workers.let("look")
    first.wait(20)
    assert 1 == len(workers.model.requests)
    workers.start(pool, 2)
    assert "Done." == run.result(timeout=20).result
    assert 1 == workers.begun("look")


def test_a_cold_shutdown_hands_over_before_it_kills(workers: LiveWorkers) -> None:
    """SIGQUIT, or SIGTERM in a container that maps it: also where threads cannot be killed."""
    configure(workers)
    first = workers.start("threads", 2)
    run = workers.run("stream")
    workers.model.wait_for_requests(1, timeout=30)
    workers.start("threads", 2)
    took = stop(first, signal.SIGQUIT)
    assert "Done." == run.result(timeout=20).result
    assert 2 == len(workers.model.requests)
    assert took < SOFT_SECONDS + 5
