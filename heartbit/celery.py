"""The Celery app that `celery -A heartbit` finds: a queue layout and settings that lose nothing.

Importing this module creates the app and makes it Celery's current one, so nothing else in
heartbit imports it, and neither should a program that has an app of its own.

The broker and the result backend come from Celery's own variables CELERY_BROKER_URL and
CELERY_RESULT_BACKEND; without them, a Redis on this machine.
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu import Queue

QUEUES = (
    "heartbit.start",  # first turns: ten thousand new runs wait here and starve nobody
    "heartbit.llm",  # the turns of runs that have started
    "heartbit.tools",
    "heartbit.control",  # opening, continuing and finishing runs: quick, no model, no tool
    "heartbit.suspects",  # steps that workers died in run alone
)

DELIVERY: dict[str, Any] = {
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "worker_prefetch_multiplier": 1,
    # a copy that comes back after a lost connection is dropped by the journal
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "worker_soft_shutdown_timeout": 30.0,
    "worker_enable_soft_shutdown_on_idle": True,
}

CONNECTIONS: dict[str, Any] = {
    "broker_url": "redis://localhost:6379/0",
    "result_backend": "redis://localhost:6379/0",
    "result_backend_thread_safe": True,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,  # the default gives up after 100 and ends the worker
    "broker_transport_options": {
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
    "imports": ("heartbit.tasks",),
    "task_serializer": "json",
    "result_serializer": "json",
    "accept_content": ["json"],
    "task_default_queue": "heartbit.control",
    "task_queues": [Queue(name, routing_key=name) for name in QUEUES],
}

VISIBILITY: dict[str, Any] = {
    "task_track_started": True,
    "task_send_sent_event": True,
    "worker_send_task_events": True,
    "beat_enable_remote_control": True,
    # stdout must stay a real file: MCP servers over stdio inherit it
    "worker_redirect_stdouts": False,
}

app = Celery("heartbit")
app.conf.update(**CONNECTIONS, **MESSAGES, **DELIVERY, **VISIBILITY)
