"""Everything that durable runs need on one machine: two servers, a worker, and Flower.

All of them are children that end with this process, however it ends. Nothing listens outside of
this machine.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from heartbit.config import Config
from heartbit.embedded.account import let_enter, server_user
from heartbit.embedded.address import Addresses, announce, withdraw
from heartbit.embedded.directory import DataDirectory, Hold
from heartbit.embedded.postgres import EmbeddedPostgres
from heartbit.embedded.process import KeptProcess, Program
from heartbit.embedded.server import EmbeddedServer, free_port, last_words
from heartbit.embedded.valkey import EmbeddedValkey
from heartbit.errors import ConfigError
from heartbit.stores.migrate import migrate, pending

THREADS = 16
PATIENCE_SECONDS = 30.0
READY_SECONDS = 60.0
WORKER_GRACE_SECONDS = 10.0
POLL_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One of the children: where it answers, and what it writes down."""

    name: str
    where: str
    log: Path
    is_alive: Callable[[], bool]
    exit_code: Callable[[], int | None]

    def epitaph(self) -> str:
        """What is said when it has ended by itself: its exit code and the end of its log."""
        code = self.exit_code()
        how = f"with exit code {code}" if code is not None else "by itself"
        return f"{self.name} ended {how}: {last_words(self.log)} (its log is {self.log})."


class Stack:
    """The children, from `start` to `stop`; a server that is configured elsewhere is left out.

    `config` and `environ` are those of the workers to be started; `cwd` is where they work.
    """

    def __init__(
        self,
        directory: Path,
        config: Config,
        environ: Mapping[str, str],
        *,
        cwd: Path,
        system: bool = False,
    ) -> None:
        self.directory = directory
        self.parts: list[Part] = []
        self._config = config
        self._environ = dict(environ)
        self._cwd = cwd
        self._system = system
        self._running = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, on_part: Callable[[Part], None]) -> None:
        """Start one after the other, and tell of each when it works.

        Raises:
            ConfigError: something cannot be started, or the directory is in use.
            JournalError: the database cannot be brought up to date.
        """
        hold = self._take_directory()
        database_url = self._start_database(on_part)
        broker_url = self._start_broker(on_part)
        self._start_worker(hold, on_part)
        flower_url = self._start_flower(hold, on_part)
        self._running.callback(withdraw, self.directory)
        addresses = Addresses(
            pid=os.getpid(),
            database_url=database_url,
            broker_url=broker_url,
            flower_url=flower_url,
        )
        announce(self.directory, addresses)

    def stop(self) -> None:
        """Stop them, the last one first, and return when all have ended."""
        self._running.close()

    def dead(self) -> Part | None:
        """A child that has ended by itself."""
        return next((part for part in self.parts if not part.is_alive()), None)

    def _take_directory(self) -> Hold:
        directory = DataDirectory(self.directory)
        if user := server_user():
            let_enter(user, directory.path)
        hold = directory.hold(patience_seconds=PATIENCE_SECONDS)
        self._running.callback(hold.release)
        withdraw(self.directory)
        return hold

    def _start_database(self, on_part: Callable[[Part], None]) -> str | None:
        if (configured := self._config.database.url) is not None:
            if missing := pending(configured.get_secret_value()):
                raise ConfigError(
                    f"The configured database needs {', '.join(missing)}; run `heartbit migrate`."
                )
            return None
        path = self.directory / "postgres"
        url = self._start_server(EmbeddedPostgres(path, system=self._system), path, on_part)
        migrate(url)
        self._environ["HEARTBIT_DATABASE_URL"] = url
        return url

    def _start_broker(self, on_part: Callable[[Part], None]) -> str | None:
        if self._config.celery.broker_url is not None:
            return None
        path = self.directory / "valkey"
        url = self._start_server(EmbeddedValkey(path, system=self._system), path, on_part)
        self._environ["CELERY_BROKER_URL"] = url
        return url

    def _start_server(
        self, server: EmbeddedServer, path: Path, on_part: Callable[[Part], None]
    ) -> str:
        self._running.enter_context(server)
        part = Part(
            name=server.name,
            where=server.url.rpartition("@")[2],
            log=path / server.log_name,
            is_alive=server.is_alive,
            exit_code=lambda: None,
        )
        self.parts.append(part)
        on_part(part)
        return server.url

    def _start_worker(self, hold: Hold, on_part: Callable[[Part], None]) -> None:
        arguments = ("worker", "-P", "threads", "-c", str(THREADS), "--loglevel", "INFO")
        part = self._celery("worker", f"{THREADS} threads", arguments, hold)
        until = time.monotonic() + READY_SECONDS
        while " ready." not in part.log.read_text(errors="replace"):
            if not part.is_alive() or time.monotonic() > until:
                raise ConfigError(part.epitaph())
            time.sleep(POLL_SECONDS)
        on_part(part)

    def _start_flower(self, hold: Hold, on_part: Callable[[Part], None]) -> str | None:
        if importlib.util.find_spec("flower") is None:
            return None
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        arguments = ("flower", "--address=127.0.0.1", f"--port={port}")
        on_part(self._celery("flower", url, arguments, hold))
        return url

    def _celery(self, name: str, where: str, arguments: tuple[str, ...], hold: Hold) -> Part:
        log = self.directory / f"{name}.log"
        program = Program(
            command=(sys.executable, "-m", "celery", "-A", "heartbit", *arguments),
            directory=self._cwd,
            user=None,
            stop_signal=signal.SIGTERM,
            grace_seconds=WORKER_GRACE_SECONDS,
            environment=self._environ | {"FLOWER_UNAUTHENTICATED_API": "true"},
        )
        kept = KeptProcess(program, log=log, lock=hold.server)
        self._running.callback(kept.stop)
        part = Part(
            name=name,
            where=where,
            log=log,
            is_alive=kept.is_alive,
            exit_code=lambda: kept.exit_code,
        )
        self.parts.append(part)
        return part
