"""Programs of Celery as children of this process: they end when it does, however it ends.

Each is kept by a keeper of its own. Whoever starts them waits for a signal or for the end of one.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from heartbit.embedded.process import KeptProcess, Program
from heartbit.embedded.server import last_words
from heartbit.errors import ConfigError

READY_SECONDS = 60.0
POLL_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One of the children: what is told of it, and where it writes (None: where this one does)."""

    name: str
    where: str
    log: Path | None
    pid: int | None
    is_alive: Callable[[], bool]
    exit_code: Callable[[], int | None]

    def epitaph(self) -> str:
        """What is said when it has ended by itself: its exit code and the end of its log."""
        code = self.exit_code()
        how = f"with exit code {code}" if code is not None else "by itself"
        if self.log is None:
            return f"{self.name} ended {how}; what it wrote last is above."
        return f"{self.name} ended {how}: {last_words(self.log)} (its log is {self.log})."


class Children:
    """Children in the order of their start, from the first one to `stop`.

    With `logs` each writes a file of its own there; otherwise to our standard error. `lock` is held
    open by all of them.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        cwd: Path,
        logs: Path | None = None,
        lock: int | None = None,
    ) -> None:
        self.parts: list[Part] = []
        self.running = ExitStack()
        self._environ = dict(environ)
        self._cwd = cwd
        self._logs = logs
        self._lock = lock

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop them, the last one first, and return when all have ended."""
        self.running.close()

    def dead(self) -> Part | None:
        """A child that has ended by itself."""
        return next((part for part in self.parts if not part.is_alive()), None)

    def celery(self, *arguments: str, where: str, grace_seconds: float) -> Part:
        """Start `celery -A heartbit ...`; a child gets `grace_seconds` to end when it is told to.

        Children are named by the first of `arguments`.
        """
        log = self._logs / f"{arguments[0]}.log" if self._logs else None
        program = Program(
            command=(sys.executable, "-m", "celery", "-A", "heartbit", *arguments),
            directory=self._cwd,
            user=None,
            stop_signal=signal.SIGTERM,
            grace_seconds=grace_seconds,
            environment=self._environ,
        )
        kept = KeptProcess(program, log=log, lock=self._lock)
        self.running.callback(kept.stop)
        part = Part(
            name=arguments[0],
            where=where,
            log=log,
            pid=kept.pid,
            is_alive=kept.is_alive,
            exit_code=lambda: kept.exit_code,
        )
        self.parts.append(part)
        return part


def wait_until(ready: Callable[[], bool], part: Part) -> None:
    """Wait until a child does what it is for.

    Raises:
        ConfigError: it has ended, or does not come to it.
    """
    until = time.monotonic() + READY_SECONDS
    while not ready():
        if not part.is_alive():
            raise ConfigError(part.epitaph())
        if time.monotonic() > until:
            raise ConfigError(f"{part.name} does not get ready (its log is {part.log}).")
        time.sleep(POLL_SECONDS)


def says(part: Part, text: str) -> Callable[[], bool]:
    """Whether the log of a child has this text."""
    return lambda: part.log is not None and text in part.log.read_text(errors="replace")
