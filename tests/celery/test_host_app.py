"""The example of a host application, with a worker that is a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.repository import ROOT

EXAMPLE = ROOT / "examples" / "host_app"
SECONDS = 60
"""Two processes start in a test; on a machine with ten times its load that takes half of it."""


def environment(broker: str, database: str) -> dict[str, str]:
    """What the example's processes see: a Redis database in which no other worker reads."""
    broker = f"{broker.rpartition('/')[0]}/5"
    addresses = {"CELERY_BROKER_URL": broker, "CELERY_RESULT_BACKEND": broker}
    return os.environ | addresses | {"DATABASE_URL": database, "PYTHONPATH": f"{EXAMPLE}:{ROOT}"}


@contextmanager
def worker(app: str, environ: Mapping[str, str], log: Path, *options: str) -> Iterator[Any]:
    """A worker process, ready for work; ended by a warm shutdown."""
    command = [sys.executable, "-m", "celery", "-A", app, "worker", "-l", "INFO", *options]
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=EXAMPLE, env=environ, stdout=out, stderr=out)
        try:
            end = time.monotonic() + SECONDS
            while " ready." not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.05)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(SECONDS)
            print(log.read_text())  # shown if the test fails


def python(*arguments: str, environ: Mapping[str, str]) -> str:
    """What a program of the example prints."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=EXAMPLE,
        env=environ,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("pool", [("-P", "threads", "-c", "4"), ("-P", "prefork", "-c", "2")])
def test_the_hosts_chain_goes_through_an_agent(
    valkey: str, postgres: str, tmp_path: Path, pool: tuple[str, ...]
) -> None:
    """Its own tasks before and after `run_agent`, in threads and in forked children."""
    environ = environment(valkey, postgres)
    log = tmp_path / "worker.log"
    with worker("shop", environ, log, *pool) as process:
        got = python("shop.py", "4711", environ=environ)
    assert "To customer@example.com: We are sorry. A leaking kettle is refunded" in got
    assert 0 == process.returncode
    assert "Traceback" not in log.read_text()
    with psycopg.connect(postgres) as connection:
        rows = connection.execute("select status, agent from runs").fetchall()
    assert [("succeeded", "support")] == rows


@pytest.mark.slow
def test_results_come_through_any_backend(valkey: str, postgres: str, tmp_path: Path) -> None:
    """With rpc:// they are messages to whoever asked: the deferred end knows the address."""
    environ = environment(valkey, postgres) | {"CELERY_RESULT_BACKEND": "rpc://"}
    with worker("shop", environ, tmp_path / "worker.log", "-P", "threads", "-c", "4"):
        got = python("shop.py", "4711", environ=environ)
    assert "A leaking kettle is refunded" in got


@pytest.mark.slow
def test_a_program_without_an_app_shares_the_fleets(
    valkey: str, postgres: str, tmp_path: Path
) -> None:
    """`celery -A heartbit worker`, and a script that imports `run_agent` and nothing else."""
    environ = environment(valkey, postgres)
    program = (
        "from heartbit.tasks import run_agent\n"
        "print(run_agent.delay('4711', agent='support').get(timeout=20)['result'])"
    )
    with worker("heartbit", environ, tmp_path / "worker.log", "-P", "threads", "-c", "4"):
        assert "leaking kettle" in python("-c", program, environ=environ)


@pytest.mark.slow
def test_a_worker_with_a_wrong_password_says_so_and_keeps_running(
    valkey: str, postgres: str, tmp_path: Path
) -> None:
    """One sentence for the caller, no traceback in the log, no password in either."""
    wrong = re.sub(r"(?<=://)(\w+):[^@]*@", r"\1:not-the-password@", postgres)
    assert wrong != postgres
    environ, log = environment(valkey, wrong), tmp_path / "worker.log"
    program = (
        "from heartbit.tasks import run_agent\n"
        "for _ in range(2):\n"
        "    try: run_agent.delay('4711', agent='support').get(timeout=20)\n"
        "    except Exception as error: print(type(error).__name__, error)"
    )
    with worker("heartbit", environ, log, "-P", "threads", "-c", "4") as process:
        said = python("-c", program, environ=environ)
        assert process.poll() is None
    assert 2 == said.count("JournalError The database refused the password")
    assert "Traceback" not in log.read_text()
    assert "not-the-password" not in said + log.read_text()


def test_a_broken_configuration_is_one_sentence(tmp_path: Path) -> None:
    """`celery -A heartbit worker` with a misspelt key ends with the line and exit code 2."""
    (tmp_path / "heartbit.toml").write_text('[celery]\nbroker_ulr = "redis://x/0"\n')
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "heartbit", "worker"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert 2 == done.returncode
    assert "broker_ulr" in done.stderr
    assert "Traceback" not in done.stderr
