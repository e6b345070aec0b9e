"""The Celery app: found by name, created only when asked for, settings that exist."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
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


@pytest.mark.slow
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


def settings_of(room: Any) -> dict[str, object]:
    """What the app sets, but for addresses."""
    parts = (room.CONNECTIONS, room.DELIVERY, room.MESSAGES, room.BEAT, room.VISIBILITY)
    return {name: value for part in parts for name, value in part.items()}


def test_every_setting_is_one_that_celery_knows() -> None:
    """A misspelt setting is silently ignored by Celery; not by this test."""
    from heartbit import celery as room

    ours = settings_of(room)
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


def explained() -> dict[str, object]:
    """The settings of config/celeryconfig.py."""
    settings = runpy.run_path(str(ROOT / "config" / "celeryconfig.py"))
    return {name: value for name, value in settings.items() if not name.startswith("_")}


def test_the_explained_settings_are_those_of_the_app() -> None:
    """config/celeryconfig.py says what `celery -A heartbit` does, and leaves nothing out."""
    from heartbit import celery as room

    ours = settings_of(room)
    by_install = {"imports", "task_default_queue", "task_routes", "task_queues"}
    assert {k: v for k, v in ours.items() if k not in by_install} == explained()


def test_every_explained_setting_has_its_reason() -> None:
    """A comment stands above each."""
    lines = (ROOT / "config" / "celeryconfig.py").read_text().splitlines()
    settings = [n for n, line in enumerate(lines) if re.match(r'( {4}")?[a-z_]+"?( =|: )', line)]
    bare = [lines[n] for n in settings if not lines[n - 1].lstrip().startswith("#")]
    known = {"result_serializer", "accept_content", '"unacked_restore_throttle"'}
    known |= {'"health_check_interval"', "broker_transport_options"}  # explained with the one above
    assert known == {re.split(" =|: ", line.strip())[0] for line in bare}


@pytest.mark.slow
def test_settings_of_an_own_module_win() -> None:
    """$HEARTBIT_CELERY_CONFIG names it; what it does not say stays."""
    code = (
        "import os, sys, types; mine = types.ModuleType('mine');"
        "mine.worker_prefetch_multiplier = 7; sys.modules['mine'] = mine;"
        "os.environ['HEARTBIT_CELERY_CONFIG'] = 'mine'; from heartbit.celery import app;"
        "print(app.conf.worker_prefetch_multiplier, app.conf.task_acks_late)"
    )
    assert "7 True" == python(code)


@pytest.mark.slow
def test_broker_and_results_are_taken_from_heartbit_toml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a result backend, results are where the messages are; Redis means ours."""
    path = tmp_path / "heartbit.toml"
    path.write_text('[provider]\nname = "scripted"\n[celery]\nbroker_url = "redis://b.test/4"\n')
    monkeypatch.setenv("HEARTBIT_CONFIG", str(path))
    code = (
        "from heartbit.celery import app;"
        "print(app.conf.broker_url, app.conf.result_backend, type(app.backend).__name__)"
    )
    assert "redis://b.test/4 redis://b.test/4 RunBackend" == python(code)


def test_a_missing_settings_module_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a traceback of an import."""
    monkeypatch.setenv("HEARTBIT_CELERY_CONFIG", "no_such_module")
    code = (
        "from heartbit.celery import app\n"
        "try: app.conf.broker_url\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    assert "ConfigError $HEARTBIT_CELERY_CONFIG: No module named 'no_such_module'." == python(code)
