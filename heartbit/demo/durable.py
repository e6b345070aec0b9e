"""`python -m heartbit.demo.durable [PROMPT]`: a run that survives the worker it runs on.

It starts PostgreSQL, Valkey and a worker, submits a run, kills the worker with SIGKILL in the
middle, starts another one, has a process of its own approve the call that waits, and shows what was
done twice: nothing that stood in the journal.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from heartbit.demo.fleet import ASKED, BOARD
from heartbit.embedded import EmbeddedPostgres, EmbeddedValkey
from heartbit.embedded.directory import DataDirectory
from heartbit.embedded.process import KeptProcess, Program
from heartbit.embedded.server import last_words
from heartbit.errors import HeartbitError
from heartbit.stores.migrate import migrate

PROMPT = "The number of the day is 360360."
CONFIG = Path(__file__).with_name("fleet.toml")
PATIENCE_SECONDS = 60.0
POLL_SECONDS = 0.1


class Demo:
    """The workers and the commands of one demonstration; every one is a process of its own."""

    def __init__(self, directory: Path, env: dict[str, str], resources: ExitStack) -> None:
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

    def heartbit(self, *arguments: str) -> Any:
        """What a command prints with --json."""
        done = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", "heartbit", *arguments, "--json"],
            env=self._env,
            capture_output=True,
            text=True,
            check=False,
        )
        if not done.stdout:
            raise HeartbitError(f"`heartbit {arguments[0]}` said: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def notes(self, name: str) -> list[str]:
        """What the agents wrote down, line by line."""
        path = self._directory / name
        return path.read_text().splitlines() if path.exists() else []

    def turns(self, run_id: str) -> set[str]:
        """The turns in the journals of a run and those below it, as the model's log names them."""
        runs = self.heartbit("status", run_id)["runs"]
        return {f"{run['agent']} {turn}" for run in runs for turn in range(1, run["turns"] + 1)}


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


def main(prompt: str) -> int:
    """Show it, and give the exit code: 0 if all that is promised was seen."""
    with tempfile.TemporaryDirectory(prefix="heartbit-demo-") as name, ExitStack() as resources:
        directory = Path(name)
        directory.chmod(0o711)  # root's PostgreSQL is another user
        say("Starting PostgreSQL, Valkey and a worker ...")
        database = resources.enter_context(EmbeddedPostgres(directory / "postgres"))
        broker = resources.enter_context(EmbeddedValkey(directory / "valkey"))
        migrate(database.url)
        demo = Demo(directory, environment(directory, database.url, broker.url), resources)
        return show(demo, prompt)


def environment(directory: Path, database: str, broker: str) -> dict[str, str]:
    """What the demo's processes see."""
    return os.environ | {
        "HEARTBIT_CONFIG": str(CONFIG),
        "HEARTBIT_DATABASE_URL": database,
        "CELERY_BROKER_URL": broker,
        "CELERY_RESULT_BACKEND": broker,
        "HEARTBIT_DEMO_DIRECTORY": str(directory),
    }


def show(demo: Demo, prompt: str) -> int:
    """The demonstration, once the servers run."""
    first = demo.start_worker("worker-1")
    run_id = demo.heartbit("submit", prompt)["run_id"]
    say(f"Submitted {prompt!r} as run {run_id}.")
    until(lambda: len(demo.notes(ASKED)) > 2)
    assert first.pid is not None  # noqa: S101 - it was ready
    os.kill(first.pid, signal.SIGKILL)
    asked, journaled = demo.notes(ASKED), demo.turns(run_id)
    lost = sorted(set(asked) - journaled)
    say(f"Killed worker-1 (SIGKILL). In the journal: {listed(journaled)}. Lost: {listed(lost)}.")
    demo.start_worker("worker-2")
    (question,) = until(lambda: demo.heartbit("status", run_id)["pending"])
    say(f"worker-2 goes on; the {question['agent']} asks about {question['calls'][0]['name']}.")
    demo.heartbit("approve", run_id, "--all")
    say("Another process has approved it.")
    output = demo.heartbit("result", run_id, "--wait", str(PATIENCE_SECONDS))
    later = demo.notes(ASKED)[len(asked) :]
    again, board = sorted(set(later) & journaled), demo.notes(BOARD)
    say(f"\n{output['result']}\n")
    say(f"Asked again of the model: {listed(again)} of the turns that stood in the journal,")
    say(f"{listed(set(later) & set(lost))} of those that were lost with worker-1.")
    say(f"Lines on the board: {len(board)}.")
    return 0 if (output["status"], again, len(board)) == ("succeeded", [], 1) else 1


def listed(names: Any) -> str:
    """Names in a sentence."""
    return ", ".join(sorted(names)) or "none"


def say(line: str) -> None:
    """Tell the person."""
    print(line, flush=True)  # noqa: T201 - the demo is its output


if __name__ == "__main__":
    try:
        sys.exit(main(" ".join(sys.argv[1:]).strip() or PROMPT))
    except HeartbitError as error:
        sys.exit(f"error: {error.message}")
    except KeyboardInterrupt:
        sys.exit(3)
