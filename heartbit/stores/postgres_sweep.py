"""What keeps runs going when workers or messages are lost, in PostgreSQL.

Every query asks one partial index, skips what somebody else is at, and pushes what it hands out
into the future: so many sweepers, or one that dies, do no harm.
"""

from __future__ import annotations

from collections.abc import Sequence

from heartbit.stores.database import Database
from heartbit.stores.journal import DueTimer, ExpiredStep, UnsentStep


class PostgresSweeping:
    """The sweep's questions."""

    _database: Database

    def admit_sweep(self, name: str, *, every_seconds: float) -> bool:
        """Win the right to sweep now: one process of the fleet per `every_seconds`."""
        return bool(self._database.rows("admit_sweep", name=name, every_seconds=every_seconds))

    def admit(self, limit: int | None) -> tuple[str, ...]:
        """Let runs begin that wait for their admission, and give their ids."""
        return tuple(str(run_id) for (run_id,) in self._database.rows("admit", limit=limit))

    def expired_steps(self, *, limit: int, again_seconds: float) -> tuple[ExpiredStep, ...]:
        """Steps whose lease has run out: to be sent again, or to be judged."""
        rows = self._database.rows("expired_steps", limit=limit, again_seconds=again_seconds)
        return tuple(
            ExpiredStep(
                run_id=str(run_id), step=step, kind=kind, queue=queue, attempt=attempt, fate=fate
            )
            for run_id, step, kind, queue, attempt, fate in rows
        )

    def unsent_steps(
        self, *, limit: int, again_seconds: float, empty_queues: Sequence[str] = ()
    ) -> tuple[UnsentStep, ...]:
        """Steps that were never sent, or not claimed since."""
        rows = self._database.rows("unsent_steps", limit=limit, again_seconds=again_seconds)
        if empty_queues:
            queues = list(empty_queues)
            rows += self._database.rows(
                "unclaimed_steps", limit=limit, again_seconds=again_seconds, queues=queues
            )
        return tuple(
            UnsentStep(
                run_id=str(run_id), step=step, kind=kind, queue=queue, external=external, count=n
            )
            for run_id, step, kind, queue, external, n in rows
        )

    def due_timers(self, *, limit: int, again_seconds: float) -> tuple[DueTimer, ...]:
        """Timers whose time has come; each comes back until it is cleared or its run has ended."""
        rows = self._database.rows("due_timers", limit=limit, again_seconds=again_seconds)
        return tuple(DueTimer(run_id=str(run_id), what=what) for run_id, what in rows)

    def set_timer(self, run_id: str, what: str, seconds: float) -> None:
        """Have an open run looked after in `seconds`; the same timer is only moved."""
        self._database.execute("set_timer", run_id=run_id, what=what, seconds=seconds)

    def clear_timer(self, run_id: str, what: str) -> None:
        """Nobody needs to look after the run for this."""
        self._database.execute("clear_timer", run_id=run_id, what=what)

    def unpublished(self, *, limit: int, again_seconds: float) -> tuple[str, ...]:
        """Ended runs for whose end something waits that was not told so."""
        rows = self._database.rows("unpublished", limit=limit, again_seconds=again_seconds)
        return tuple(str(run_id) for (run_id,) in rows)
