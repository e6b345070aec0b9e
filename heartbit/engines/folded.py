"""The runs that this process has folded lately, so that the next step needs only new events.

What is kept here is a copy: the journal decides, and what is read from it is only added.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from heartbit.core.run import Progress, follow
from heartbit.engines.plan import RunPlace, place_of
from heartbit.stores.journal import RunReads

CACHED_RUNS = 512


class FoldedRuns:
    """Runs by their id, the least recently used one forgotten first. Any thread may call it."""

    def __init__(self, journal: RunReads) -> None:
        self._journal = journal
        self._runs: OrderedDict[str, Progress] = OrderedDict()
        self._places: OrderedDict[str, RunPlace] = OrderedDict()
        self._lock = Lock()

    def known(self, run_id: str) -> Progress | None:
        """How far a run is folded here, which may be behind the journal."""
        with self._lock:
            if run_id in self._runs:
                self._runs.move_to_end(run_id)
            return self._runs.get(run_id)

    def keep(self, run_id: str, progress: Progress) -> None:
        """Remember a run that was folded, unless more of it is known or it has ended."""
        with self._lock:
            known = self._runs.get(run_id)
            if known is None or known.seq < progress.seq:
                self._runs[run_id] = progress
            self._runs.move_to_end(run_id)
            if progress.state.ended or len(self._runs) > CACHED_RUNS:
                self._runs.pop(run_id if progress.state.ended else next(iter(self._runs)))

    def progress(self, run_id: str) -> Progress:
        """The whole journal of a run, folded."""
        known = self.known(run_id)
        progress = follow(known, self._journal.events(run_id, known.seq if known else 0))
        self.keep(run_id, progress)
        return progress

    def place(self, run_id: str) -> RunPlace:
        """Where a run belongs.

        Raises:
            RunNotFound: there is no such run.
        """
        with self._lock:
            known = self._places.get(run_id)
        if known is None:
            known = place_of(self._journal.run(run_id))
            with self._lock:
                self._places[run_id] = known
                if len(self._places) > CACHED_RUNS:
                    self._places.popitem(last=False)
        return known
