"""What both embedded servers have in common: start, ready, stop, and what is said of a failure."""

from __future__ import annotations

import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Self

from heartbit.embedded.directory import DataDirectory, Hold
from heartbit.embedded.process import KeptProcess, Program
from heartbit.errors import ConfigError

_START_SECONDS = 60.0
_POLL_SECONDS = 0.01
_PORTS_TO_TRY = 5
_LAST_LINES = 4


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class EmbeddedServer(ABC):
    """A server that runs as long as this object is entered (or from `start` to `stop`).

    `durable=False` is for tests: the data survives a stop, but not a crash of the machine.
    `system=True` takes the server from PATH instead of the wheel.
    """

    name: ClassVar[str]
    log_name: ClassVar[str]
    grace_seconds: ClassVar[float] = 30.0

    def __init__(
        self,
        data_directory: Path,
        *,
        durable: bool = True,
        system: bool = False,
        choose_port: Callable[[], int] = free_port,
    ) -> None:
        self._path = data_directory
        self._durable = durable
        self._system = system
        self._choose_port = choose_port
        self._hold: Hold | None = None
        self._kept: KeptProcess | None = None
        self._url: str | None = None

    @property
    def url(self) -> str:
        """Where the server answers, its password included; only while it runs."""
        if self._url is None:
            raise ConfigError(f"{self.name} in {self._path} is not running.")
        return self._url

    @property
    def pid(self) -> int | None:
        """The server's process, None while it does not run."""
        return self._kept.pid if self._kept else None

    def is_alive(self) -> bool:
        """Whether the server runs (True a moment longer than it really does)."""
        return self._kept is not None and self._kept.is_alive()

    def start(self) -> None:
        """Start the server and return when it answers; a running one is left alone.

        Raises:
            ConfigError: it is not installed, its directory is in use or not usable, or it ended
                before it answered.
        """
        if self._kept is not None:
            return
        directory = DataDirectory(self._path)
        self._hold = directory.hold(patience_seconds=self.grace_seconds)
        try:
            self._prepare(directory, self._hold)
            self._start_on_a_free_port(directory, self._hold)
        except OSError as error:
            self.stop()
            raise ConfigError(f"{self.name} cannot be started: {error}.") from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server and return when it has ended; a stopped one is left alone."""
        kept, hold = self._kept, self._hold
        self._kept = self._hold = self._url = None
        if kept is not None:
            kept.stop()
        if hold is not None:
            hold.release()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @abstractmethod
    def _prepare(self, directory: DataDirectory, hold: Hold) -> None:
        """Find the programs, and make in the directory what a start needs."""

    @abstractmethod
    def _program(self, directory: DataDirectory, port: int) -> Program:
        """What listens on this port."""

    @abstractmethod
    def _is_ready(self, directory: DataDirectory, port: int) -> bool:
        """Whether the server takes commands."""

    @abstractmethod
    def _url_at(self, directory: DataDirectory, port: int) -> str:
        """Where the server answers on this port."""

    def _start_on_a_free_port(self, directory: DataDirectory, hold: Hold) -> None:
        log = directory.path / self.log_name
        for _ in range(_PORTS_TO_TRY):
            port = self._choose_port()
            self._kept = KeptProcess(self._program(directory, port), log=log, lock=hold.server)
            if self._becomes_ready(self._kept, directory, port):
                self._url = self._url_at(directory, port)
                return
            self._kept.stop()
            # Between the choice of a port and its use anybody may take it.
            if "Address already in use" not in _text(log):
                break
        raise ConfigError(failure(self.name, _text(log), log))

    def _becomes_ready(self, kept: KeptProcess, directory: DataDirectory, port: int) -> bool:
        deadline = time.monotonic() + _START_SECONDS
        while kept.is_alive() and time.monotonic() < deadline:
            if self._is_ready(directory, port):
                return True
            time.sleep(_POLL_SECONDS)
        return False


def failure(name: str, output: str, log: Path) -> str:
    """One sentence with the end of what a server said before it gave up."""
    return f"{name} did not start: {_end_of(output)} (its log is {log})."


def last_words(log: Path) -> str:
    """The last lines of a log, as one."""
    return _end_of(_text(log))


def _end_of(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return " | ".join(lines[-_LAST_LINES:]) or "it said nothing"


def _text(log: Path) -> str:
    return log.read_text(errors="replace") if log.exists() else ""
