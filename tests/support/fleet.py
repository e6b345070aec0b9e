"""Worker processes for tests that disturb them, and what can be seen of their work from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from celery import Celery

from heartbit.core.events import Event
from heartbit.stores.postgres import PostgresJournal
from heartbit.stores.records import ENDED
from tests.support.command_line import environment

PATIENCE = 25
"""Seconds after which what should come is given up; it never takes that long."""
WORKER = [sys.executable, "-m", "celery", "-A", "heartbit", "worker", "-P", "threads"]
CONFIG = """
[provider]
name = "scripted"
model = "tests.support.fault_agents:reply"

[orchestrator]
routing = "always_orchestrate"

[[agents]]
name = "chief"
description = "Does what it is told."
system_prompt = "Do it."
tools = [{tools}]

[[agents]]
name = "helper"
description = "Helps."
system_prompt = "Help."
tools = [{tools}]

[[permissions]]
tool = "sign"
action = "ask"

[celery]
lease_seconds = {lease}
steps = "{steps}"
"""
TOOLS = ", ".join(
    f'"tests.support.fault_agents:{name}"' for name in ("look", "book", "pay", "sign", "block")
)


def prompt(name: str, *turns: Sequence[Any]) -> str:
    """A prompt for the agents of the fault tests."""
    return json.dumps({"name": name, "turns": turns})


class Fleet:
    """Workers of one configuration. The test itself reaches the servers directly."""

    def __init__(
        self, directory: Path, database: str, broker: str, *, lease: float = 1, steps: str = "each"
    ) -> None:
        self.directory = directory
        self.broker = broker
        self.journal = PostgresJournal(database)
        self.workers: list[subprocess.Popen[bytes]] = []
        (directory / "heartbit.toml").write_text(
            CONFIG.format(lease=lease, steps=steps, tools=TOOLS)
        )

    def start_worker(
        self,
        database: str,
        broker: str | None = None,
        *,
        settings: dict[str, Any] | None = None,
        concurrency: int = 8,
        wait: bool = True,
    ) -> subprocess.Popen[bytes]:
        """A worker that finds its servers here, ready for work when this returns."""
        addresses = {
            "HEARTBIT_DATABASE_URL": database,
            "CELERY_BROKER_URL": broker or self.broker,
            "CELERY_RESULT_BACKEND": broker or self.broker,
            "HEARTBIT_CELERY_CONFIG": "tests.support.fault_settings",
            "FAULT_SETTINGS": json.dumps(settings or {}),
            "FAULTS": str(self.directory),
        }
        number = len(self.workers)
        log = self._log_of(number)
        name = f"{uuid.uuid4().hex}@test"
        with log.open("wb") as out:
            worker = subprocess.Popen(
                [*WORKER, "-c", str(concurrency), "-n", name, "-l", "INFO"],
                cwd=self.directory,
                env=environment(addresses),
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.workers.append(worker)
        if wait:
            self.until(lambda: self.is_ready(number), "the worker is ready")
        return worker

    def is_ready(self, number: int) -> bool:
        """Whether a worker has got so far that it takes messages."""
        return " ready." in self._log_of(number).read_text(errors="replace")

    def send(self, *prompts: str, agent: str | None = "chief") -> list[str]:
        """Start runs as any caller does, and give their ids; None is the orchestrator."""
        ids = [str(uuid.uuid4()) for _ in prompts]
        with _caller(self.broker) as send:
            for run_id, each in zip(ids, prompts, strict=True):
                send(
                    "heartbit.run_agent",
                    [each],
                    {"agent": agent},
                    task_id=run_id,
                    queue="heartbit.control",
                )
        return ids

    def send_step(self, run_id: str, step: str, queue: str = "heartbit.tools") -> None:
        """Deliver the message of a step once more."""
        with _caller(self.broker) as send:
            send("heartbit.tool_call", [run_id, step], queue=queue)

    def open(self, gate: str) -> None:
        """Let the calls behind a gate go on."""
        (self.directory / gate).touch()

    def begun(self, tool: str = "") -> Counter[str]:
        """How often each call of a tool was begun, by its label."""
        lines = [line.split() for line in self._lines("begun")]
        return Counter(label for name, label, *_ in lines if name == (tool or name))

    def requests(self) -> Counter[str]:
        """How often the model was asked for each turn, as "name turn"."""
        return Counter(self._lines("requests"))

    def until(self, holds: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
        """Wait until something holds; fail if it does not."""
        deadline = time.monotonic() + seconds
        while not (found := holds()):
            assert time.monotonic() < deadline, (
                f"it never came to this: {what}\n{self.last_words()}"
            )
            time.sleep(0.01)
        return found

    def end_of(self, run_id: str, seconds: float = PATIENCE) -> tuple[Event, ...]:
        """The journal of a run once it has ended and whoever waits for it was told."""
        self.until(lambda: self._published(run_id), f"the end of run {run_id} is out", seconds)
        return self.journal.events(run_id)

    def result_of(self, run_id: str, seconds: float = PATIENCE) -> str:
        """The result of a run that must succeed."""
        self.end_of(run_id, seconds)
        output = self.journal.run(run_id).output or {}
        assert "succeeded" == output["status"], output
        return str(output["result"])

    def statuses(self) -> Counter[str]:
        """How many root runs have each status."""
        return Counter(row.status for row in self.journal.list_runs(limit=1000))

    def log(self) -> str:
        """What all workers have said."""
        logs = sorted(self.directory.glob("worker*.log"))
        return "".join(log.read_text(errors="replace") for log in logs)

    def complaints(self) -> list[str]:
        """What heartbit's own loggers have warned about, line by line."""
        lines = [line.split("|", 2) for line in self.log().splitlines()]
        return [
            text
            for level, name, text in (line for line in lines if len(line) == 3)
            if level in ("WARNING", "ERROR", "CRITICAL") and name.startswith("heartbit")
        ]

    def last_words(self) -> str:
        """The end of what each worker said."""
        logs = sorted(self.directory.glob("worker*.log"))
        texts = [f"{log.name}:\n{log.read_text(errors='replace')[-3000:]}" for log in logs]
        return "\n".join(texts)

    def stop(self) -> None:
        """Kill whoever is left."""
        for worker in self.workers:
            kill(worker)
        self.journal.close()

    def _log_of(self, number: int) -> Path:
        return self.directory / f"worker{number}.log"

    def _published(self, run_id: str) -> bool:
        rows = [row for row in self.journal.tree(run_id) if row.run_id == run_id]
        return bool(rows) and rows[0].status in ENDED and rows[0].completion_done

    def _lines(self, name: str) -> list[str]:
        path = self.directory / name
        return path.read_text().splitlines() if path.exists() else []


@contextmanager
def _caller(broker: str) -> Iterator[Callable[..., Any]]:
    """Sends tasks as a caller does who has nothing of heartbit."""
    app = Celery("caller", broker=broker, set_as_current=False)
    with app.connection_for_write() as connection, connection.Producer() as producer:
        yield partial(app.send_task, producer=producer, ignore_result=True)
    app.close()


def kill(worker: subprocess.Popen[bytes]) -> None:
    """SIGKILL a worker and all its children."""
    with suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
