"""Who listens to a run hears all of it, though the worker that speaks is killed on the way."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from heartbit import RunHandle
from heartbit.core.events import ModelReplied
from heartbit.core.messages import Json
from tests.support.live_workers import LiveWorkers, live_workers, streaming
from tests.support.model_server import Call, Recorded, Reply

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

LEASE_SECONDS = 1
SECONDS = 30


def script(request: Recorded) -> Any:
    """The first request ever is never answered to its end; who asks again gets a call with it."""
    if request.number == 0:
        return streaming(request, "Never to be finished")
    if len(request.json["messages"]) == 1:
        return Reply(text="Let me look.", calls=(Call(name="look"),))
    return Reply(text="Done.")


@pytest.fixture
def workers(
    tmp_path: Path, postgres: str, valkey: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LiveWorkers]:
    """No worker yet."""
    with live_workers(tmp_path, postgres, valkey, script) as made:
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        yield made


def listening(run: RunHandle) -> tuple[list[Json], Thread]:
    """What is told of a run, as it comes, and the thread that listens until its end."""
    told: list[Json] = []

    def listen() -> None:
        for entry in run.events():
            told.append(entry)

    thread = Thread(target=listen, daemon=True)
    thread.start()
    return told, thread


def spoken(told: list[Json], attempt: int) -> str:
    """The text of the first turn that an attempt has streamed."""
    pieces = [e for e in told if e["type"] == "text_delta" and e["step"] == "1/model"]
    return "".join(each["text"] for each in pieces if each["attempt"] == attempt)


def kinds(told: list[Json]) -> list[str]:
    """The entries in order, the pieces of one text as one."""
    return [kind for kind, _ in groupby(str(each["type"]) for each in told)]


@pytest.mark.parametrize("steps", ["each", "batched"])
def test_a_reader_outlives_the_worker_and_hears_where_its_turn_begins_again(
    workers: LiveWorkers, steps: str
) -> None:
    """Each event comes once and in order; what the killed worker has said is void before the new
    text comes."""
    workers.configure(lease=LEASE_SECONDS, steps=steps)
    first = workers.start()
    run = workers.run("Look.")
    workers.let("look")
    told, listener = listening(run)
    workers.until(lambda: "text_delta" in kinds(told), "the first text is heard")
    workers.start()
    os.killpg(first.pid, signal.SIGKILL)
    listener.join(SECONDS)
    turn = ["text_delta", "model_replied"]
    first_turn = ["text_delta", "turn_restarted", *turn, "tool_returned"]
    assert ["run_started", *first_turn, *turn, "run_finished"] == kinds(told)
    [again] = [each for each in told if each["type"] == "turn_restarted"]
    assert ("1/model", 2) == (again["step"], again["attempt"])
    assert "Never to be finished".startswith(spoken(told, 1))
    assert "Let me look." == spoken(told, 2)
    journal = workers.journal.events(run.id)
    assert [(run.id, seq) for seq in range(1, len(journal) + 1)] == [
        (each["run_id"], each["seq"]) for each in told if "seq" in each
    ]
    assert 2 == sum(isinstance(event, ModelReplied) for event in journal)
