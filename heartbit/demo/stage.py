"""Where the demos take place: PostgreSQL and Valkey from wheels, workers, and heartbit's commands.

Everything stands in a directory of its own and is gone with it. Every part is a process, as it
would be in a fleet.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from heartbit.embedded import EmbeddedPostgres, EmbeddedValkey
from heartbit.embedded.directory import DataDirectory
from heartbit.embedded.process import KeptProcess, Program
from heartbit.embedded.server import last_words
from heartbit.errors import HeartbitError
from heartbit.stores.journal import Journal
from heartbit.stores.migrate import migrate
from heartbit.stores.postgres import PostgresJournal

PATIENCE_SECONDS = 60.0
POLL_SECONDS = 0.1


class Stage:
    """The workers and the commands of one demonstration, and the journal of its runs."""

    def __init__(
        self, directory: Path, env: Mapping[str, str], journal: Journal, resources: ExitStack
    ) -> None:
        self.journal = journal
        self._directory = directory
        self._env = env
        self._resources = resources
        hold = DataDirectory(directory / "workers").hold(patience_seconds=0)
        resources.callback(hold.release)
        self._lock = hold.server

    def start_worker(self, name: str) -> KeptProcess:
        """A worker that is ready, and ends with this process."""
        options = ("-P", "threads", "-c", "4", "-n", f"{name}@demo", "--loglevel", "INFO")
        log = self._directory / "workers" / f"{name}.log"
        program = Program(
            command=(sys.executable, "-m", "celery", "-A", "heartbit", "worker", *options),
            directory=self._directory,
            user=None,
            stop_signal=signal.SIGTERM,
            grace_seconds=5,
            environment=self._env,
        )
        worker = KeptProcess(program, log=log, lock=self._lock)
        self._resources.callback(worker.stop)
        until(lambda: " ready." in log.read_text(errors="replace"), lambda: last_words(log))
        return worker

    def heartbit(self, command: str, *arguments: str) -> Any:
        """What a command prints with --json.

        Raises:
            HeartbitError: it printed nothing; what it said instead.
        """
        done = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", "heartbit", command, "--json", *arguments],
            env=self._env,
            capture_output=True,
            text=True,
            check=False,
        )
        if not done.stdout:
            raise HeartbitError(f"`heartbit {command}` said: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def show(self, *arguments: str) -> None:
        """Let a command print what it has to say."""
        command = [sys.executable, "-m", "heartbit", *arguments]
        subprocess.run(command, env=self._env, check=False)  # noqa: S603

    @contextmanager
    def file(self, name: str) -> Iterator[None]:
        """A file that agents can see as long as the block lasts."""
        path = self._directory / name
        path.touch()
        try:
            yield
        finally:
            path.unlink()

    def notes(self, name: str) -> list[str]:
        """What the agents wrote down, line by line."""
        path = self._directory / name
        return path.read_text().splitlines() if path.exists() else []


@contextmanager
def open_stage(config: Path, extra: Mapping[str, str]) -> Iterator[Stage]:
    """A stage for the agents of a configuration, with `extra` in the environment of its processes.

    Raises:
        HeartbitError: a server cannot be started.
    """
    with tempfile.TemporaryDirectory(prefix="heartbit-demo-") as name, ExitStack() as resources:
        directory = Path(name)
        directory.chmod(0o711)  # root's PostgreSQL is another user
        database = resources.enter_context(EmbeddedPostgres(directory / "postgres"))
        broker = resources.enter_context(EmbeddedValkey(directory / "valkey"))
        migrate(database.url)
        servers = {
            "HEARTBIT_CONFIG": str(config),
            "HEARTBIT_DATABASE_URL": database.url,
            "CELERY_BROKER_URL": broker.url,
            "CELERY_RESULT_BACKEND": broker.url,
            "HEARTBIT_DEMO_DIRECTORY": str(directory),
        }
        journal = PostgresJournal(database.url, pool_size=1)
        resources.callback(journal.close)
        yield Stage(directory, {**os.environ, **servers, **extra}, journal, resources)


def until(condition: Callable[[], Any], why_not: Callable[[], str] = lambda: "") -> Any:
    """Wait until a condition holds, and give what it gave.

    Raises:
        HeartbitError: it takes too long.
    """
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        if time.monotonic() > end:
            raise HeartbitError(f"The demo waited too long. {why_not()}")
        time.sleep(POLL_SECONDS)
    return found
