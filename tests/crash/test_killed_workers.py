"""Real workers in processes of their own, killed with SIGKILL while they work."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from heartbit import RunHandle, submit
from heartbit.core.events import Event, ModelReplied, RunFailed, ToolReturned
from heartbit.stores.postgres import PostgresJournal
from heartbit.stores.records import ENDED

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

CELERY = [sys.executable, "-m", "celery", "-A", "heartbit"]
WORKER = [*CELERY, "worker", "-P", "threads", "-c", "8", "-l", "INFO"]
LEASE_SECONDS = 1
MOST_LOSSES = 3
PATIENCE = 30
CONFIG = """
[provider]
name = "scripted"
model = "tests.support.crash_agents:reply"

[orchestrator]
routing = "single_agent"

[[agents]]
name = "solo"
description = "Does what it is told."
system_prompt = "Do it."
tools = [
    "tests.support.crash_agents:look",
    "tests.support.crash_agents:pay",
    "tests.support.crash_agents:fire",
    "tests.support.crash_agents:book",
    "tests.support.crash_agents:wire",
    "tests.support.crash_agents:vanish",
    "tests.support.crash_agents:crash",
]

[database]
url = "$CRASH_DATABASE"

[celery]
broker_url = "$CRASH_BROKER"
result_backend = "$CRASH_BROKER"
lease_seconds = {lease}
steps = "{steps}"
"""


class Fleet:
    """Worker processes of one configuration, and the files in which they tell what they do."""

    def __init__(self, directory: Path, database: str, broker: str, steps: str) -> None:
        self.directory = directory
        self.journal = PostgresJournal(database)
        self.config = directory / "heartbit.toml"
        self.config.write_text(CONFIG.format(lease=LEASE_SECONDS, steps=steps))
        self.environment = {
            "CRASH_DIRECTORY": str(directory),
            "CRASH_DATABASE": database,
            "CRASH_BROKER": broker,
            "HEARTBIT_CONFIG": str(self.config),
            "CELERY_BROKER_URL": broker,
            "CELERY_RESULT_BACKEND": broker,
        }
        self._workers: list[subprocess.Popen[bytes]] = []

    def start_worker(self) -> subprocess.Popen[bytes]:
        """A worker that is ready when this returns."""
        log = self.directory / f"worker{len(self._workers)}.log"
        with log.open("wb") as out:
            worker = subprocess.Popen(
                [*WORKER, "-n", f"{uuid.uuid4().hex}@test"],
                env={**os.environ, **self.environment},
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._workers.append(worker)
        self.until(lambda: b" ready." in log.read_bytes(), f"{log} says that it is ready")
        return worker

    def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until something holds; fail if it does not within PATIENCE."""
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, f"it never came to this: {what}\n{self.logs()}"
            time.sleep(0.01)

    def until_with_new_workers(self, holds: Callable[[], bool]) -> None:
        """Wait, while whoever looks after the fleet starts a worker for each that dies."""
        while not holds():
            if all(worker.poll() is not None for worker in self._workers):
                self.start_worker()
            time.sleep(0.01)

    def calls(self, tool: str) -> int:
        """How often a tool was begun."""
        return self._lines("calls").count(tool)

    def requests(self) -> list[str]:
        """The lengths of the conversations that the model was asked with."""
        return self._lines("requests")

    def let(self, tool: str) -> None:
        """Let the calls of a tool go on."""
        (self.directory / f"{tool}.go").touch()

    def end_of(self, run_id: str) -> tuple[Event, ...]:
        """The journal of a run, once it has ended."""
        self.until(lambda: self.journal.run(run_id).status in ENDED, f"run {run_id} has ended")
        return self.journal.events(run_id)

    def logs(self) -> str:
        """The last lines of every worker."""
        logs = sorted(self.directory.glob("worker*.log"))
        return "\n".join(log.read_text(errors="replace")[-2000:] for log in logs)

    def stop(self) -> None:
        """Kill whoever is left."""
        for worker in self._workers:
            with suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
        self.journal.close()

    def _lines(self, name: str) -> list[str]:
        path = self.directory / name
        return path.read_text().split() if path.exists() else []


@pytest.fixture(params=["each", "batched"])
def steps(request: pytest.FixtureRequest) -> str:
    """Every test runs in both modes."""
    return str(request.param)


@pytest.fixture
def fleet(tmp_path: Path, postgres: str, valkey: str, steps: str) -> Iterator[Fleet]:
    """No worker yet, on empty servers."""
    made = Fleet(tmp_path, postgres, valkey, steps)
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def run(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], RunHandle]:
    """Submit a prompt to the fleet."""
    for name, value in fleet.environment.items():
        monkeypatch.setenv(name, value)

    return submit


def kill(worker: subprocess.Popen[bytes]) -> float:
    """SIGKILL the worker and all its children; gives the time."""
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    return time.monotonic()


def test_a_pure_call_is_run_again_within_a_lease_and_two_seconds(
    fleet: Fleet, run: Callable[[str], RunHandle]
) -> None:
    """By the sweep alone: the message of the killed worker stays unacknowledged for an hour."""
    first = fleet.start_worker()
    run_id = run("look").id
    fleet.until(lambda: fleet.calls("look") == 1, "the call was begun")
    fleet.start_worker()
    killed_at = kill(first)
    fleet.until(lambda: fleet.calls("look") == 2, "the call was begun again")
    taken_over_after = time.monotonic() - killed_at
    fleet.let("look")
    events = fleet.end_of(run_id)
    assert "look done" == events[-1].result  # type: ignore[union-attr]
    assert ["1", "3"] == fleet.requests()
    assert taken_over_after < LEASE_SECONDS + 2


def test_an_at_most_once_call_is_never_begun_again_and_the_model_is_told(
    fleet: Fleet, run: Callable[[str], RunHandle]
) -> None:
    """The other call of the turn is not disturbed, and no turn is asked for twice."""
    first = fleet.start_worker()
    run_id = run("pay look").id
    fleet.until(lambda: fleet.calls("pay") == 1 and fleet.calls("look") == 1, "both were begun")
    fleet.start_worker()
    kill(first)
    fleet.let("look")
    fleet.let("pay")
    events = fleet.end_of(run_id)
    [paid] = [e for e in events if isinstance(e, ToolReturned) and e.step == "1/tool/0"]
    assert paid.is_error
    assert "The outcome of this call is unknown" in paid.content
    assert (1, 2) == (fleet.calls("pay"), fleet.calls("look"))
    assert 2 == len([e for e in events if isinstance(e, ModelReplied)])
    assert ["1", "3"] == fleet.requests()


def test_a_call_in_doubt_is_run_again_only_if_a_human_says_so(
    fleet: Fleet, run: Callable[[str], RunHandle]
) -> None:
    """The run waits for the human, holding nothing, and goes on with the same step."""
    first = fleet.start_worker()
    handle = run("fire")
    run_id = handle.id
    fleet.until(lambda: fleet.calls("fire") == 1, "the call was begun")
    kill(first)
    fleet.start_worker()
    fleet.until(lambda: fleet.journal.run(run_id).status == "waiting", "the run waits")
    assert 1 == fleet.calls("fire")
    fleet.let("fire")
    [question] = handle.pending()
    handle.approve(question, by="tester")
    events = fleet.end_of(run_id)
    assert 2 == fleet.calls("fire")
    assert "fire done" == events[-1].result  # type: ignore[union-attr]


BOOKINGS = "drop table if exists crash_bookings; create table crash_bookings (attempt integer)"


def bookings(database: str) -> list[int]:
    """The attempts whose rows are committed."""
    with psycopg.connect(database) as connection:
        rows = connection.execute("select attempt from crash_bookings").fetchall()
    return [attempt for (attempt,) in rows]


def test_a_transactional_call_has_written_once_though_its_worker_is_killed_in_it(
    fleet: Fleet, run: Callable[[str], RunHandle], postgres: str
) -> None:
    """What the killed one wrote went with it; the row that counts is that of the outcome."""
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(BOOKINGS)
    first = fleet.start_worker()
    run_id = run("book").id
    fleet.until(lambda: fleet.calls("book") == 1, "the row is written, and not committed")
    fleet.start_worker()
    kill(first)
    fleet.until(lambda: fleet.calls("book") == 2, "the call was begun again")
    assert [] == bookings(postgres)
    fleet.let("book")
    events = fleet.end_of(run_id)
    assert "booked in attempt 2" == events[-1].result  # type: ignore[union-attr]
    assert [2] == bookings(postgres)


def test_a_call_that_its_tool_knows_to_have_happened_is_not_begun_again(
    fleet: Fleet, run: Callable[[str], RunHandle]
) -> None:
    """The worker was killed between the effect and the outcome."""
    first = fleet.start_worker()
    run_id = run("wire").id
    fleet.let("wire")
    fleet.until((fleet.directory / "ledger").exists, "the money is wired")
    fleet.start_worker()
    kill(first)
    events = fleet.end_of(run_id)
    assert "wired, says the ledger" == events[-1].result  # type: ignore[union-attr]
    assert 1 == fleet.calls("wire")


def test_a_call_that_its_tool_knows_not_to_have_happened_is_begun_again(
    fleet: Fleet, run: Callable[[str], RunHandle]
) -> None:
    """The worker was killed before the effect."""
    first = fleet.start_worker()
    run_id = run("wire").id
    fleet.until(lambda: fleet.calls("wire") == 1, "the call was begun")
    fleet.start_worker()
    kill(first)
    (fleet.directory / "wire.end").touch()
    fleet.until(lambda: fleet.calls("wire") == 2, "the call was begun again")
    fleet.let("wire")
    events = fleet.end_of(run_id)
    assert "wired" == events[-1].result  # type: ignore[union-attr]
    assert ["wired"] == (fleet.directory / "ledger").read_text().split()


def test_a_frozen_worker_s_late_result_does_not_count(
    fleet: Fleet, run: Callable[[str], RunHandle], steps: str
) -> None:
    """Stopped past its lease and woken again, it finds its attempt taken over."""
    first = fleet.start_worker()
    run_id = run("look").id
    fleet.until(lambda: fleet.calls("look") == 1, "the call was begun")
    os.killpg(first.pid, signal.SIGSTOP)
    fleet.start_worker()
    fleet.until(lambda: fleet.calls("look") == 2, "another worker has begun it again")
    fleet.let("look")
    events = fleet.end_of(run_id)
    os.killpg(first.pid, signal.SIGCONT)
    log = fleet.directory / "worker0.log"
    task = {"each": "tool_call", "batched": "llm_turn"}[steps]  # in which the call is done
    done = re.compile(rf"heartbit.{task}\[\S+\] succeeded")
    fleet.until(lambda: bool(done.search(log.read_text())), "the frozen task has come to its end")
    assert 1 == len([e for e in events if isinstance(e, ToolReturned)])
    assert events == fleet.journal.events(run_id)


@pytest.mark.parametrize("tool", ["vanish", "crash"])
def test_a_call_that_kills_its_workers_fails_its_run_and_no_other(
    fleet: Fleet, run: Callable[[str], RunHandle], tool: str
) -> None:
    """The runs that shared its workers are lost with them as often, and go on all the same."""
    fleet.start_worker()
    others = [run("look").id for _ in range(2)]
    fleet.until(lambda: fleet.calls("look") == len(others), "the others are at work")
    poisoned = run(tool).id
    fleet.until_with_new_workers(lambda: fleet.calls(tool) == MOST_LOSSES - 1)
    fleet.let("look")
    fleet.until_with_new_workers(lambda: fleet.journal.run(poisoned).status in ENDED)
    failed = fleet.end_of(poisoned)[-1]
    assert isinstance(failed, RunFailed)
    assert "workers_lost" == failed.code
    assert "1/tool/0" in failed.message
    assert MOST_LOSSES == fleet.calls(tool)
    for other in others:
        fleet.until_with_new_workers(lambda r=other: fleet.journal.run(r).status in ENDED)  # type: ignore[misc]
        assert "look done" == fleet.end_of(other)[-1].result  # type: ignore[union-attr]
