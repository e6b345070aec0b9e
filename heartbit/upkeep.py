"""The Celery tasks that look after memories: forget what has faded, and embed what has no vector.

Workers send them to each other when they are due, and anybody may send them at any time. They are
about the memories that the worker's configuration names.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import shared_task

from heartbit import runtime as process
from heartbit.core.messages import Json
from heartbit.engines.chores import EMBED_MEMORIES, EMBED_SECONDS, PRUNE_MEMORIES
from heartbit.engines.embedding import Embedded, embed_missing
from heartbit.engines.memories import pruned
from heartbit.errors import HeartbitError
from heartbit.loop import background_loop
from heartbit.providers.http import HttpClient
from heartbit.tools.memory import Memories
from heartbit.wiring import stored_memories

# The next one is sent when this one is over: nobody embeds what somebody else is at.
MOST_SECONDS = 0.9 * EMBED_SECONDS

_logger = logging.getLogger("heartbit.memories")
_options: dict[str, Any] = {
    "acks_late": True,
    "reject_on_worker_lost": False,  # the next one comes by itself
    "track_started": False,
    "ignore_result": False,
    "serializer": "json",
    "throws": (HeartbitError,),
}


@shared_task(name=PRUNE_MEMORIES, **_options)
def prune_memories() -> Json:
    """Delete the memories that have faded, and say how many.

    Raises:
        ConfigError: this worker has no memories in a database.
    """
    with _opened() as memories:
        return {"pruned": background_loop().run(pruned(memories.store))}


@shared_task(name=EMBED_MEMORIES, **_options)
def embed_memories() -> Json:
    """Embed the memories that have no vector of the configured model, and say how many.

    Raises:
        ConfigError: this worker has no memories in a database, or the model cannot be had.
        ProviderError: the model cannot be had now.
    """
    with _opened() as memories:
        if memories.embedder is None:
            return Embedded(done=0, left=0).as_json()
        until = time.monotonic() + MOST_SECONDS
        found = background_loop().run(
            embed_missing(
                memories.store,
                memories.embedder,
                go_on=lambda: time.monotonic() < until and not process.departure.begun,
            )
        )
    if found.done:
        _logger.info("%d memories were embedded, %d are left.", found.done, found.left)
    return found.as_json()


@contextmanager
def _opened() -> Iterator[Memories]:
    http = HttpClient()
    memories = stored_memories(process.load_config(), http)
    try:
        yield memories
    finally:
        memories.store.close()
        background_loop().run(http.aclose())
