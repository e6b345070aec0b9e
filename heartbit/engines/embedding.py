"""Vectors of the current model for memories that have none: stored without one, or with another's.

No run waits for it. It may end at any point, and be done by several processes at once: what was
embedded is kept batch by batch, and what has changed meanwhile is left for the next time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from heartbit.core.memory import Embedding, Memory
from heartbit.core.messages import Json
from heartbit.errors import ProviderError
from heartbit.providers.embedder import Embedder
from heartbit.stores.memories.base import MemoryStore
from heartbit.tools.threads import in_thread

BATCH = 64
THREAD = "heartbit-embedding"

_logger = logging.getLogger("heartbit.memories")


@dataclass(frozen=True, kw_only=True, slots=True)
class Embedded:
    """How many memories got a vector, and how many still have none."""

    done: int
    left: int

    def as_json(self) -> Json:
        """The object that a caller gets."""
        return {"embedded": self.done, "left": self.left}


async def embed_missing(
    store: MemoryStore,
    embedder: Embedder,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    go_on: Callable[[], bool] = lambda: True,
) -> Embedded:
    """Embed what has no vector of the embedder's model, as long as `go_on` says so.

    A text that the model refuses is a line in the log, and keeps no other from being embedded.

    Raises:
        ProviderError: the model cannot be had now; what was done until then is kept.
        ConfigError: it cannot be had on this machine.
    """
    model, after, done, seen = embedder.model, "", 0, 0
    total = await in_thread(partial(store.unembedded, model), THREAD)
    while go_on():
        find = partial(store.without_embedding, model, limit=BATCH, after=after)
        if not (batch := await in_thread(find, THREAD)):
            break
        vectors = await _vectors(batch, embedder)
        done += await in_thread(partial(store.embed, vectors), THREAD)
        seen, after = seen + len(batch), batch[-1].id
        on_progress(min(seen, total), total)
    await in_thread(partial(store.tend_indexes, model), THREAD)
    left = await in_thread(partial(store.unembedded, model), THREAD)
    return Embedded(done=done, left=left)


async def _vectors(
    batch: Sequence[Memory], embedder: Embedder
) -> Sequence[tuple[Memory, Embedding]]:
    """The vectors of a batch; if the model refuses it, of those that it takes one by one."""
    try:
        vectors = await embedder.embed([each.content for each in batch])
    except ProviderError as error:
        if error.retryable:
            raise
        if len(batch) > 1:
            return [pair for each in batch for pair in await _vectors([each], embedder)]
        _logger.warning("Memory %s cannot be embedded: %s", batch[0].id, error.message)
        return []
    return list(zip(batch, vectors, strict=True))
