"""What heartbit does in a Celery worker besides its tasks: revoked runs, unread queues, the end.

The handlers below are connected when this module is imported, which heartbit.tasks does; none of
them ever runs in a process that is no worker.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterable
from typing import Any

from celery import current_app
from celery.signals import (
    task_revoked,
    worker_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutdown,
    worker_shutting_down,
)

from heartbit import runtime as process
from heartbit import visibility
from heartbit.apps import QUEUES, watch_queues
from heartbit.engines.ids import run_id_of_task
from heartbit.errors import HeartbitError, RunNotFound
from heartbit.outbox import FINISH_RUN, RUN_AGENT, CeleryOutbox, cancel_run

# How long before the end of a soft shutdown steps are handed back.
HAND_BACK_SECONDS = 2.0

_logger = logging.getLogger("heartbit.worker")


@worker_init.connect(weak=False)
def hear_of_revokes(**_: Any) -> None:
    """Cancel the run when its task is revoked on its way: no message with its id may ever come."""
    from celery.worker import control

    revoke = control.Panel.data["revoke"]
    if getattr(revoke, "cancels_runs", False):
        return

    def revoke_and_cancel(state: Any, task_id: Any, **options: Any) -> Any:
        answer = revoke(state, task_id, **options)
        in_background(_cancel, [task_id] if isinstance(task_id, str) else list(task_id or ()))
        return answer

    revoke_and_cancel.cancels_runs = True  # type: ignore[attr-defined]
    control.Panel.data["revoke"] = revoke_and_cancel


@task_revoked.connect(weak=False)
def cancel_with_its_task(sender: Any, request: Any, **_: Any) -> None:
    """A discarded `run_agent` or `finish_run`: Celery has told all who wait, so the run may end."""
    if sender.name in (RUN_AGENT, FINISH_RUN):
        in_background(_cancel_and_complete, str(request.id))


def in_background(work: Any, argument: Any) -> None:
    """Handlers run in the thread that reads messages: it must not wait for a database."""
    threading.Thread(target=work, args=[argument], name="heartbit-revoke", daemon=True).start()


def _cancel(task_ids: Iterable[str]) -> None:
    for task_id in task_ids:
        _try_to_cancel(run_id_of_task(task_id))


def _cancel_and_complete(task_id: str) -> None:
    run_id = run_id_of_task(task_id)
    if _try_to_cancel(run_id):
        process.journal().complete(run_id)


def _try_to_cancel(run_id: str) -> bool:
    try:
        cancel_run(run_id)
    except RunNotFound:
        return False  # most tasks are no runs, and a run may be revoked before it is opened
    except HeartbitError as error:
        _logger.error("Run %s goes on though its task was revoked: %s", run_id, error.message)
        return False
    return True


@worker_ready.connect(weak=False)
def start_sweep(**_: Any) -> None:
    """Look after runs whose workers, messages or brokers were lost."""
    try:
        process.runtime(CeleryOutbox()).sweep.start()
    except HeartbitError as error:
        _logger.error("This worker does not look after lost runs: %s", error.message)


@worker_ready.connect(weak=False)
def look_at_queues(**_: Any) -> None:
    """Find out whether somebody reads each queue that steps go to."""
    app: Any = current_app
    watch_queues(app, app.amqp.queues.consume_from, {*QUEUES, *_tool_queues()})


def _tool_queues() -> set[str]:
    try:
        return {tool.queue for tool in process.load_config().tools if tool.queue}
    except HeartbitError:
        return set()  # the first task says what is wrong with the configuration


@worker_shutting_down.connect(weak=False)
def leave(**_: Any) -> None:
    """Begin nothing more; after the soft shutdown's time hand back what others can do.

    Celery waits without end at a warm shutdown, for model calls too. Without a soft shutdown that
    is what whoever runs the worker wants.
    """
    if not process.departure.begun:
        seconds = float(current_app.conf.worker_soft_shutdown_timeout)
        process.departure.begin(seconds if seconds > 0 else math.inf)


@worker_init.connect(weak=False)
def stay_when_others_go(**_: Any) -> None:
    """Several workers may come from one process that had imported all this."""
    process.departure.anew()


@worker_init.connect(weak=False)
def hear_of_cold_shutdown(sender: Any, **_: Any) -> None:
    """Leave in time before a cold shutdown kills what is under way: it has no signal of its own."""
    wait = sender.wait_for_soft_shutdown

    def leave_and_wait() -> None:
        seconds = float(sender.app.conf.worker_soft_shutdown_timeout)
        process.departure.begin(seconds - min(HAND_BACK_SECONDS, seconds / 2))
        wait()

    sender.wait_for_soft_shutdown = leave_and_wait


@worker_shutdown.connect(weak=False)
@worker_process_shutdown.connect(weak=False)
def close(**_: Any) -> None:
    """Let go of what this process has opened."""
    visibility.stop()
    process.close()
