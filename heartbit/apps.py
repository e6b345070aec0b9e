"""The Celery apps that heartbit's tasks live in: its own, or that of a host.

Importing this module makes no app and touches none.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from typing import Any

from celery import Celery
from celery import _state as celery_state
from kombu import Exchange, Queue

from heartbit.engines.plan import CONTROL_QUEUE, MODEL_QUEUE, START_QUEUE, TOOL_QUEUE
from heartbit.errors import ConfigError
from heartbit.tools.celery_task import CeleryTaskTool, celery_task
from heartbit.tools.registry import ToolOptions

_logger = logging.getLogger("heartbit.celery")

TASKS = "heartbit.tasks"
SUSPECT_QUEUE = "heartbit.suspects"
QUEUES = (
    START_QUEUE,  # first turns: ten thousand new runs wait here and starve nobody
    MODEL_QUEUE,  # the turns of runs that have started
    TOOL_QUEUE,
    CONTROL_QUEUE,  # opening, continuing and finishing runs: quick, no model, no tool
    SUSPECT_QUEUE,  # steps that workers died in run alone
)
# What an engine sends goes to the queue that its step names; these are for everything else.
ROUTES: dict[str, dict[str, str]] = {
    "heartbit.llm_turn": {"queue": MODEL_QUEUE},
    "heartbit.tool_call": {"queue": TOOL_QUEUE},
    "heartbit.index_source": {"queue": TOOL_QUEUE},
    "heartbit.embed_memories": {"queue": TOOL_QUEUE},
    "heartbit.*": {"queue": CONTROL_QUEUE},
}
# Workers are started together; what one of them does not read, the next one may.
UNREAD_AFTER_SECONDS = 10.0


def ensure_app() -> None:
    """See to it that there is a current Celery app.

    A process without any gets heartbit's own. A thread gets the app of its process: Celery's
    "current" is the thread's that made it.

    Raises:
        ConfigError: the process has several apps, and none of them is the default.
    """
    state: Any = celery_state
    if state.default_app is not None:
        return
    apps = list(state._get_active_apps())
    if len(apps) == 1:
        # Celery makes an app of its own in place of a missing default, for all other threads, too
        apps[0].set_default()
    elif state._tls.current_app is not None:
        return
    elif not apps:
        from heartbit.celery import app

        app.set_default()
    else:
        names = ", ".join(sorted(str(app.main) for app in apps))
        raise ConfigError(
            f"This process has several Celery apps ({names}): call set_default() of the one that "
            "heartbit should use."
        )


def celery_tool(reference: str, options: ToolOptions | None) -> CeleryTaskTool:
    """The tool for `celery:task.name`, looked up in the app of this process from any thread of it.

    Raises:
        ConfigError: nobody knows the task's arguments, or which app to ask.
    """
    ensure_app()
    return celery_task(reference, options)


def install(app: Celery) -> None:
    """Make heartbit's tasks part of a host's Celery app: its includes, routes and queues.

    Everything else of the app stays as it is, its broker and its result backend too. It may be
    called before or after the app is configured, and more than once.
    """
    app.on_after_configure.connect(_add_to, weak=False, dispatch_uid="heartbit.install")
    if app.configured:  # type: ignore[attr-defined]
        _add_to(app, app.conf)


def _add_to(sender: Celery, source: Any, **_: Any) -> None:
    included = _listed(source.include)
    if TASKS not in included:
        source.include = [*included, TASKS]
        source.task_routes = [ROUTES, *_listed(source.task_routes)]
        source.task_queues = _with_ours(source.task_queues, source)


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _with_ours(queues: Any, conf: Any) -> list[Queue]:
    """The host's queues and ours; without any of its own, Celery has one, which must stay."""
    if isinstance(queues, dict):
        theirs = [Queue(name, **options) for name, options in queues.items()]
    else:
        theirs = list(queues or [_default_queue(conf)])
    names = {queue.name for queue in theirs}
    return theirs + [queue for queue in our_queues() if queue.name not in names]


def _default_queue(conf: Any) -> Queue:
    kind = {"x-queue-type": "quorum"} if conf.task_default_queue_type == "quorum" else None
    return Queue(
        conf.task_default_queue,
        exchange=Exchange(conf.task_default_exchange, type=conf.task_default_exchange_type),
        routing_key=conf.task_default_routing_key,
        queue_arguments=kind,
    )


def our_queues() -> list[Queue]:
    """The queues of heartbit, each with a binding of its own."""
    return [Queue(name, Exchange(name), routing_key=name) for name in QUEUES]


def watch_queues(app: Celery, own: Iterable[str], wanted: Iterable[str]) -> None:
    """Warn a while after the start about queues that no worker reads: steps would wait there."""
    missing = set(wanted) - set(own)
    if missing:
        timer = threading.Timer(UNREAD_AFTER_SECONDS, warn_of_unread, [app, missing])
        timer.daemon = True
        timer.start()


def warn_of_unread(app: Celery, wanted: Iterable[str]) -> None:
    """Warn about those of the queues that no worker of the fleet reads."""
    replies = app.control.inspect().active_queues() or {}
    read = {queue["name"] for queues in replies.values() for queue in queues}
    unread = sorted(set(wanted) - read)
    if unread:
        names = ", ".join(unread)
        _logger.warning(
            "No worker reads %s: what is sent there waits. Start one with -Q %s",
            names,
            names.replace(" ", ""),
        )
