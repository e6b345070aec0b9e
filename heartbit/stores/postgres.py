"""The journal in PostgreSQL, through plain SQL. Synchronous: whoever waits is a thread.

All logic that must be atomic is in the functions of sql/schema.sql; this module speaks to them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from heartbit.core.agent import as_json, definition_hash
from heartbit.core.delegation import BlackboardWrite
from heartbit.core.events import Event
from heartbit.core.messages import Json
from heartbit.core.retry import Tried
from heartbit.errors import JournalError, RunNotFound, RunStateError
from heartbit.stores.codec import VERSION, as_text, decode_tried, encode_event, encode_start
from heartbit.stores.database import JOURNAL_CONNECTIONS, Connection, Database, value
from heartbit.stores.failures import mapped
from heartbit.stores.journal import (
    EVERY_TENANT,
    Append,
    Appended,
    Claim,
    L,
    NewRun,
    NewStep,
    Opened,
    RunRow,
    Tenant,
    ToolTransaction,
    Transaction,
)
from heartbit.stores.postgres_approvals import PostgresApprovals
from heartbit.stores.postgres_boards import PostgresBoards
from heartbit.stores.postgres_runs import PostgresRuns, known_id, tenancy
from heartbit.stores.postgres_sweep import PostgresSweeping
from heartbit.stores.records import check_same
from heartbit.stores.sql import queries
from heartbit.stores.tool_tables import ToolTables


class PostgresJournal(PostgresRuns, PostgresApprovals, PostgresBoards, PostgresSweeping):
    """A `Journal` in a database; nothing is connected before the first call."""

    def __init__(self, url: str, *, pool_size: int = JOURNAL_CONNECTIONS) -> None:
        super().__init__(Database(url, pool_size=pool_size))

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    def open_run(self, run: NewRun) -> Opened:
        """Open a run, or find the one that is open under this id."""
        opening = open_parameters(run)
        if (origin := run.start.forked_from) is None:
            found = self._database.value("open_run", **opening)
        else:
            kept = 1 + len(run.kept)
            found = self._database.value("fork", **opening, origin=origin.run_id, kept=kept)
        if not found["opened"]:
            check_same(run, found["agent"], found["prompt_hash"], found["tenant_id"])
        return Opened(run_id=found["id"], opened=found["opened"], status=found["status"])

    def claim(
        self,
        run_id: str,
        step: str,
        *,
        owner: str,
        lease_seconds: float,
        known: int,
        doubt: int | None = None,
    ) -> Claim:
        """Take a step for a new attempt, with the events after number `known`."""
        if known_id(run_id) is None or not step.isascii() or "\0" in step:
            return UNKNOWN
        with self._database.connection() as connection:
            found = value(
                connection,
                "claim",
                run_id=run_id,
                step=step,
                owner=owner,
                lease_seconds=lease_seconds,
                known=known,
                doubt=doubt,
            )
            if found["why"] == "unknown" and "seq" not in found:
                return UNKNOWN
            try:
                events = self._decoded(connection, found["events"])
            except JournalError:
                if found["claimed"]:
                    held = {"run_id": run_id, "step": step, "attempt": found["attempt"]}
                    connection.execute(queries()["release"], held | {"delay": lease_seconds})
                raise
        return Claim(
            why_not=found["why"],
            attempt=found["attempt"] or 0,
            status=found["status"],
            cancelled=found["cancelled"],
            seq=found["seq"],
            events=events,
            tried=decode_tried(found.get("tried")),
        )

    def append(self, append: Append) -> Appended:
        """Write an outcome."""
        with self._database.connection() as connection:
            return self._append(connection, append, append.board)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """A transaction that is committed at the end of the block."""
        with self._database.transaction() as connection:
            transaction = _Transaction(self, connection)
            yield transaction
            transaction.write_boards()

    @contextmanager
    def tool_transaction(
        self, seconds: float | None = None, *, quick: bool = False
    ) -> Iterator[ToolTransaction]:
        """The same for a tool with tables of its own, on a connection kept for such tools."""
        with self._database.tool_tables(seconds, quick=quick) as tables:
            transaction = _ToolTransaction(self, tables)
            yield transaction
            transaction.write_boards()

    def extend_leases(self, held: Sequence[L], lease_seconds: float) -> tuple[L, ...]:
        """Renew leases; gives those that are still held. Never waits for others."""
        rows = self._database.rows(
            "extend_leases",
            pool="renewal",
            lease_seconds=lease_seconds,
            run_ids=[each.run_id for each in held],
            steps=[each.step for each in held],
            attempts=[each.attempt for each in held],
        )
        kept = {(str(run_id), step, attempt) for run_id, step, attempt in rows}
        return tuple(e for e in held if (e.run_id, e.step, e.attempt) in kept)

    def stopped_runs(self, run_ids: Sequence[str]) -> tuple[str, ...]:
        """Those of these runs that have ended, or whose tree is asked to end."""
        rows = self._database.rows("stopped_runs", pool="renewal", run_ids=list(run_ids))
        return tuple(str(run_id) for (run_id,) in rows)

    def release(self, run_id: str, step: str, attempt: int, *, delay: float = 0.0) -> None:
        """Hand a step back that was not begun; the sweep sends it after `delay`."""
        self._database.execute("release", run_id=run_id, step=step, attempt=attempt, delay=delay)

    def put_off(
        self, run_id: str, step: str, attempt: int, *, seconds: float, tried: Tried
    ) -> None:
        """Hand a step back that goes on later."""
        held = {"run_id": run_id, "step": step, "attempt": attempt}
        left = as_text(as_json(tried))
        self._database.execute("put_off", **held, seconds=seconds, tried=left)

    def take_dispatch(
        self, run_id: str, steps: Sequence[str], *, again_seconds: float = 15.0
    ) -> tuple[tuple[str, str], ...]:
        """Win the right to send these steps, as (step, queue): each is won once."""
        rows = self._database.rows(
            "take_dispatch", run_id=run_id, steps=list(steps), again_seconds=again_seconds
        )
        return tuple((step, queue) for step, queue in rows)

    def undispatched(self, run_id: str) -> tuple[str, ...]:
        """The steps of a run that were never sent."""
        return tuple(step for (step,) in self._database.rows("undispatched", run_id=run_id))

    def set_completion(self, run_id: str, completion: Json) -> None:
        """Remember what waits for the end of the run; the first one stays."""
        self._database.execute("set_completion", run_id=run_id, completion=as_text(completion))

    def complete(self, run_id: str) -> None:
        """The end of the run has been published."""
        self._database.execute("complete", run_id=run_id)

    def request_cancel(
        self, run_id: str, *, tenant: Tenant = EVERY_TENANT, again_seconds: float = 2.0
    ) -> tuple[str, ...]:
        """Ask for the end of a run tree; gives the ids of its open runs."""
        if known_id(run_id) is not None:
            ((exists, still_open),) = self._database.rows(
                "request_cancel", run_id=run_id, again_seconds=again_seconds, **tenancy(tenant)
            )
            if exists:
                return tuple(str(each) for each in still_open)
        raise RunNotFound(f"There is no run {run_id}.")

    def _append(
        self, connection: Connection, append: Append, board: Sequence[BlackboardWrite]
    ) -> Appended:
        if known_id(append.run_id) is None:
            raise RunNotFound(f"There is no run {append.run_id}.")
        query = "append_together" if append.beside else "append"
        found = value(connection, query, **_parameters(append, board))
        if found["ok"]:
            return Appended(ok=True, seq=found["seq"])
        if found["why"] == "unknown":
            raise RunNotFound(f"There is no run {append.run_id}.")
        if found["why"] == "ahead":
            raise RunStateError(
                f"The journal of run {append.run_id} is shorter than this process has seen; the "
                "database seems to be an older copy. Restart the workers."
            )
        behind = self._decoded(connection, found["events"])
        return Appended(ok=False, ended=found["why"] == "ended", behind=behind)


class _Transaction:
    """Appends on one connection; blackboards, which many runs share, are written at the end."""

    def __init__(self, journal: PostgresJournal, connection: Connection) -> None:
        self.connection = connection
        self._journal = journal
        self._boards: list[tuple[str, Sequence[BlackboardWrite]]] = []

    def append(self, append: Append) -> Appended:
        """Write an outcome; it counts when the transaction is committed."""
        appended = self._journal._append(self.connection, append, ())
        if appended.ok and append.board:
            self._boards.append((append.run_id, append.board))
        return appended

    def events(self, run_id: str, after: int = 0) -> tuple[Event, ...]:
        """The events of a run after a number."""
        return self._journal.events_on(self.connection, run_id, after, EVERY_TENANT)

    def run(self, run_id: str) -> RunRow:
        """The row of a run."""
        return self._journal.run_on(self.connection, run_id, EVERY_TENANT)

    def write_boards(self) -> None:
        """What the appends of this transaction leave on blackboards."""
        for run_id, writes in self._boards:
            value(self.connection, "board_writes", run_id=run_id, **_board("", writes))


class _ToolTransaction(_Transaction):
    """Appends in the transaction of a tool, which nobody enters as a block around them."""

    def __init__(self, journal: PostgresJournal, tables: ToolTables) -> None:
        super().__init__(journal, tables.connection)
        self.settle = tables.settle
        self.disconnect = tables.disconnect
        self.lost = tables.lost

    def append(self, append: Append) -> Appended:
        """Write an outcome; it counts when the transaction is committed."""
        with mapped():
            return super().append(append)

    def events(self, run_id: str, after: int = 0) -> tuple[Event, ...]:
        """The events of a run after a number."""
        with mapped():
            return super().events(run_id, after)

    def run(self, run_id: str) -> RunRow:
        """The row of a run."""
        with mapped():
            return super().run(run_id)


UNKNOWN = Claim(why_not="unknown", attempt=0, status=None, cancelled=False, seq=0, events=())


def open_parameters(run: NewRun) -> dict[str, Any]:
    """What the queries that open a root run want to know of it."""
    return {
        "run": as_text(_columns(run)),
        "definition": as_text(as_json(run.definition)),
        "start": encode_start(run.start),
        "steps": _steps(run.steps),
    }


def _parameters(append: Append, board: Sequence[BlackboardWrite]) -> dict[str, Any]:
    approval, change = append.approval, append.change
    return {
        "run_id": append.run_id,
        "expected": append.expected,
        "step": append.step,
        "attempt": append.attempt,
        "beside_steps": [step for step, _ in append.beside],
        "beside_attempts": [attempt for _, attempt in append.beside],
        "verdict": append.verdict,
        "park": append.park,
        "event_steps": [event.step for event in append.events],
        "types": [event.type for event in append.events],
        "v": VERSION,
        "payloads": [encode_event(event) for event in append.events],
        "steps": _steps(append.steps),
        "runs": [as_text(_columns(run)) for run in append.runs],
        "definitions": [as_text(as_json(run.definition)) for run in append.runs],
        "starts": [encode_start(run.start) for run in append.runs],
        "run_steps": [_steps(run.steps) for run in append.runs],
        "approval": as_text(_asked(append)) if approval else None,
        "calls": as_text(as_json(approval.calls)) if approval else None,
        "timers": as_text([{"what": w, "seconds": s} for w, s in append.timers.items()]),
        "clear": list(append.cleared),
        "status": change.status if change else None,
        "output": as_text(change.output) if change and change.output is not None else None,
        **_board("board_", board),
    }


def _asked(append: Append) -> Json:
    approval = append.approval
    assert approval is not None  # noqa: S101 - the caller has looked
    return {
        "step": approval.step,
        "agent": approval.agent,
        "calls_hash": approval.calls_hash,
        "expires_seconds": approval.expires_seconds,
    }


def _board(prefix: str, writes: Sequence[BlackboardWrite]) -> dict[str, Any]:
    return {
        f"{prefix}scopes": [write.scope for write in writes],
        f"{prefix}keys": [write.key for write in writes],
        f"{prefix}values": [as_text(write.value) for write in writes],
        f"{prefix}expected": [write.expected_version for write in writes],
    }


def _steps(steps: Sequence[NewStep]) -> str:
    return as_text([as_json(step) for step in steps])


def _columns(run: NewRun) -> Json:
    return {
        "id": run.run_id,
        "task_id": run.task_id,
        "parent_run_id": run.parent_run_id,
        "root_run_id": run.root_run_id,
        "step_in_parent": run.step_in_parent,
        "agent": run.definition.name,
        "title": run.title,
        "prompt_hash": run.prompt_hash,
        "definition_hash": definition_hash(run.definition),
        "tenant_id": run.tenant_id,
        "user_id": run.user_id,
        "priority": run.priority,
        "timeout_seconds": run.definition.run_timeout_seconds,
        "v": VERSION,
    }
