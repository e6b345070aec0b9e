"""`heartbit serve`: a worker and beat as one command, and nothing of them left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from heartbit.stores.migrate import migrate
from tests.support.canvas import until
from tests.support.command_line import COMMAND, environment, heartbit
from tests.support.durable_agents import CONFIG, addresses, wait_for_line
from tests.support.repository import ROOT

SECONDS = 30
SCHEDULE = """
[[daemon.schedules]]
name = "often"
cron = "* * * * * *"
task = "say hi"
agent = "reader"
"""
PATIENT = """
import asyncio
from pathlib import Path

async def reply(request):
    Path("begun").touch()
    while not Path("go").exists():
        await asyncio.sleep(0.01)
    return "done"
"""


class Serve:
    """A running `heartbit serve --json`."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.folder = folder
        self.process = process

    @property
    def log(self) -> str:
        """What it and its children wrote to stderr."""
        return (self.folder / "err.log").read_text()

    @property
    def children(self) -> dict[str, int]:
        """Names and process ids."""
        told = json.loads((self.folder / "out.log").read_text())
        return {each["name"]: each["pid"] for each in told["processes"]}

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the command itself."""
        os.kill(self.process.pid, number)

    def alive(self) -> list[int]:
        """Every process that still writes to its log, whoever its parent is by now."""
        return [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and self._is_ours(pid)]

    def _is_ours(self, pid: str) -> bool:
        try:
            return os.readlink(f"/proc/{pid}/fd/2") == str(self.folder / "err.log")
        except OSError:
            return False


@contextmanager
def serving(folder: Path, env: dict[str, str], *flags: str) -> Iterator[Serve]:
    """`heartbit serve` until the end of the block."""
    command = [*COMMAND, "serve", "--json", "--concurrency", "4", *flags]
    with (folder / "out.log").open("wb") as out, (folder / "err.log").open("wb") as err:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(env),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
    serve = Serve(folder, process)
    try:
        wait_for_line(folder / "err.log", " ready.", process)
        wait_for_line(folder / "err.log", "beat: Starting", process)
        yield serve
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        until(lambda: not serve.alive(), SECONDS)


@pytest.fixture
def env(make_database: Callable[..., str], valkey: str) -> dict[str, str]:
    """The session's servers, and a database that was set up as people do it."""
    url = make_database()
    migrate(url)
    return addresses(url, valkey)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where agents and a schedule are configured."""
    (tmp_path / "heartbit.toml").write_text(CONFIG + SCHEDULE)
    return tmp_path


def rows(folder: Path, env: dict[str, str]) -> list[dict[str, Any]]:
    """The runs that there are."""
    found: list[dict[str, Any]] = json.loads(heartbit("runs", "--json", cwd=folder, env=env).out)[
        "runs"
    ]
    return found


@pytest.mark.slow
def test_worker_and_beat_run_until_a_signal_and_stop_warmly(
    folder: Path, env: dict[str, str]
) -> None:
    """Beat starts a run; SIGTERM comes in its turn, which is done to its end before all is over."""
    (folder / "patient.py").write_text(PATIENT)
    configured = (folder / "heartbit.toml").read_text()
    patient = configured.replace("tests.support.durable_agents:reply", "patient:reply", 1)
    (folder / "heartbit.toml").write_text(patient)
    with serving(folder, env | {"PYTHONPATH": f"{folder}:{ROOT}"}) as serve:
        assert ["worker", "beat"] == list(serve.children)
        until((folder / "begun").exists, SECONDS)
        serve.send(signal.SIGTERM)
        until(lambda: "worker: Warm shutdown" in serve.log, SECONDS)
        (folder / "go").touch()
        assert 3 == serve.process.wait(SECONDS)
        assert [] == serve.alive()
        assert "stopping" in serve.log
        assert "Traceback" not in serve.log
    assert "succeeded" in {row["status"] for row in rows(folder, env)}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["worker", "beat"])
def test_the_end_of_one_ends_the_command(folder: Path, env: dict[str, str], name: str) -> None:
    """Half of a machine would look as if it worked; whoever supervises it must know."""
    with serving(folder, env) as serve:
        os.kill(serve.children[name], signal.SIGKILL)
        assert 128 + signal.SIGKILL == serve.process.wait(SECONDS)
        assert [] == serve.alive()
        assert f"error: {name} ended with exit code 137; what it wrote last is above." in serve.log


@pytest.mark.slow
def test_a_killed_serve_leaves_no_orphan(folder: Path, env: dict[str, str]) -> None:
    """kill -9 gives it no chance to clean up; the kernel tells its children."""
    with serving(folder, env) as serve:
        assert len(serve.alive()) >= 5
        serve.send(signal.SIGKILL)
        serve.process.wait(SECONDS)
        until(lambda: not serve.alive(), SECONDS)


def test_what_keeps_it_from_starting_is_one_sentence(
    folder: Path, make_database: Callable[..., str], tmp_path: Path
) -> None:
    nowhere = {"XDG_STATE_HOME": str(tmp_path)}
    done = heartbit("serve", cwd=folder, env=nowhere)
    assert (2, True) == (done.code, "Durable runs need a PostgreSQL database" in done.err)
    empty = {"HEARTBIT_DATABASE_URL": make_database()}
    done = heartbit("serve", cwd=folder, env=nowhere | empty)
    assert (2, True) == (done.code, "0001_journal" in done.err)
    assert done.err.endswith("run `heartbit migrate`.\n")
    assert "" == done.out


def test_a_pool_or_a_number_that_cannot_be_is_a_usage_error(folder: Path) -> None:
    for flags in (["--pool", "swimming"], ["--concurrency", "0"]):
        done = heartbit("serve", *flags, cwd=folder)
        assert (2, True) == (done.code, "heartbit serve --help" in done.err)
