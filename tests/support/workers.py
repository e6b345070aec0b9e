"""Celery workers in processes of their own, ended by a warm shutdown."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.repository import ROOT

SECONDS = 30


def addresses(broker: str, database: str, number: int, *paths: Path) -> dict[str, str]:
    """What processes see: a Redis database in which no other worker reads, and these imports."""
    broker = f"{broker.rpartition('/')[0]}/{number}"
    return os.environ | {
        "CELERY_BROKER_URL": broker,
        "CELERY_RESULT_BACKEND": broker,
        "DATABASE_URL": database,
        "PYTHONPATH": ":".join(map(str, (*paths, ROOT))),
    }


@contextmanager
def worker(
    app: str, environ: Mapping[str, str], folder: Path, log: Path, *options: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of `app`, started in `folder` and ready for work."""
    command = [sys.executable, "-m", "celery", "-A", app, "worker", "-l", "INFO", *options]
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, env=environ, stdout=out, stderr=out)
        try:
            end = time.monotonic() + SECONDS
            while " ready." not in (said := log.read_text(errors="replace")):
                assert process.poll() is None, said
                assert time.monotonic() < end, said
                time.sleep(0.05)
            yield process
        finally:
            process.terminate()
            process.wait(SECONDS)
            print(log.read_text(errors="replace"))  # shown if the test fails


def run(*arguments: str, environ: Mapping[str, str], folder: Path) -> str:
    """What a Python program prints."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout.strip()
