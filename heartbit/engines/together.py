"""Outcomes that come at about the same time are appended at once: they wait for the disk together.

Steps of one turn that are done side by side in one process often end in the same moment. Whoever
has an outcome first waits a little for its neighbours, never for a slow one, and appends for all
that have come by then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future

from heartbit.engines.plan import Outcome, Plan

SECONDS = 0.01
"""How long an outcome waits for others at most."""

Fate = tuple[bool, Plan | None]
_Waiting = tuple[Outcome, "Future[Fate]"]


class Together:
    """The steps of one turn; each calls `store` or `leave`, in a thread of its own.

    `append` stores several outcomes at once, or gives None if they do not fit any more.
    """

    def __init__(
        self, steps: Iterable[str], append: Callable[[Sequence[Outcome]], Plan | None]
    ) -> None:
        self._append = append
        self._changed = threading.Condition()
        self._missing = set(steps)
        self._waiting: list[_Waiting] = []

    def store(self, outcome: Outcome) -> Fate:
        """Whether the outcome was stored with others; who did it gets the plan, and goes on.

        What was not stored came alone, or does not fit any more: its step has to see to it.
        """
        mine: _Waiting = (outcome, Future())
        with self._changed:
            self._waiting.append(mine)
            first = self._waiting[0] is mine
            self._arrive(outcome.step)
            if first:
                self._changed.wait_for(lambda: not self._missing, SECONDS)
                batch, self._waiting = self._waiting, []
        if first:
            self._store(batch)
        return mine[1].result()

    def leave(self, step: str) -> None:
        """Nobody needs to wait for this step: it has no outcome, or has seen to it."""
        with self._changed:
            self._arrive(step)

    def _arrive(self, step: str) -> None:
        self._missing.discard(step)
        if not self._missing:
            self._changed.notify_all()

    def _store(self, batch: Sequence[_Waiting]) -> None:
        fates = [fate for _, fate in batch]
        try:
            plan = self._append([outcome for outcome, _ in batch]) if len(batch) > 1 else None
        except BaseException as error:
            for fate in fates:
                fate.set_exception(error)
        else:
            for fate in fates:
                fate.set_result((plan is not None, plan if fate is fates[0] else None))
