"""What can be asked about runs, in PostgreSQL."""

from __future__ import annotations

import uuid
from datetime import UTC
from typing import Any

from heartbit.core.agent import AgentDefinition
from heartbit.core.events import Event, RunStatus
from heartbit.core.messages import Json
from heartbit.errors import RunNotFound
from heartbit.stores.codec import decode_definition, decode_event
from heartbit.stores.database import Connection, Database, records, value
from heartbit.stores.journal import EVERY_TENANT, RunRow, Tenant

KNOWN_DEFINITIONS = 256


class PostgresRuns:
    """Reads of runs and of their events."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._definitions: dict[str, AgentDefinition] = {}

    def events(
        self, run_id: str, after: int = 0, *, tenant: Tenant = EVERY_TENANT
    ) -> tuple[Event, ...]:
        """The events of a run after a number, oldest first; none if there is no such run."""
        with self._database.connection() as connection:
            return self.events_on(connection, run_id, after, tenant)

    def run(self, run_id: str, *, tenant: Tenant = EVERY_TENANT) -> RunRow:
        """The row of a run."""
        with self._database.connection() as connection:
            return self.run_on(connection, run_id, tenant)

    def tree(self, run_id: str, *, tenant: Tenant = EVERY_TENANT) -> tuple[RunRow, ...]:
        """The rows of all runs of the tree that a run belongs to, oldest first."""
        if known_id(run_id) is None:
            return ()
        rows = self._database.records("tree", run_id=run_id, **tenancy(tenant))
        return tuple(_row(row) for row in rows)

    def list_runs(
        self,
        *,
        limit: int = 50,
        status: RunStatus | None = None,
        tenant: Tenant = EVERY_TENANT,
        before: str | None = None,
    ) -> tuple[RunRow, ...]:
        """Root runs, newest first; `before` is the id of the last run of the page in front."""
        rows = self._database.records(
            "list_runs",
            limit=limit,
            status=status,
            before=known_id(before) if before else None,
            **tenancy(tenant),
        )
        return tuple(_row(row) for row in rows)

    def events_on(
        self, connection: Connection, run_id: str, after: int, tenant: Tenant
    ) -> tuple[Event, ...]:
        """`events` as this connection sees them."""
        if known_id(run_id) is None:
            return ()
        found = value(connection, "events", run_id=run_id, after=after, **tenancy(tenant))
        return self._decoded(connection, found or [])

    def run_on(self, connection: Connection, run_id: str, tenant: Tenant) -> RunRow:
        """`run` as this connection sees it."""
        if known_id(run_id) is not None:
            for row in records(connection, "run", run_id=run_id, **tenancy(tenant)):
                return _row(row)
        raise RunNotFound(f"There is no run {run_id}.")

    def _decoded(self, connection: Connection, stored: list[Json]) -> tuple[Event, ...]:
        return tuple(self._event(connection, each) for each in stored)

    def _event(self, connection: Connection, stored: Json) -> Event:
        payload = stored["payload"]
        if stored["definition"] is not None:
            payload = payload | {"definition": self._definition(connection, stored["definition"])}
        return decode_event(payload, stored["v"])

    def _definition(self, connection: Connection, fingerprint: str) -> AgentDefinition:
        """Definitions are large, and shared by many runs: each is read and checked once."""
        known = self._definitions.get(fingerprint)
        if known is None:
            known = decode_definition(value(connection, "definition", hash=fingerprint))
            if len(self._definitions) >= KNOWN_DEFINITIONS:
                self._definitions = {}
            self._definitions[fingerprint] = known
        return known


def tenancy(tenant: Tenant) -> dict[str, Any]:
    """The parameters that keep one tenant's caller away from the runs of others."""
    if tenant is EVERY_TENANT:
        return {"every": True, "tenant": None}
    return {"every": False, "tenant": tenant}


def known_id(run_id: str) -> str | None:
    """The id in its usual form, or None if it cannot be the id of a run."""
    try:
        return str(uuid.UUID(run_id))
    except ValueError:
        return None


def _row(row: dict[str, Any]) -> RunRow:
    ids = ("parent_run_id", "root_run_id")
    times = ("created_at", "finished_at")
    values = row | {name: str(row[name]) if row[name] else None for name in ids}
    values |= {name: row[name].astimezone(UTC) if row[name] else None for name in times}
    return RunRow(run_id=str(values.pop("id")), **values)
