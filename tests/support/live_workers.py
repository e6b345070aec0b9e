"""Worker processes whose model is on a socket, for tests that stop runs and workers on the way.

The model's server runs in the test: it sees when a stream is closed, and by whom it is asked again.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from heartbit import RunHandle, submit
from heartbit.stores.postgres import PostgresJournal
from heartbit.stores.records import ENDED
from tests.support.command_line import environment
from tests.support.model_server import ModelServer, Raw, Recorded
from tests.support.model_wires import Reply, stream_events

PATIENCE = 40
CONFIG = """
[provider]
name = "anthropic"
model = "test-model"
api_key = "test-key"
base_url = "{model}"

[orchestrator]
routing = "always_orchestrate"
{limits}

[[agents]]
name = "solo"
description = "Does what it is told."
system_prompt = "Do it."
tools = ["tests.support.crash_agents:look", "tests.support.crash_agents:pay"]
{limits}

[[agents]]
name = "duo"
description = "Does the same."
system_prompt = "Do it."

[celery]
lease_seconds = {lease}
steps = "{steps}"
"""


def streaming(request: Recorded, text: str = "Once upon a time") -> Raw:
    """A reply whose text has begun and does not end, until the client leaves."""
    events = stream_events(request.wire, Reply(text=text), number=request.number, model="m")
    headers = {"content-type": "text/event-stream"}
    return Raw(headers=headers, chunks=tuple(events[:4]), ending="hang")


class LiveWorkers:
    """Workers of one configuration, and the journal they share with the test."""

    def __init__(self, directory: Path, database: str, broker: str, model: ModelServer) -> None:
        self.directory = directory
        self.model = model
        self.journal = PostgresJournal(database)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._settings: dict[str, Any] = {}
        self.environment = {
            "HEARTBIT_CONFIG": str(directory / "heartbit.toml"),
            "HEARTBIT_DATABASE_URL": database,
            "HEARTBIT_CELERY_CONFIG": "tests.support.fault_settings",
            "CELERY_BROKER_URL": broker,
            "CELERY_RESULT_BACKEND": broker,
            "CRASH_DIRECTORY": str(directory),
        }
        self.configure()

    def configure(
        self,
        *,
        steps: str = "each",
        lease: float = 15,
        limits: str = "",
        tables: str = "",
        **settings: Any,
    ) -> None:
        """What workers that start from now on work with; `settings` are Celery's."""
        text = CONFIG.format(model=self.model.url, steps=steps, lease=lease, limits=limits)
        (self.directory / "heartbit.toml").write_text(f"{text}\n{tables}")
        self.environment["FAULT_SETTINGS"] = json.dumps(settings)

    def start(self, pool: str = "threads", concurrency: int = 8) -> subprocess.Popen[bytes]:
        """A worker that is ready when this returns."""
        log = self.directory / f"worker{len(self._processes)}.log"
        command = ["-A", "heartbit", "worker", "-P", pool, "-c", str(concurrency), "-l", "INFO"]
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "celery", *command, "-n", f"{uuid.uuid4().hex}@test"],
                env=environment(self.environment),
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)
        self.until(lambda: " ready." in log.read_text(errors="replace"), f"{log.name} is ready")
        return process

    def run(self, prompt: str, agent: str | None = "solo", **owner: str) -> RunHandle:
        """Submit a run as any program does."""
        return submit(prompt, agent=agent, **owner)  # type: ignore[arg-type]

    def until(self, holds: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
        """Wait until something holds; fail if it does not."""
        deadline = time.monotonic() + seconds
        while not (found := holds()):
            assert time.monotonic() < deadline, f"it never came to this: {what}\n{self.logs()}"
            time.sleep(0.01)
        return found

    def until_ended(self, run_id: str) -> str:
        """The status of a run that has ended."""
        self.until(lambda: self.journal.run(run_id).status in ENDED, f"run {run_id} has ended")
        return self.journal.run(run_id).status

    def logs(self) -> str:
        """What the workers said last."""
        logs = sorted(self.directory.glob("worker*.log"))
        return "\n".join(log.read_text(errors="replace")[-3000:] for log in logs)

    def received(self, task: str) -> int:
        """How many messages of a task the workers have received."""
        logs = [log.read_text(errors="replace") for log in self.directory.glob("worker*.log")]
        return sum(len(re.findall(rf"Task {re.escape(task)}\[\S+\] received", log)) for log in logs)

    def begun(self, tool: str) -> int:
        """How often a tool was begun."""
        path = self.directory / "calls"
        return path.read_text().split().count(tool) if path.exists() else 0

    def let(self, tool: str) -> None:
        """Let the calls of a tool go on."""
        (self.directory / f"{tool}.go").touch()

    def stop(self) -> None:
        """Kill whoever is left."""
        for process in self._processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.journal.close()


@contextmanager
def live_workers(
    directory: Path, database: str, broker: str, script: Callable[[Recorded], Any]
) -> Iterator[LiveWorkers]:
    """Workers on empty servers, with a model that answers as `script` says."""
    with ModelServer(script) as model:
        made = LiveWorkers(directory, database, broker, model)
        try:
            yield made
        finally:
            made.stop()
