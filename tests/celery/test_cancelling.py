"""A cancel reaches open model streams and tools within a second, in every worker of the tree."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from heartbit.core.tools import DELEGATE
from heartbit.errors import RunCancelled
from tests.support.live_workers import LiveWorkers, live_workers, streaming
from tests.support.model_server import Call, Recorded, Reply

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

STEPS = pytest.mark.parametrize("steps", ["each", "batched"])
TASK_OF_A_CALL = {"each": "tool_call", "batched": "llm_turn"}


def script(request: Recorded) -> Any:
    """ "stream" never ends its reply, "team" hands that to two, any other prompt names a tool."""
    prompt = request.json["messages"][0]["content"]
    text = prompt if isinstance(prompt, str) else prompt[0]["text"]
    if "stream" in text and "team" not in text:
        return streaming(request)
    if "team" in text:
        tasks = [{"agent": each, "task": "stream"} for each in ("solo", "duo")]
        return Reply(calls=(Call(name=DELEGATE, arguments={"tasks": tasks}),))
    return Reply(calls=(Call(name=text),))


@pytest.fixture
def workers(
    tmp_path: Path, postgres: str, valkey: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LiveWorkers]:
    """No worker yet. Leases are so long that no renewal helps."""
    with live_workers(tmp_path, postgres, valkey, script) as made:
        made.configure(lease=60)
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        yield made


def seconds_until(holds: Callable[[], Any], workers: LiveWorkers, what: str) -> float:
    """How long it takes from now until something holds."""
    since = time.monotonic()
    workers.until(holds, what)
    return time.monotonic() - since


@STEPS
def test_a_cancel_closes_every_stream_of_the_tree_within_a_second(
    workers: LiveWorkers, steps: str
) -> None:
    """The provider sees that nobody listens any more, and nobody is asked anything afterwards."""
    workers.configure(lease=60, steps=steps)
    workers.start()
    run = workers.run("team", agent=None)
    _, *streams = workers.model.wait_for_requests(3, timeout=30)
    run.cancel()
    took = seconds_until(
        lambda: all(each.abandoned.is_set() for each in streams), workers, "the streams are closed"
    )
    assert took < 1
    assert "cancelled" == workers.until_ended(run.id)
    assert {"cancelled"} == {row.status for row in workers.journal.tree(run.id)}
    assert 3 == len(workers.model.requests)
    with pytest.raises(RunCancelled) as cancelled:
        run.result(timeout=10)
    assert 1 == cancelled.value.output.turns


@STEPS
def test_a_cancel_ends_a_tool_that_is_at_work(workers: LiveWorkers, steps: str) -> None:
    """Its coroutine is cancelled, and its run has ended by then or ends at once."""
    workers.configure(lease=60, steps=steps)
    worker = workers.start()
    run = workers.run("look")
    workers.until(lambda: workers.begun("look"), "the tool is at work")
    run.cancel()
    task = f"heartbit.{TASK_OF_A_CALL[steps]}"
    took = seconds_until(lambda: task in _succeeded(workers), workers, "it ended")
    assert took < 1
    assert "cancelled" == workers.until_ended(run.id)
    assert worker.poll() is None


def test_a_run_that_is_cancelled_before_a_worker_has_seen_it_asks_no_model(
    workers: LiveWorkers,
) -> None:
    """Its first message comes to a run that has ended, or ends it."""
    run = workers.run("stream")
    run.cancel()
    workers.start()
    assert "cancelled" == workers.until_ended(run.id)
    with pytest.raises(RunCancelled):
        run.result(timeout=10)
    assert [] == workers.model.requests


@STEPS
def test_a_deadline_closes_an_open_stream(workers: LiveWorkers, steps: str) -> None:
    """The sweep of a second notices it, and the look of half a second who works for nothing."""
    workers.configure(lease=60, steps=steps, limits="run_timeout_seconds = 2")
    workers.start()
    run = workers.run("stream")
    [stream] = workers.model.wait_for_requests(1, timeout=30)
    took = seconds_until(stream.abandoned.is_set, workers, "the stream is closed")
    assert took < 4.5
    assert "failed" == workers.until_ended(run.id)
    assert "run_timed_out" == (workers.journal.run(run.id).output or {})["error_code"]


def _succeeded(workers: LiveWorkers) -> str:
    return "\n".join(line for line in workers.logs().splitlines() if " succeeded in " in line)
