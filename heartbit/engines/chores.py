"""What a fleet does now and then that belongs to no run; one of its processes begins each of them.

Beat is not needed: whoever sweeps looks once a minute whether something is due. A chore is a Celery
task that does no harm when it is done twice, or not at all until the next time.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from heartbit.engines.plan import CONTROL_QUEUE, TOOL_QUEUE
from heartbit.engines.ports import Outbox
from heartbit.stores.journal import Journal
from heartbit.tools.memory import Memories

PRUNE_MEMORIES = "heartbit.prune_memories"
PRUNE_SECONDS = 24 * 3600.0
EMBED_MEMORIES = "heartbit.embed_memories"
EMBED_SECONDS = 3600.0
LOOK_SECONDS = 60.0

_logger = logging.getLogger("heartbit.chores")


@dataclass(frozen=True, kw_only=True, slots=True)
class Chore:
    """A Celery task that is sent once in so many seconds; `name` is what it is admitted by."""

    name: str
    task: str
    queue: str
    every_seconds: float


def memory_chores(memories: Memories | None) -> Sequence[Chore]:
    """What is to be done for the memories of a fleet.

    Another embedding model is another chore: it is begun at once.
    """
    if memories is None:
        return ()
    prune = Chore(
        name=PRUNE_MEMORIES, task=PRUNE_MEMORIES, queue=CONTROL_QUEUE, every_seconds=PRUNE_SECONDS
    )
    if memories.embedder is None:
        return (prune,)
    embed = Chore(
        name=f"{EMBED_MEMORIES}/{memories.embedder.model}",
        task=EMBED_MEMORIES,
        queue=TOOL_QUEUE,
        every_seconds=EMBED_SECONDS,
    )
    return (prune, embed)


class Chores:
    """The chores of a fleet, as one of its processes looks after them."""

    def __init__(
        self,
        journal: Journal,
        outbox: Outbox,
        chores: Sequence[Chore],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._outbox = outbox
        self._chores = chores
        self._clock = clock
        self._looked_at = -math.inf

    def look(self) -> None:
        """Send what is due, unless this process has looked within the last minute."""
        if not self._chores or self._clock() - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = self._clock()
        for chore in self._chores:
            if self._journal.admit_sweep(chore.name, every_seconds=chore.every_seconds):
                _logger.info("%s is due", chore.task)
                self._outbox.chore(chore.task, chore.queue)
