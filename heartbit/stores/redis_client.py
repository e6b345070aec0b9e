"""How the stores speak to Redis, which none of them depends on."""

from __future__ import annotations

import logging
import threading
import time

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

QUICK_SECONDS = 2.0
PAUSE_SECONDS = 1.0


def quick_client(url: str) -> redis.Redis:
    """A client for commands that answer at once; what takes longer than two seconds has failed."""
    return redis.Redis.from_url(
        url,
        socket_timeout=QUICK_SECONDS,
        socket_connect_timeout=QUICK_SECONDS,
        retry=Retry(NoBackoff(), 1),  # a pooled connection may be older than the server
    )


class Outage:
    """Whether Redis is to be left alone: for a second after each failure.

    `gone` and `back` are said once per outage, so that the log of a busy worker stays readable.
    """

    def __init__(
        self, logger: logging.Logger, *, gone: str, back: str, pause_seconds: float = PAUSE_SECONDS
    ) -> None:
        self._logger = logger
        self._gone = gone
        self._back = back
        self._pause_seconds = pause_seconds
        self._lock = threading.Lock()
        self._until: float | None = None

    @property
    def is_on(self) -> bool:
        """Whether asking would only cost time."""
        until = self._until
        return until is not None and time.monotonic() < until

    def failed(self, error: Exception) -> None:
        """Redis did not do what it was asked for."""
        with self._lock:
            if self._until is None:
                self._logger.warning("%s: %s", self._gone, error)
            self._until = time.monotonic() + self._pause_seconds

    def worked(self) -> None:
        """Redis did what it was asked for."""
        if self._until is None:
            return
        with self._lock:
            if self._until is not None:
                self._logger.info("%s", self._back)
            self._until = None
