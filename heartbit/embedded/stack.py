"""Everything that durable runs need on one machine: two servers, a worker, beat, and Flower.

All of them are children that end with this process, however it ends. Nothing listens outside of
this machine.
"""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from heartbit.config import Config
from heartbit.embedded.account import let_enter, server_user
from heartbit.embedded.address import Addresses, announce, withdraw
from heartbit.embedded.children import Children, Part, says, wait_until
from heartbit.embedded.directory import DataDirectory, Hold
from heartbit.embedded.postgres import EmbeddedPostgres
from heartbit.embedded.server import EmbeddedServer, free_port
from heartbit.embedded.valkey import EmbeddedValkey
from heartbit.errors import ConfigError
from heartbit.stores.migrate import migrate, pending

THREADS = 16
PATIENCE_SECONDS = 30.0
GRACE_SECONDS = 10.0


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
        self._config = config
        self._environ = dict(environ)
        self._cwd = cwd
        self._system = system
        self._running = ExitStack()
        self._parts: list[Part] = []

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

        def works(part: Part) -> None:
            self._parts.append(part)
            on_part(part)

        hold = self._take_directory()
        database_url = self._start_database(works)
        broker_url = self._start_broker(works)
        children = self._children(hold)
        self._start_worker(children, works)
        self._start_beat(children, works)
        flower_url = self._start_flower(children, works)
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
        return next((part for part in self._parts if not part.is_alive()), None)

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
            pid=server.pid,
            is_alive=server.is_alive,
            exit_code=lambda: None,
        )
        on_part(part)
        return server.url

    def _children(self, hold: Hold) -> Children:
        environ = self._environ | {"FLOWER_UNAUTHENTICATED_API": "true"}
        children = Children(environ, cwd=self._cwd, logs=self.directory, lock=hold.server)
        self._running.enter_context(children)
        return children

    def _start_worker(self, children: Children, on_part: Callable[[Part], None]) -> None:
        part = children.celery(
            *("worker", "-P", "threads", "-c", str(THREADS), "--loglevel", "INFO"),
            where=f"{THREADS} threads",
            grace_seconds=GRACE_SECONDS,
        )
        wait_until(says(part, " ready."), part)
        on_part(part)

    def _start_beat(self, children: Children, on_part: Callable[[Part], None]) -> None:
        remembered = str(self.directory / "celerybeat-schedule")
        part = children.celery(
            *("beat", "--loglevel", "INFO", "--schedule", remembered),
            where=f"{len(self._config.schedules)} schedules",
            grace_seconds=GRACE_SECONDS,
        )
        wait_until(says(part, "beat: Starting"), part)
        on_part(part)

    def _start_flower(self, children: Children, on_part: Callable[[Part], None]) -> str | None:
        if importlib.util.find_spec("flower") is None:
            return None
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        part = children.celery(
            *("flower", "--address=127.0.0.1", f"--port={port}"),
            where=url,
            grace_seconds=GRACE_SECONDS,
        )
        wait_until(lambda: _answers(port), part)
        on_part(part)
        return url


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
