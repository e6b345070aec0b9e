"""The journal in PostgreSQL, through plain SQL. Synchronous: whoever waits is a thread.

All logic that must be atomic is in the functions of sql/schema.sql; this module speaks to them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.rows import TupleRow, dict_row
from psycopg_pool import ConnectionPool

from heartbit.core.agent import as_json, definition_hash
from heartbit.core.events import Event
from heartbit.core.messages import Json
from heartbit.errors import JournalError, LeaseLost, RunNotFound, RunStateError
from heartbit.stores.codec import VERSION, decode_event, encode_event
from heartbit.stores.journal import (
    Append,
    Appended,
    Claim,
    NewRun,
    NewStep,
    Opened,
    RunRow,
    Transaction,
)
from heartbit.stores.sql import queries

FENCED = "HB001"
Connection = psycopg.Connection[TupleRow]


class PostgresJournal:
    """A `Journal` over a pool of connections; nothing is connected before the first call."""

    def __init__(self, url: str, *, pool_size: int = 8) -> None:
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            url,
            min_size=1,
            max_size=pool_size,
            open=False,
            kwargs={"autocommit": True, "application_name": "heartbit"},
        )

    def close(self) -> None:
        """Close the connections; the journal can be used no more."""
        self._pool.close()

    def open_run(self, run: NewRun) -> Opened:
        """Open a run, or find the one that is open under this id."""
        with self._connection() as connection:
            found = _value(
                connection,
                "open_run",
                run=_text(_columns(run)),
                definition=_text(as_json(run.definition)),
                start=encode_event(run.start),
                steps=_steps(run.steps),
            )
        if not found["opened"]:
            _check_same(run, found)
        return Opened(run_id=found["id"], opened=found["opened"], status=found["status"])

    def claim(
        self, run_id: str, step: str, *, owner: str, lease_seconds: float, known: int
    ) -> Claim:
        """Take a step for a new attempt, with the events after number `known`."""
        with self._connection() as connection:
            found = _value(
                connection,
                "claim",
                run_id=run_id,
                step=step,
                owner=owner,
                lease_seconds=lease_seconds,
                known=known,
            )
        return Claim(
            why_not=found["why"],
            attempt=found["attempt"] or 0,
            status=found["status"],
            cancelled=found["cancelled"],
            seq=found["seq"] or 0,
            events=_events(found["events"]),
        )

    def append(self, append: Append) -> Appended:
        """Write an outcome."""
        with self._connection() as connection:
            return _append(connection, append)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """A transaction that is committed at the end of the block."""
        with self._connection() as connection, connection.transaction():
            yield _Transaction(connection)

    def events(self, run_id: str, after: int = 0) -> tuple[Event, ...]:
        """The events of a run, oldest first."""
        with self._connection() as connection:
            return _events(_value(connection, "events", run_id=run_id, after=after))

    def run(self, run_id: str) -> RunRow:
        """The row of a run."""
        with self._connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            row = cursor.execute(queries()["run"], {"run_id": run_id}).fetchone()
        if row is None:
            raise RunNotFound(f"There is no run {run_id}.")
        ids = ("parent_run_id", "root_run_id")
        values = row | {name: str(row[name]) if row[name] else None for name in ids}
        return RunRow(run_id=str(values.pop("id")), **values)

    def take_dispatch(self, run_id: str, steps: Sequence[str]) -> tuple[tuple[str, str], ...]:
        """Win the right to send these steps, as (step, queue): each is won once."""
        rows = self._rows("take_dispatch", run_id=run_id, steps=list(steps))
        return tuple((step, queue) for step, queue in rows)

    def undispatched(self, run_id: str) -> tuple[str, ...]:
        """The steps of a run that were never sent."""
        return tuple(step for (step,) in self._rows("undispatched", run_id=run_id))

    def set_completion(self, run_id: str, completion: Json) -> None:
        """Remember what waits for the end of the run; the first one stays."""
        with self._connection() as connection:
            parameters = {"run_id": run_id, "completion": _text(completion)}
            connection.execute(queries()["set_completion"], parameters)

    def complete(self, run_id: str) -> None:
        """The end of the run has been published."""
        with self._connection() as connection:
            connection.execute(queries()["complete"], {"run_id": run_id})

    def request_cancel(self, run_id: str) -> tuple[str, ...]:
        """Ask for the end of a run tree; gives the ids of its open runs."""
        return tuple(str(found) for (found,) in self._rows("request_cancel", run_id=run_id))

    def _rows(self, query: str, **parameters: Any) -> list[TupleRow]:
        with self._connection() as connection:
            return connection.execute(queries()[query], parameters).fetchall()

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        """A connection of the pool; what psycopg says of a failure becomes ours, in one place."""
        try:
            if self._pool.closed:
                self._pool.open()
            with self._pool.connection() as connection:
                yield connection
        except psycopg.Error as error:
            raise _mapped(error) from error


class _Transaction:
    """Appends on one connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def append(self, append: Append) -> Appended:
        """Write an outcome; it counts when the transaction is committed."""
        return _append(self.connection, append)


def _mapped(error: psycopg.Error) -> JournalError:
    if error.sqlstate == FENCED:
        return LeaseLost()
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return JournalError(f"The journal's database could not do it: {reason}")


def _append(connection: Connection, append: Append) -> Appended:
    change = append.change
    found = _value(
        connection,
        "append",
        run_id=append.run_id,
        expected=append.expected,
        step=append.step,
        attempt=append.attempt,
        verdict=append.verdict,
        event_steps=[event.step for event in append.events],
        types=[event.type for event in append.events],
        v=VERSION,
        payloads=[encode_event(event) for event in append.events],
        steps=_steps(append.steps),
        board_scopes=[write.scope for write in append.board],
        board_keys=[write.key for write in append.board],
        board_values=[_text(write.value) for write in append.board],
        runs=[_text(_columns(run)) for run in append.runs],
        definitions=[_text(as_json(run.definition)) for run in append.runs],
        starts=[encode_event(run.start) for run in append.runs],
        run_steps=[_steps(run.steps) for run in append.runs],
        status=change.status if change else None,
        output=_text(change.output) if change and change.output is not None else None,
    )
    if found["ok"]:
        return Appended(ok=True, seq=found["seq"])
    if found["why"] == "unknown":
        raise RunNotFound(f"There is no run {append.run_id}.")
    return Appended(ok=False, ended=found["why"] == "ended", behind=_events(found["events"]))


def _value(connection: Connection, query: str, **parameters: Any) -> Any:
    row = connection.execute(queries()[query], parameters).fetchone()
    return row[0] if row else None


def _events(stored: list[Json]) -> tuple[Event, ...]:
    return tuple(decode_event(each["payload"], each["v"]) for each in stored)


def _steps(steps: Sequence[NewStep]) -> str:
    return _text([as_json(step) for step in steps])


def _columns(run: NewRun) -> Json:
    return {
        "id": run.run_id,
        "task_id": run.task_id,
        "parent_run_id": run.parent_run_id,
        "root_run_id": run.root_run_id,
        "step_in_parent": run.step_in_parent,
        "agent": run.definition.name,
        "prompt_hash": _hash(run.start.prompt),
        "definition_hash": definition_hash(run.definition),
        "tenant_id": run.tenant_id,
        "user_id": run.user_id,
        "priority": run.priority,
        "timeout_seconds": run.definition.run_timeout_seconds,
        "v": VERSION,
    }


def _check_same(run: NewRun, found: Json) -> None:
    asked = (run.definition.name, _hash(run.start.prompt), run.tenant_id)
    if asked != (found["agent"], found["prompt_hash"], found["tenant_id"]):
        raise RunStateError(
            f"The id {run.task_id} belongs to another run: same id, but another prompt, agent or "
            "tenant. Give every task an id of its own."
        )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
