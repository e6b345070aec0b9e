"""Keeping the messages of long steps invisible in Redis, so that no second worker gets a copy.

A broker on Redis hands a message out again that was not acknowledged within the visibility timeout,
though its task is at work. The journal drops such copies, but each of them costs a worker a look,
and acknowledging a copy removes the message of the step that is still under way. Kombu keeps the
time of each delivery in a sorted set: whoever moves it keeps the message. Other brokers know by
themselves who is at work.

Nothing depends on this: a failure is a line in the log.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

DEFAULT_TIMEOUT_SECONDS = 3600.0  # of kombu

_logger = logging.getLogger("heartbit.worker")


class Visibility:
    """The messages of the steps that this process is working on."""

    def __init__(self, app: Any, *, now: Callable[[], float] = time.time) -> None:
        self._app = app
        self._now = now
        self._on_redis = app.connection_for_read().transport.driver_type == "redis"
        options = app.conf.broker_transport_options or {}
        timeout = options.get("visibility_timeout") or DEFAULT_TIMEOUT_SECONDS
        self._pause_seconds = float(timeout) / 4
        self._tags: set[str] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def keep(self, tag: str | None) -> Iterator[None]:
        """Keep the message of a delivery while the block runs."""
        if tag is None or not self._on_redis:
            yield
            return
        with self._lock:
            self._tags.add(tag)
            self._start()
        try:
            yield
        finally:
            with self._lock:
                self._tags.discard(tag)

    def renew(self) -> None:
        """Tell Redis that all these messages were delivered just now."""
        with self._lock:
            tags = tuple(self._tags)
        if not tags:
            return
        try:
            with (
                self._app.connection_for_read() as connection,
                connection.channel() as channel,
                channel.conn_or_acquire() as client,
            ):
                # xx: what was acknowledged meanwhile must not come back
                client.zadd(channel.unacked_index_key, dict.fromkeys(tags, self._now()), xx=True)
        except Exception as error:  # whatever a broker raises: a copy that comes does no harm
            _logger.warning("Long steps may be delivered a second time: %s", error)

    def stop(self) -> None:
        """End the renewal."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._serve, name="heartbit-visibility", daemon=True
            )
            self._thread.start()

    def _serve(self) -> None:
        while not self._stopping.wait(self._pause_seconds):
            self.renew()


_made: dict[int, Visibility] = {}
_making = threading.Lock()


def visibility(app: Any) -> Visibility:
    """That of this process."""
    pid = os.getpid()
    with _making:
        if pid not in _made:
            _made.clear()  # what a fork has copied has no thread here
            _made[pid] = Visibility(app)
        return _made[pid]


def stop() -> None:
    """End the renewal of this process, if there is one."""
    with _making:
        mine = _made.pop(os.getpid(), None)
    if mine is not None:
        mine.stop()
