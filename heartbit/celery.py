"""The Celery app that `celery -A heartbit` finds: a queue layout and settings that lose nothing.

Importing this module creates the app and makes it Celery's current one, so nothing in heartbit
imports it at its top, and neither should a program that has an app of its own.

Where broker and results are is read at the first use: from Celery's own variables
CELERY_BROKER_URL and CELERY_RESULT_BACKEND, else from [celery] of heartbit.toml, else it is a Redis
on this machine. A module that $HEARTBIT_CELERY_CONFIG names may set anything else; it can begin as
a copy of config/celeryconfig.py, which explains the settings.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

import click
from celery import Celery

from heartbit.apps import ROUTES, TASKS, our_queues
from heartbit.config import Config
from heartbit.engines.plan import CONTROL_QUEUE
from heartbit.errors import ConfigError
from heartbit.runtime import LOCAL_REDIS, load_config

RESULTS = "heartbit.results:RunBackend"

DELIVERY: dict[str, Any] = {
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "worker_prefetch_multiplier": 1,
    # a copy that comes back after a lost connection is dropped by the journal
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    # Celery's own can end with the connection, and the worker with it
    "worker_consumer": "heartbit.consumer:Consumer",
    "worker_soft_shutdown_timeout": 30.0,
    "worker_enable_soft_shutdown_on_idle": True,
}

CONNECTIONS: dict[str, Any] = {
    "result_backend_thread_safe": True,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,  # the default gives up after 100 and ends the worker
    "broker_transport_options": {
        "visibility_timeout": 3600,
        # Redis hands a lost worker's messages back after the visibility timeout plus
        # interval x throttle; the defaults add 100 seconds
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        # above concurrency + 50: with the default of 10 acknowledgements fail
        "max_connections": 600,
        "socket_keepalive": True,
        "health_check_interval": 30,
    },
}

MESSAGES: dict[str, Any] = {
    "imports": (TASKS,),
    "task_serializer": "json",
    "result_serializer": "json",
    "accept_content": ["json"],
    "task_default_queue": CONTROL_QUEUE,
    "task_routes": ROUTES,
    "task_queues": our_queues(),
}

BEAT: dict[str, Any] = {
    "beat_scheduler": "heartbit.beat:Scheduler",
    "beat_enable_remote_control": True,
}

VISIBILITY: dict[str, Any] = {
    "task_track_started": True,
    "task_send_sent_event": True,
    "worker_send_task_events": True,
    # stdout must stay a real file: MCP servers over stdio inherit it
    "worker_redirect_stdouts": False,
}


def addresses(config: Config) -> dict[str, str]:
    """Where broker and results are, as a configuration says it."""
    table = config.celery
    broker = table.broker_url.get_secret_value() if table.broker_url else LOCAL_REDIS
    results = table.result_backend.get_secret_value() if table.result_backend else broker
    return {"broker_url": broker, "result_backend": results}


def _own_settings() -> dict[str, Any]:
    """What the module that $HEARTBIT_CELERY_CONFIG names sets."""
    name = os.environ.get("HEARTBIT_CELERY_CONFIG")
    if not name:
        return {}
    try:
        found = vars(import_module(name))
    except ImportError as error:
        raise ConfigError(f"$HEARTBIT_CELERY_CONFIG: {error}.") from error
    return {k: v for k, v in found.items() if k.islower() and not k.startswith("_")}


def _settings() -> dict[str, Any]:
    ours = CONNECTIONS | MESSAGES | DELIVERY | BEAT | VISIBILITY
    try:
        return ours | addresses(load_config()) | _own_settings()
    except ConfigError as error:
        if click.get_current_context(silent=True) is None:
            raise
        raise click.UsageError(str(error)) from error  # one sentence for who typed `celery ...`


app = Celery("heartbit")
app.add_defaults(_settings)
# A Redis backend of this app is ours: it answers for runs that Redis has forgotten.
app.loader.override_backends = {"redis": RESULTS, "rediss": RESULTS}
