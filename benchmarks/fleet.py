"""A fleet of its own for a measurement: real servers, real workers, and a client of the broker.

Everything is a process of its own and ends with this one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg
from celery import Celery
from celery.result import AsyncResult, ResultSet
from psycopg import sql

from benchmarks.model_server import total
from benchmarks.processes import cpu_seconds
from heartbit.embedded import EmbeddedPostgres, EmbeddedValkey
from heartbit.stores.migrate import migrate

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_SECONDS = 120.0
POLL_SECONDS = 0.02
CONFIG = """
[provider]
name = "openai"
model = "m"
base_url = "{model}/v1"
api_key = "none"

[celery]
steps = "{steps}"
lease_seconds = {lease_seconds}

[orchestrator]
routing = "always_orchestrate"

[[agents]]
name = "adder"
description = "Adds."
system_prompt = "You add."
tools = [{tools}]
max_turns = 1000
{more}
"""
ADD = '"benchmarks.clients:add"'


@dataclass(frozen=True)
class Services:
    """PostgreSQL and Valkey, as `heartbit dev` starts them."""

    folder: Path
    postgres: EmbeddedPostgres
    valkey: EmbeddedValkey

    @property
    def pids(self) -> list[int]:
        """The processes of both."""
        return [pid for pid in (self.postgres.pid, self.valkey.pid) if pid is not None]

    def empty_database(self, name: str) -> str:
        """A new database."""
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        return f"{self.postgres.url.rpartition('/')[0]}/{name}"

    def database(self, name: str) -> str:
        """A new database with our tables."""
        url = self.empty_database(name)
        migrate(url)
        return url


@contextmanager
def services() -> Iterator[Services]:
    """Both servers, with an empty directory."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="heartbit-bench-")))
        folder.chmod(0o711)  # as root the servers are another user
        postgres = stack.enter_context(EmbeddedPostgres(folder / "postgres"))
        valkey = stack.enter_context(EmbeddedValkey(folder / "valkey"))
        yield Services(folder, postgres, valkey)


@dataclass
class Fleet:
    """Workers on a database of their own, and who sends them runs."""

    services: Services
    name: str
    model: str
    steps: str = "each"
    tools: str = ADD
    lease_seconds: float = 15.0
    more: str = ""
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @cached_property
    def database(self) -> str:
        """The url of the journal."""
        return self.services.database(self.name)

    @cached_property
    def folder(self) -> Path:
        """Where heartbit.toml and the logs are."""
        folder = self.services.folder / self.name
        folder.mkdir()
        text = CONFIG.format_map(vars(self))
        (folder / "heartbit.toml").write_text(text)
        return folder

    @cached_property
    def app(self) -> Celery:
        """The app of a caller, who knows the broker and nothing else of heartbit."""
        app = Celery(self.name, broker=self._broker, backend=self._broker, set_as_current=False)
        app.conf.task_default_queue = "heartbit.control"
        return app

    @property
    def _broker(self) -> str:
        return self.services.valkey.url

    def start_worker(
        self, threads: int = 16, *, queues: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        """A worker process that is ready; it reads these queues, or all."""
        name = f"worker-{len(self.workers)}"
        log = self.folder / f"{name}.log"
        options = ["-P", "threads", "-c", str(threads), "-n", f"{name}@{self.name}"]
        options += ["-Q", ",".join(queues)] if queues else []
        with log.open("wb") as output:
            worker = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "heartbit", "worker", *options],
                cwd=self.folder,
                env=self._environment(),
                stdout=output,
                stderr=output,
            )
        self.workers.append(worker)
        until(lambda: self.app.control.ping([f"{name}@{self.name}"], timeout=POLL_SECONDS), log)
        return worker

    def stop(self) -> None:
        """Have the workers end what they do, and end."""
        for worker in self.workers:
            worker.terminate()
        for worker in self.workers:
            worker.wait(PATIENCE_SECONDS)
        self.workers.clear()

    def send(self, prompt: str, agent: str = "adder") -> AsyncResult[Any]:
        """Begin a run as any app does."""
        return self.app.send_task("heartbit.run_agent", args=[prompt], kwargs={"agent": agent})

    def results(self, sent: Sequence[AsyncResult[Any]]) -> list[dict[str, Any]]:
        """The results of runs, once all of them have ended."""
        found: list[dict[str, Any]] = ResultSet(list(sent), app=self.app).join_native(
            timeout=PATIENCE_SECONDS
        )
        return found

    def add(self, runs: int, turns: int, pad: int = 0) -> None:
        """Runs of `turns` model turns at once, all to the right answer.

        Raises:
            AssertionError: an answer is wrong.
        """
        sent = [self.send(f"turns={turns} pad={pad}") for _ in range(runs)]
        for result in self.results(sent):
            assert result["result"].endswith(f"sum={total(turns)}"), result

    def cpu_seconds(self) -> float:
        """What workers, servers and this process have used so far."""
        workers = [worker.pid for worker in self.workers]
        return cpu_seconds([*workers, *self.services.pids]) + time.process_time()

    def query(self, statement: str) -> Any:
        """The first column of the only row, asked of the journal's database."""
        with psycopg.connect(self.database, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None

    def _environment(self) -> dict[str, str]:
        return os.environ | {
            "PYTHONPATH": str(ROOT),
            "HEARTBIT_DATABASE_URL": self.database,
            "HEARTBIT_CELERY_CONFIG": "benchmarks.fleet_settings",
            "CELERY_BROKER_URL": self._broker,
            "CELERY_RESULT_BACKEND": self._broker,
        }


@contextmanager
def fleet(services: Services, name: str, model: str, **options: Any) -> Iterator[Fleet]:
    """A fleet without workers yet, on an empty broker."""
    made = Fleet(services, name, model, **options)
    try:
        yield made
    finally:
        made.stop()
        made.app.control.purge()
        made.app.close()


def until(condition: Any, log: Path | None = None) -> Any:
    """Wait until a condition holds, and give what it gave.

    Raises:
        AssertionError: it takes too long.
    """
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < end, log.read_text(errors="replace") if log else "waited too long"
        time.sleep(POLL_SECONDS)
    return found
