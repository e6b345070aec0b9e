"""heartbit in other people's Celery apps: what it adds, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery
from kombu import Queue

from heartbit import install
from heartbit.apps import QUEUES, warn_of_unread
from tests.surfaces.test_celery_app import python


def consumed(app: Celery) -> list[str]:
    """The queues that a plain worker of this app reads."""
    return sorted(app.amqp.queues.consume_from)


def queue_of(app: Celery, name: str) -> str:
    """Where a task of this name goes."""
    routed = app.amqp.router.route({}, name)
    queue = routed.get("queue")
    return queue.name if queue is not None else str(app.conf.task_default_queue)


def make(**settings: object) -> Celery:
    """A host's app that is nobody's current app."""
    app = Celery("host", set_as_current=False, broker="memory://")
    app.conf.update(settings)
    return app


def test_install_adds_includes_routes_and_queues() -> None:
    """And the host's own queue stays."""
    app = make()
    install(app)
    assert ["heartbit.tasks"] == app.conf.include
    assert sorted(["celery", *QUEUES]) == consumed(app)
    assert "heartbit.control" == queue_of(app, "heartbit.run_agent")
    assert "heartbit.llm" == queue_of(app, "heartbit.llm_turn")
    assert "heartbit.tools" == queue_of(app, "heartbit.tool_call")
    assert "celery" == queue_of(app, "host.task")


def test_install_keeps_what_the_host_has() -> None:
    """Its queues, its routes, its includes, in whatever form they are."""
    app = make(
        include=("host.tasks",),
        task_routes={"host.*": {"queue": "own"}, "*": {"queue": "rest"}},
        task_queues={"own": {"exchange": "own", "routing_key": "own"}},
        task_acks_late=False,
    )
    install(app)
    assert ["host.tasks", "heartbit.tasks"] == app.conf.include
    assert sorted(["own", *QUEUES]) == consumed(app)
    assert "own" == queue_of(app, "host.x")
    assert "rest" == queue_of(app, "other.x")
    assert "heartbit.control" == queue_of(app, "heartbit.run_agent")
    assert app.conf.task_acks_late is False


def test_install_adds_only_queues_that_are_missing() -> None:
    """A host may declare one of ours its own way."""
    app = make(task_queues=[Queue("own"), Queue("heartbit.llm", routing_key="special")])
    install(app)
    assert sorted(["own", *QUEUES]) == consumed(app)
    assert "special" == app.amqp.queues["heartbit.llm"].routing_key


@pytest.mark.parametrize("when", ["before", "after", "twice"])
def test_install_works_before_and_after_the_app_is_configured(when: str) -> None:
    """Django configures late, others at once."""
    app = make()
    if when != "after":
        install(app)
    app.config_from_object({"task_default_queue": "mine"})
    assert "mine" == app.conf.task_default_queue
    if when != "before":
        install(app)
    assert ["heartbit.tasks"] == app.conf.include
    assert sorted(["mine", *QUEUES]) == consumed(app)


def test_reliability_does_not_depend_on_the_hosts_settings() -> None:
    """The options are on the tasks."""
    code = (
        "from celery import Celery; app = Celery('host', task_cls='celery.Task');"
        "app.conf.update(task_acks_late=False, task_ignore_result=True, task_serializer='pickle');"
        "from heartbit.tasks import run_agent, finish_run, llm_turn as t;"
        "print(t.app is app, t.acks_late, t.reject_on_worker_lost, t.track_started, t.serializer,"
        " run_agent.ignore_result, finish_run.ignore_result)"
    )
    assert "True True True False json False False" == python(code)


def test_importing_the_tasks_makes_no_app() -> None:
    """And becomes nobody's current app."""
    code = (
        "import sys; from celery import _state; import heartbit.tasks, heartbit.results;"
        "print(len(_state._get_active_apps()), _state._tls.current_app, _state.default_app,"
        " 'heartbit.celery' in sys.modules)"
    )
    assert "0 None None False" == python(code)


@pytest.mark.slow
def test_a_program_without_an_app_gets_ours() -> None:
    """`run_agent.delay()` of a plain script goes where heartbit.toml says, from any thread."""
    code = (
        "import threading; from heartbit.tasks import run_agent;"
        "print(run_agent.app.main);"
        "t = threading.Thread(target=lambda: print(run_agent.app.main)); t.start(); t.join()"
    )
    assert "heartbit\nheartbit" == python(code)


@pytest.mark.slow
def test_a_thread_of_a_host_gets_the_hosts_app() -> None:
    """Celery's current app is known only to the thread that made it."""
    code = (
        "import threading; from celery import Celery; app = Celery('host');"
        "from heartbit.tasks import run_agent\n"
        "for _ in range(2):\n"
        "    t = threading.Thread(target=lambda: print(run_agent.app.main)); t.start(); t.join()"
    )
    assert ["host", "host"] == python(code).split()


def test_a_thread_beside_several_apps_is_told_to_choose() -> None:
    """Guessing would send a run to the wrong broker."""
    code = (
        "import threading; from celery import Celery; a = Celery('a'); b = Celery('b');\n"
        "from heartbit.tasks import run_agent\n"
        "def use():\n"
        "    try: run_agent.app\n"
        "    except Exception as error: print(error)\n"
        "t = threading.Thread(target=use); t.start(); t.join()"
    )
    assert "several Celery apps (a, b): call set_default()" in python(code)


def test_a_tool_is_looked_up_in_the_hosts_app_from_any_thread() -> None:
    """Agents are resolved on a thread of their own, where Celery would make an app of its own."""
    program = (
        "import threading\n"
        "from celery import Celery\n"
        "app = Celery('shop', broker='memory://')\n"
        "@app.task(name='shop.ship')\n"
        "def ship(number: int) -> str: ...\n"
        "from heartbit.apps import celery_tool\n"
        "def look():\n"
        "    print(*celery_tool('celery:shop.ship', None).spec.input_schema['properties'])\n"
        "for _ in range(2):\n"
        "    thread = threading.Thread(target=look); thread.start(); thread.join()"
    )
    assert ["number", "number"] == python(program).split()


def test_a_queue_that_nobody_reads_is_warned_about(
    fleet: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Steps would wait there for ever; queues that are read are not named."""
    warn_of_unread(fleet.app, [*QUEUES, "gpu"])
    [record] = [r for r in caplog.records if r.name == "heartbit.celery"]
    assert "No worker reads gpu" in record.getMessage()
    assert "heartbit.llm" not in record.getMessage()
