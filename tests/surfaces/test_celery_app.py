"""The Celery app: found by name, created only when asked for, settings that exist."""

from __future__ import annotations

import subprocess
import sys

from celery.app.defaults import NAMESPACES, flatten

from tests.support.repository import ROOT


def python(code: str) -> str:
    """What a fresh interpreter prints for a program."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return done.stdout.strip()


def test_celery_finds_the_app_by_the_name_of_the_package() -> None:
    """`celery -A heartbit` needs no longer path."""
    code = "from celery.bin.celery import find_app; print(find_app('heartbit').main)"
    assert "heartbit" == python(code)


def test_celery_app_py_is_the_same_app() -> None:
    """The file at the top of the repository is only another door."""
    code = "import celery_app, heartbit.celery; print(celery_app.app is heartbit.celery.app)"
    assert "True" == python(code)


def test_importing_heartbit_leaves_the_current_app_alone() -> None:
    """A host application's own app stays the one that its tasks bind to."""
    code = (
        "from celery import Celery, current_app; host = Celery('host'); import heartbit;"
        "print(current_app.main)"
    )
    assert "host" == python(code)


def test_a_plain_worker_serves_every_queue() -> None:
    """Without -Q a worker consumes what task_queues declares; each has a binding of its own."""
    code = (
        "from heartbit.celery import app;"
        "print(*sorted((n, q.routing_key) for n, q in app.amqp.queues.consume_from.items()))"
    )
    names = ["control", "llm", "start", "suspects", "tools"]
    pairs = [(f"heartbit.{name}", f"heartbit.{name}") for name in names]
    assert " ".join(map(str, pairs)) == python(code)


def test_every_setting_is_one_that_celery_knows() -> None:
    """A misspelt setting is silently ignored by Celery; not by this test."""
    from heartbit import celery as room

    ours = {**room.CONNECTIONS, **room.DELIVERY, **room.MESSAGES, **room.VISIBILITY}
    undocumented = {"result_backend_thread_safe"}  # read by celery/backends/base.py
    known = set(dict(flatten(NAMESPACES))) | undocumented
    assert set() == set(ours) - known


def test_the_broker_is_taken_from_celerys_own_variable() -> None:
    """CELERY_BROKER_URL wins over the Redis on this machine."""
    code = (
        "import os; os.environ['CELERY_BROKER_URL'] = 'redis://broker.test:6379/3';"
        "from heartbit.celery import app; print(app.conf.broker_url)"
    )
    assert "redis://broker.test:6379/3" == python(code)
