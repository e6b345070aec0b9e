"""`heartbit dev`: one command for everything durable runs need, and nothing of it left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from heartbit.embedded.address import Addresses, announce, find_running, state_directory, withdraw
from tests.support.command_line import COMMAND, environment, heartbit
from tests.support.durable_agents import CONFIG, wait_for_line

SECONDS = 30


class Dev:
    """A running `heartbit dev`."""

    def __init__(self, folder: Path, state: Path, process: subprocess.Popen[bytes]) -> None:
        self.folder = folder
        self.state = state
        self.process = process

    @property
    def said(self) -> str:
        """What it has printed so far."""
        return (self.folder / "dev.log").read_text()

    @property
    def running(self) -> dict[str, Any]:
        """What it tells the other commands."""
        found: dict[str, Any] = json.loads((self.state / "heartbit/running.json").read_text())
        return found

    def stop(self, number: signal.Signals) -> int:
        """Send a signal and give the exit code."""
        os.kill(self.process.pid, number)
        return self.process.wait(SECONDS)

    def descendants(self) -> list[int]:
        """Every process that works in its directories, whoever its parent is by now."""
        return [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and self._is_ours(pid)]

    def _is_ours(self, pid: str) -> bool:
        try:
            files = os.listdir(f"/proc/{pid}/fd")
            links = [os.readlink(f"/proc/{pid}/fd/{each}") for each in files]
        except OSError:
            return False
        return any(link.startswith(str(self.state)) for link in links)


@pytest.fixture
def folder(server_directory: Path) -> Path:
    """Where the agents are configured; as root the servers' user may enter it."""
    path = server_directory / "work"
    path.mkdir()
    (path / "heartbit.toml").write_text(CONFIG)
    return path


@contextmanager
def started(folder: Path, *flags: str, **env: str) -> Iterator[Dev]:
    """`heartbit dev` until the end of the block."""
    state = folder.parent / "state"
    log = folder / "dev.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*COMMAND, "dev", *flags],
            cwd=folder,
            env=environment({"XDG_STATE_HOME": str(state), **env}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    dev = Dev(folder, state, process)
    try:
        wait_for_line(log, "ready:", process)
        yield dev
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        until(lambda: not dev.descendants())


def until(condition: Callable[[], Any]) -> Any:
    """Wait until a condition holds."""
    end = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)
    return found


@pytest.mark.slow
def test_other_commands_find_what_dev_runs_and_the_data_outlives_it(folder: Path) -> None:
    """No address is written down anywhere by the person, and the second start has the runs."""
    with started(folder) as dev:
        env = {"XDG_STATE_HOME": str(dev.state)}
        done = heartbit("submit", "say hello", "--agent", "saver", "--wait", cwd=folder, env=env)
        assert (0, "hello\n") == (done.code, done.out)
        assert 0 == heartbit("doctor", cwd=folder, env=env).code
        assert 3 == dev.stop(signal.SIGINT)
        assert [] == dev.descendants()
        assert not (dev.state / "heartbit/running.json").exists()
    with started(folder) as dev:
        rows = json.loads(heartbit("runs", "--json", cwd=folder, env=env).out)["runs"]
        assert ["say hello"] == [row["prompt"] for row in rows]


@pytest.mark.slow
def test_dev_runs_beat_and_flower_too(folder: Path) -> None:
    """A schedule of the file starts its run, and Flower lists the turn under the run's id."""
    with (folder / "heartbit.toml").open("a") as file:
        file.write(
            '[[daemon.schedules]]\nname = "often"\ncron = "* * * * * *"\n'
            'task = "say hi"\nagent = "reader"\n'
        )
    with started(folder) as dev:
        assert "beat        1 schedules  (log: " in dev.said
        flower = dev.running["flower_url"]
        assert f"flower      {flower}  (log: " in dev.said
        # The first runs may be over before Flower has begun to listen, so any of them will do.
        run_id = until(
            lambda: next(
                (run for run in succeeded(folder, dev) if tasks(flower, "heartbit.llm_turn", run)),
                None,
            )
        )
        assert 1 == len(tasks(flower, "heartbit.llm_turn", run_id))
        assert [] == [each.name for each in folder.iterdir() if "celerybeat" in each.name]


def succeeded(folder: Path, dev: Dev) -> list[str]:
    """The ids of the runs that have succeeded, newest first."""
    env = {"XDG_STATE_HOME": str(dev.state)}
    rows = json.loads(heartbit("runs", "--json", cwd=folder, env=env).out)["runs"]
    return [row["run_id"] for row in rows if row["status"] == "succeeded"]


def tasks(flower: str, name: str, root_id: str) -> list[dict[str, Any]]:
    """What Flower knows of the tasks of a name below a root."""
    with urllib.request.urlopen(f"{flower}/api/tasks", timeout=SECONDS) as answer:
        found = json.load(answer).values()
    return [each for each in found if (each["name"], each["root_id"]) == (name, root_id)]


@pytest.mark.slow
def test_a_killed_dev_leaves_no_orphan_and_starts_again(folder: Path) -> None:
    """kill -9 gives it no chance to clean up; the kernel tells its children."""
    with started(folder) as dev:
        assert len(dev.descendants()) > 4
        dev.stop(signal.SIGKILL)
        until(lambda: not dev.descendants())
        assert (dev.state / "heartbit/running.json").exists()
        done = heartbit("runs", cwd=folder, env={"XDG_STATE_HOME": str(dev.state)})
        assert (2, True) == (done.code, "PostgreSQL database" in done.err)
    with started(folder) as dev:
        assert dev.process.pid == dev.running["pid"]


@pytest.mark.slow
def test_a_second_dev_says_who_is_first(folder: Path) -> None:
    with started(folder) as dev:
        done = heartbit("dev", cwd=folder, env={"XDG_STATE_HOME": str(dev.state)})
        assert 2 == done.code
        assert f"in use by process {dev.process.pid}" in done.err


@pytest.mark.slow
def test_the_end_of_a_child_ends_everything_with_its_last_words(folder: Path) -> None:
    """Half a stack would look as if it worked."""
    with started(folder) as dev:
        worker = next(pid for pid in dev.descendants() if "heartbit\0worker" in command_line(pid))
        os.kill(worker, signal.SIGKILL)
        assert 128 + signal.SIGKILL == dev.process.wait(SECONDS)
        assert "error: worker ended with exit code 137" in dev.said
        assert "ready." in dev.said
        assert [] == dev.descendants()


@pytest.mark.slow
def test_a_configured_database_and_broker_are_used(
    folder: Path, make_database: Callable[..., str], valkey: str
) -> None:
    """What is written in the file wins; only the worker is started."""
    url = make_database()
    with (folder / "heartbit.toml").open("a") as file:
        file.write(f'[database]\nurl = "{url}"\n[celery]\nbroker_url = "{valkey}"\n')
    env = {"XDG_STATE_HOME": str(folder.parent / "state")}
    done = heartbit("dev", cwd=folder, env=env)
    assert (2, True) == (done.code, "run `heartbit migrate`" in done.err)
    assert 0 == heartbit("migrate", cwd=folder).code
    with started(folder, "--config", "heartbit.toml") as dev:
        assert (None, None) == (dev.running["database_url"], dev.running["broker_url"])
        assert "PostgreSQL" not in dev.said
        done = heartbit("submit", "say hi", "--agent", "saver", "--wait", cwd=folder)
        assert (0, "hi\n") == (done.code, done.out)


def command_line(pid: int) -> str:
    """How a process was started."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_only_their_owner_can_read_the_addresses(tmp_path: Path) -> None:
    announce(tmp_path, Addresses(pid=os.getpid(), database_url="postgresql://u:secret@h/d"))
    assert 0o600 == (tmp_path / "running.json").stat().st_mode & 0o777
    assert ["running.json"] == os.listdir(tmp_path)


def test_what_a_killed_dev_left_is_not_taken_for_a_running_one(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    announce(tmp_path, Addresses(pid=ended.pid))
    assert find_running(tmp_path) is None


def test_addresses_are_found_until_they_are_withdrawn(tmp_path: Path) -> None:
    assert find_running(tmp_path) is None
    addresses = Addresses(pid=os.getpid(), broker_url="redis://127.0.0.1:1/0")
    announce(tmp_path, addresses)
    assert addresses == find_running(tmp_path)
    withdraw(tmp_path)
    withdraw(tmp_path)
    assert find_running(tmp_path) is None


@pytest.mark.parametrize("text", ["", "[]", '{"pid": "x"}', '{"strange": 1}'])
def test_a_file_of_another_release_is_no_running_dev(tmp_path: Path, text: str) -> None:
    (tmp_path / "running.json").write_text(text)
    assert find_running(tmp_path) is None


def test_the_data_is_where_the_system_wants_state(tmp_path: Path) -> None:
    """Root's own home is closed to the user that its PostgreSQL runs as."""
    home = {"HOME": str(tmp_path)}
    assert tmp_path / ".local/state/heartbit" == state_directory(home, root=False)
    assert Path("/var/lib/heartbit") == state_directory(home, root=True)
    given = home | {"XDG_STATE_HOME": str(tmp_path / "s")}
    assert tmp_path / "s/heartbit" == state_directory(given, root=True)
