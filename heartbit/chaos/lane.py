"""One lane: a database, a broker and at most two workers, on which one run after the other is
disturbed.

A run that was disturbed leaves a fresh worker behind, which is the next one's victim.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from heartbit.chaos.program import Order, Start, approve, begin, work
from heartbit.chaos.record import Record, read_record
from heartbit.chaos.saboteur import Fault, RunFiles, Spot
from heartbit.chaos.stage import Notes, read_lines
from heartbit.chaos.verdict import Seen, Strike
from heartbit.client import only_waits
from heartbit.core.memory import Memory
from heartbit.errors import RunNotFound
from heartbit.stores.memories.postgres import PostgresMemories
from heartbit.stores.postgres import PostgresJournal
from heartbit.stores.records import ENDED, RunRow

POLL_SECONDS = 0.03
STOP_SECONDS = 15.0

_context: Any = get_context("forkserver")
_context.set_forkserver_preload(["heartbit.chaos.program"])
_processes = threading.Lock()


class Child:
    """A process of a lane. multiprocessing's own objects are not for several threads."""

    def __init__(self, target: Callable[..., None], *arguments: Any) -> None:
        with _processes:
            self._process = _context.Process(target=target, args=arguments, daemon=True)
            self._process.start()

    @property
    def exit_code(self) -> int | None:
        """How it has ended; negative is a signal."""
        with _processes:
            code: int | None = self._process.exitcode
            return code

    def send(self, number: int) -> None:
        """A signal, if it still runs."""
        if self.exit_code is None:
            os.kill(self._process.pid, number)

    def end(self, seconds: float = 0.0) -> None:
        """Let it end by itself for a while, then make it."""
        until = time.monotonic() + seconds
        while self.exit_code is None and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
        self.send(signal.SIGKILL)
        while self.exit_code is None:
            time.sleep(POLL_SECONDS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A run to be disturbed, or not; how it starts decides in which process it is opened."""

    start: Start
    fault: Fault | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Played:
    """What came of a case. `trouble` is why it did not come to its end."""

    case: Case
    seconds: float
    struck: bool
    trouble: str | None
    seen: Seen
    spots: list[Spot]


class Lane:
    """Plays cases one after the other, until it is closed."""

    def __init__(
        self, order: Order, prompt: str, *, patience_seconds: float, stopping: threading.Event
    ) -> None:
        self._order = order
        self._stopping = stopping
        self._prompt = prompt
        self._patience_seconds = patience_seconds
        self._journal = PostgresJournal(order.database, pool_size=1)
        self._memories = PostgresMemories.at(order.database)
        self._worker: Child | None = None
        self._notes = Notes(order.directory)

    def play(self, case: Case) -> Played:
        """One run, from its start to its end."""
        if self._worker is None:
            self._worker = Child(work, self._order)
        play = _Play(self._order, self._journal, self._notes, self._worker, case, self._stopping)
        try:
            trouble = play.run(self._prompt, time.monotonic() + self._patience_seconds)
        finally:
            self._worker = play.leave()
        return play.played(trouble, self._memories.export(user_id=play.run_id))

    def close(self) -> None:
        """Kill whoever is left."""
        if self._worker is not None:
            self._worker.end()
        self._journal.close()
        self._memories.close()


class _Play:
    """One case while it is played."""

    def __init__(
        self,
        order: Order,
        journal: PostgresJournal,
        notes: Notes,
        worker: Child,
        case: Case,
        stopping: threading.Event,
    ) -> None:
        self._order = order
        self._stopping = stopping
        self._journal = journal
        self._notes = notes
        self._case = case
        self.run_id = str(uuid.uuid4())
        self._files = RunFiles(order.directory, self.run_id)
        self._worker = worker
        self._caller: Child | None = None
        self._to_start = True
        self._frozen: Child | None = None
        self._strike: Strike | None = None
        self._asked_before = len(notes.requests())
        self._called_before = len(notes.calls())
        self._began = time.monotonic()

    def run(self, prompt: str, until: float) -> str | None:
        """See the run to its end; gives why it did not come to it."""
        if self._case.fault is not None:
            self._files.arm(self._case.fault)
        while not self._is_over():
            if time.monotonic() > until:
                return "it did not come to its end in time"
            self._look_after_worker()
            self._look_after_caller(prompt)
            if self._frozen and self._files.taken.exists():
                self._frozen.send(signal.SIGCONT)
            if self._stopping.wait(POLL_SECONDS):
                return "it was interrupted"
        return None

    def leave(self) -> Child:
        """Wake and end whoever was frozen or is no worker; gives the worker that stays."""
        if self._frozen is not None:
            self._frozen.send(signal.SIGCONT)
            if self._frozen is not self._caller:
                self._frozen.send(signal.SIGTERM)
            self._frozen.end(STOP_SECONDS)
        if self._caller is not None:
            self._caller.end(STOP_SECONDS)
        return self._worker

    def played(self, trouble: str | None, memories: Iterable[Memory]) -> Played:
        """Everything that was seen."""
        record = EMPTY
        if trouble is None:
            record = read_record(self._journal, self.run_id, memories)
        return Played(
            case=self._case,
            seconds=time.monotonic() - self._began,
            struck=self._files.struck.exists(),
            trouble=trouble,
            seen=Seen(
                record=record,
                requests=self._notes.requests()[self._asked_before :],
                calls=self._notes.calls()[self._called_before :],
                strike=self._strike,
                late=self._late(),
            ),
            spots=self._files.spots(),
        )

    def _late(self) -> list[str]:
        """What came of the append of a worker that somebody else has taken the step from."""
        fault = self._case.fault
        counts = fault is not None and fault.spot.role == "worker" and self._files.taken.exists()
        return read_lines(self._files.late) if counts else []

    def _is_over(self) -> bool:
        """Ended, the whole tree, and all who wait have been told."""
        rows = self._tree()
        return bool(rows) and all(
            row.status in ENDED and (row.completion is None or row.completion_done) for row in rows
        )

    def _tree(self) -> tuple[RunRow, ...]:
        try:
            return self._journal.tree(self.run_id)
        except RunNotFound:
            return ()

    def _look_after_worker(self) -> None:
        """Start another worker for one that was killed or frozen."""
        if self._worker.exit_code is not None:
            self._note_strike()
            self._to_start = self._to_start or not self._tree()
            self._worker = Child(work, self._order)
        elif self._is_frozen("worker"):
            self._note_strike()
            self._frozen = self._worker
            self._worker = Child(work, self._order)

    def _look_after_caller(self, prompt: str) -> None:
        """Start the run, or answer what it asks; again if whoever did was killed on its way."""
        if self._caller is not None:
            self._look_at_caller(self._caller)
        elif self._to_start:
            self._to_start = False
            self._caller = Child(begin, self._order, self.run_id, prompt, self._case.start)
        elif self._asks():
            self._caller = Child(approve, self._order, self.run_id)

    def _look_at_caller(self, caller: Child) -> None:
        code = caller.exit_code
        if code is not None:
            self._caller = None
        elif self._is_frozen("caller"):
            self._note_strike()
            self._frozen, self._caller = caller, None
        if code is not None and code < 0:
            self._note_strike()
            self._to_start = not self._tree()

    def _asks(self) -> bool:
        rows = self._tree()
        return only_waits(rows) and any(
            approval.decided_at is None
            for row in rows
            for approval in self._journal.approvals(row.run_id)
        )

    def _is_frozen(self, role: str) -> bool:
        fault = self._case.fault
        return (
            self._frozen is None
            and fault is not None
            and (fault.kind, fault.spot.role) == ("freeze", role)
            and self._files.struck.exists()
        )

    def _note_strike(self) -> None:
        """What stands in the journal now that nobody works on the run."""
        if self._strike is None:
            rows = self._tree()
            turns = read_record(self._journal, self.run_id).turns if rows else Counter[str]()
            asked = len(self._notes.requests()) - self._asked_before
            self._strike = Strike(turns=turns, asked=asked)


EMPTY = Record(
    status="open", result={}, entries=Counter(), board=(), turns=Counter(), calls={}, returned={}
)
