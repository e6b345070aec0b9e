"""What can be asked of a journal in memory: runs, approvals, blackboards."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from heartbit.core.delegation import BlackboardWrite
from heartbit.core.events import Decision, Event, RunStatus
from heartbit.errors import BoardConflict, RunNotFound, ToolError
from heartbit.stores.board_values import checked_key, conflict, encoded
from heartbit.stores.journal import EVERY_TENANT, Approval, BoardEntry, RunRow, Tenant
from heartbit.stores.memory_state import Run, Tables, Written
from heartbit.stores.records import refuse_decision


class MemoryReads:
    """Reads, decisions and single writes of blackboards."""

    _tables: Tables
    _clock: Callable[[], float]
    _lock: threading.RLock

    def events(
        self, run_id: str, after: int = 0, *, tenant: Tenant = EVERY_TENANT
    ) -> tuple[Event, ...]:
        """The events of a run after a number, oldest first; none if there is no such run."""
        with self._lock:
            run = self._tables.runs.get(run_id)
            return run.events[after:] if run is not None and _visible(run, tenant) else ()

    def run(self, run_id: str, *, tenant: Tenant = EVERY_TENANT) -> RunRow:
        """The row of a run."""
        with self._lock:
            run = self._tables.runs.get(run_id)
            if run is None or not _visible(run, tenant):
                raise RunNotFound(f"There is no run {run_id}.")
            return run.row

    def tree(self, run_id: str, *, tenant: Tenant = EVERY_TENANT) -> tuple[RunRow, ...]:
        """The rows of all runs of the tree that a run belongs to, oldest first."""
        with self._lock:
            if (run := self._tables.runs.get(run_id)) is None:
                return ()
            root = run.new.root_run_id
            runs = [r for r in self._tables.runs.values() if r.new.root_run_id == root]
            return tuple(r.row for r in sorted(runs, key=_age) if _visible(r, tenant))

    def list_runs(
        self,
        *,
        limit: int = 50,
        status: RunStatus | None = None,
        tenant: Tenant = EVERY_TENANT,
        before: str | None = None,
    ) -> tuple[RunRow, ...]:
        """Root runs, newest first; `before` is the id of the last run of the page in front."""
        with self._lock:
            runs = sorted(self._tables.runs.values(), key=_age, reverse=True)
            if before in self._tables.runs:
                last = _age(self._tables.runs[before])
                runs = [run for run in runs if _age(run) < last]
            found = [
                run.row
                for run in runs
                if run.new.parent_run_id is None
                and _visible(run, tenant)
                and status in (None, run.status)
            ]
            return tuple(found[:limit])

    def open_approvals(
        self, *, tenant: Tenant = EVERY_TENANT, limit: int = 100
    ) -> tuple[Approval, ...]:
        """What waits for a human, oldest first."""
        with self._lock:
            asked = [a for a in self._tables.approvals.values() if a.decided_at is None]
            asked.sort(key=lambda a: (a.requested_at, a.run_id, a.new.step))
            runs = self._tables.runs
            return tuple(a.row for a in asked if _visible(runs[a.run_id], tenant))[:limit]

    def approvals(self, run_id: str, *, tenant: Tenant = EVERY_TENANT) -> tuple[Approval, ...]:
        """All approvals of one run, oldest first."""
        with self._lock:
            run = self._tables.runs.get(run_id)
            if run is None or not _visible(run, tenant):
                return ()
            rows = [a.row for a in self._tables.approvals.values() if a.run_id == run_id]
            return tuple(sorted(rows, key=lambda row: (row.requested_at, row.step)))

    def decide(
        self,
        run_id: str,
        step: str,
        decisions: Sequence[Decision],
        *,
        calls_hash: str,
        by: str | None,
        expired: bool = False,
        tenant: Tenant = EVERY_TENANT,
    ) -> None:
        """Answer an approval."""
        with self._lock:
            now = self._clock()
            run, asked = self._tables.runs.get(run_id), self._tables.approvals.get((run_id, step))
            if run is None or asked is None or not _visible(run, tenant):
                refuse_decision(run_id, step, None, calls_hash, expired=expired)
            if not asked.open_to(calls_hash, now, expired=expired):
                refuse_decision(run_id, step, asked.row, calls_hash, expired=expired)
            self._tables.approvals[run_id, step] = replace(
                asked, decisions=tuple(decisions), decided_by=by, decided_at=now
            )
            self._tables.timers.setdefault((run_id, f"decided/{step}"), now + 2)

    def board_read(self, scope: str, key: str) -> tuple[Any, int]:
        """The value of a key and its version; (None, 0) if there is none."""
        with self._lock:
            checked_key(key)
            writes = [w for w in self._tables.boards.get(scope, ()) if w.key == key]
            return (json.loads(writes[-1].text), writes[-1].version) if writes else (None, 0)

    def board_keys(self, scope: str) -> tuple[str, ...]:
        """All keys of a scope, sorted."""
        with self._lock:
            return tuple(sorted({w.key for w in self._tables.boards.get(scope, ())}))

    def board_after(self, scope: str, seq: int) -> tuple[BoardEntry, ...]:
        """The writes of a scope after number `seq`, in order."""
        with self._lock:
            writes = self._tables.boards.get(scope, ())
            return tuple(
                BoardEntry(seq=n, key=w.key, version=w.version, value=json.loads(w.text))
                for n, w in enumerate(writes, 1)
                if n > seq
            )

    def board_write(
        self, scope: str, key: str, value: Any, *, run_id: str, expected: int | None = None
    ) -> int:
        """Write a key outside of any append, and give its new version."""
        encoded(value)
        write = BlackboardWrite(
            scope=scope, key=checked_key(key), value=value, expected_version=expected
        )
        with self._lock:
            try:
                return self._write_board(run_id, write)
            except BoardConflict as error:
                raise ToolError(error.message) from error

    def _write_board(self, run_id: str, write: BlackboardWrite) -> int:
        version = self._tables.version(write.scope, write.key)
        expected = write.expected_version
        if expected is not None and expected != version:
            raise BoardConflict(conflict(write.key, version, expected))
        run = self._tables.runs.get(run_id)
        entry = Written(
            key=write.key,
            version=version + 1,
            text=json.dumps(write.value),
            run_id=run_id,
            run_seq=len(run.events) + 1 if run else 0,
        )
        self._tables.boards[write.scope] = (*self._tables.boards.get(write.scope, ()), entry)
        return version + 1


def _visible(run: Run, tenant: Tenant) -> bool:
    return tenant is EVERY_TENANT or run.new.tenant_id == tenant


def _age(run: Run) -> tuple[float, str]:
    return run.created_at, run.new.run_id
