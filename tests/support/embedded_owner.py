"""A process that owns embedded servers: `python -m tests.support.embedded_owner DIRECTORY [HOW]`.

It prints the servers' process ids and urls as JSON and lives until its standard input ends. HOW is
`thread` (started by a thread that ends at once), `forked` (a child without exec lives on beside
it) or `leaving` (it ends without stopping anything).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from heartbit.embedded import EmbeddedPostgres, EmbeddedValkey
from tests.support.repository import ROOT

GONE_SECONDS = 20


def main(directory: Path, how: str = "") -> None:
    """Start both servers and say so."""
    # Ctrl-C is for whoever asks; this owner survives it, to show what it did to the servers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    servers = (EmbeddedPostgres(directory / "postgres"), EmbeddedValkey(directory / "valkey"))
    starting = threading.Thread(target=lambda: [server.start() for server in servers])
    if how == "thread":
        starting.start()
        starting.join()
    else:
        starting.run()
    child = os.fork() if how == "forked" else None
    if child == 0:
        signal.pause()
    print(
        json.dumps(
            {
                "pids": [server.pid for server in servers],
                "urls": [server.url for server in servers],
                "child": child,
            }
        ),
        flush=True,
    )
    if how != "leaving":
        sys.stdin.read()
        for server in servers:
            server.stop()


class Owner:
    """Such a process, seen from the test that started it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        told: dict[str, Any] = json.loads(process.stdout.readline())
        self.postgres_url, self.valkey_url = told["urls"]
        self.child: int | None = told["child"]
        self.servers = [psutil.Process(pid) for pid in told["pids"]]
        self.keepers = [server.parent() for server in self.servers]

    def left(self) -> list[psutil.Process]:
        """The processes of the servers that have not gone, although they had time for it."""
        return [process for process in self.servers + self.keepers if not is_gone(process)]


def is_gone(process: psutil.Process) -> bool:
    """Whether a process ends within the time a server may need; a zombie has ended."""
    deadline = threading.Event()
    timer = threading.Timer(GONE_SECONDS, deadline.set)
    timer.start()
    try:
        while not deadline.wait(0.02):
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                return True
    except psutil.NoSuchProcess:
        return True
    finally:
        timer.cancel()
    return False


@contextmanager
def owning(directory: Path, how: str = "", **options: Any) -> Iterator[Owner]:
    """An owner of both servers below a directory, gone at the end."""
    command = [options.pop("python", sys.executable), "-m", __name__, str(directory), how]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    ) as process:
        owner = Owner(process)
        try:
            yield owner
        finally:
            process.kill()
            if owner.child:
                os.kill(owner.child, signal.SIGKILL)
            assert [] == owner.left()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
