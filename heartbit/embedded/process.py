"""Starting a server under a keeper, and what is known of it while it runs.

Nothing here knows which server it is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

_KEEPER = Path(__file__).with_name("keeper.py")
_KEEPER_GRACE_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """What to run, where, as whom (None: the same user), and how it is asked to stop.

    `environment` is all that it sees of ours; None is what suits a server.
    """

    command: tuple[str, ...]
    directory: Path
    user: str | None
    stop_signal: int
    grace_seconds: float
    environment: Mapping[str, str] | None = None


class KeptProcess:
    """A server and its keeper, from the constructor to `stop`.

    `pid` is the server's, None when it could not even be executed. `lock` is a file descriptor
    that keeper and server hold open as long as they live. Their output goes to the file `log`,
    which starts anew (what was in it is kept beside it with the suffix .old), or to our standard
    error.
    """

    def __init__(self, program: Program, *, log: Path | None, lock: int | None) -> None:
        if log is not None and log.exists():
            log.replace(log.with_name(log.name + ".old"))
        order = {
            "command": program.command,
            "directory": str(program.directory),
            "user": program.user,
            "stop_signal": program.stop_signal,
            "grace_seconds": program.grace_seconds,
            "owner": os.getpid(),
            "kept_open": _given(lock),
        }
        self._patience = program.grace_seconds + _KEEPER_GRACE_SECONDS
        self._keeper = _start_keeper(log, lock, program.environment or environment())
        self._orders = cast("IO[bytes]", self._keeper.stdin)
        self._answers = cast("IO[bytes]", self._keeper.stdout)
        self.pid = self._give(json.dumps(order).encode() + b"\n")

    def _give(self, order: bytes) -> int | None:
        try:
            self._orders.write(order)
            return int(self._answers.readline() or 0) or None
        except BaseException:
            self.stop()
            raise

    def is_alive(self) -> bool:
        """Whether the server is still running (True a moment longer than it really is)."""
        return self._keeper.poll() is None

    @property
    def exit_code(self) -> int | None:
        """That of a server which ended by itself, as shells tell it; None while it runs."""
        return self._keeper.poll()

    def stop(self) -> None:
        """Ask the server to stop and wait until it has; safe to call twice."""
        self._orders.close()
        try:
            self._keeper.wait(self._patience)
        except subprocess.TimeoutExpired:
            self._keeper.kill()  # the server's death signal follows
            self._keeper.wait()
        self._answers.close()


def _start_keeper(
    log: Path | None, lock: int | None, env: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C in the terminal reaches the owner only, who stops in order.
    with _opened(log) as output:
        return subprocess.Popen(  # noqa: S603 - our own script
            [sys.executable, "-I", "-S", str(_KEEPER)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            cwd="/",
            env=env,
            pass_fds=_given(lock),
            start_new_session=True,
        )


def _given(lock: int | None) -> list[int]:
    return [] if lock is None else [lock]


def _opened(log: Path | None) -> AbstractContextManager[IO[bytes] | None]:
    if log is None:
        return nullcontext()
    return os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def environment() -> dict[str, str]:
    """The environment of a server: this one without what would configure it from outside."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return kept | {"LC_ALL": "C"}
