"""Celery's consumer, made to live through a broker that goes away while messages are unanswered.

Celery itself imports this module, in a worker only, because `worker_consumer` names it.

kombu leaves channels of a lost Redis behind that have forgotten the address of their server. When
one of them is closed once more, or the task of one of its messages ends, the AttributeError of that
would end the worker: it is no error of a connection, and only those are expected.

kombu also makes a client of Redis for every command, a few of them for each message, and nothing
about a client is cheap but its use. The channels of a worker keep theirs.

A run's task ends with `Ignore`, for its result comes later. Celery would describe that as it does
an error, twice, down to the columns of each line: milliseconds for what nobody reads.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable
from typing import Any

from billiard.einfo import ExceptionInfo
from celery.app import trace
from celery.exceptions import CPendingDeprecationWarning, Ignore
from celery.worker.consumer import Consumer as CeleryConsumer
from kombu.transport import redis

_logger = logging.getLogger("heartbit.worker")


class Channel(redis.Channel):
    """A channel that keeps its client for commands as long as the pool behind it."""

    _kept: Any = None

    def _create_client(self, asynchronous: bool = False) -> Any:
        """A client; the blocking ones have a connection of their own and are not shared."""
        base: Any = super()
        if asynchronous:
            return base._create_client(asynchronous=True)
        if self._kept is None or self._kept.connection_pool is not self.pool:
            self._kept = base._create_client()
        return self._kept


def described(exc_info: Any = None, internal: bool = False) -> ExceptionInfo:
    """What Celery says of an exception: no traceback if that is how a task ends well."""
    kind, exception, _ = exc_info or sys.exc_info()
    if not isinstance(exception, Ignore):
        return ExceptionInfo(exc_info, internal)
    info = ExceptionInfo.__new__(ExceptionInfo)
    vars(info).update(type=kind, exception=exception, tb=None, traceback="", internal=internal)
    return info


class Consumer(CeleryConsumer):
    """Tries to connect again whatever happens while a lost connection is let go of."""

    def __init__(self, *args: Any, **options: Any) -> None:
        redis.Transport.Channel = Channel
        setattr(trace, "ExceptionInfo", described)  # noqa: B010 - its stubs know no such name
        # Nobody elects anything here, and each outage would fill the log with gossip's traceback.
        super().__init__(*args, **options | {"without_gossip": True})
        # Said at every loss of a connection; the setting that it is about was chosen.
        warnings.filterwarnings(
            "ignore", message=r"\s*In Celery 5\.1", category=CPendingDeprecationWarning
        )

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Let go of the connection."""
        try:
            super().on_connection_error_after_connected(exc)
        except AttributeError as error:
            _logger.warning(
                "Messages under way when the broker was lost could not be handed back (%s); the "
                "sweep finds what they were about.",
                error,
            )

    def call_soon_ack(self, p: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Acknowledge or reject a message, from the thread that reads them."""
        base: Any = super()
        return base.call_soon_ack(_if_it_can_be, p, *args, **options)


def _if_it_can_be(answer: Callable[..., Any], *args: Any, **options: Any) -> None:
    try:
        answer(*args, **options)
    except AttributeError as error:
        _logger.warning(
            "A message could not be acknowledged, for the connection that brought it is gone (%s); "
            "its copy will be dropped.",
            error,
        )
