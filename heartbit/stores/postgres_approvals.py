"""Questions to humans, and their answers, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from heartbit.core.agent import as_json
from heartbit.core.events import Decision
from heartbit.stores.codec import as_text, decode_calls, decode_decisions
from heartbit.stores.database import Database
from heartbit.stores.journal import EVERY_TENANT, Approval, Tenant
from heartbit.stores.postgres_runs import known_id, tenancy
from heartbit.stores.records import refuse_decision

WAKE_SECONDS = 2.0


class PostgresApprovals:
    """The rows of approvals."""

    _database: Database

    def open_approvals(
        self, *, tenant: Tenant = EVERY_TENANT, limit: int = 100
    ) -> tuple[Approval, ...]:
        """What waits for a human, oldest first."""
        rows = self._database.records("open_approvals", limit=limit, **tenancy(tenant))
        return tuple(_approval(row) for row in rows)

    def approvals(self, run_id: str, *, tenant: Tenant = EVERY_TENANT) -> tuple[Approval, ...]:
        """All approvals of one run, oldest first."""
        if known_id(run_id) is None:
            return ()
        rows = self._database.records("approvals", run_id=run_id, **tenancy(tenant))
        return tuple(_approval(row) for row in rows)

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
        if known_id(run_id) is not None and self._database.rows(
            "decide",
            run_id=run_id,
            step=step,
            decisions=as_text(as_json(decisions)),
            calls_hash=calls_hash,
            by=by,
            expired=expired,
            again_seconds=WAKE_SECONDS,
            **tenancy(tenant),
        ):
            return
        found = [a for a in self.approvals(run_id, tenant=tenant) if a.step == step]
        refuse_decision(run_id, step, found[0] if found else None, calls_hash, expired=expired)


def _approval(row: dict[str, Any]) -> Approval:
    decisions = row["decisions"]
    return Approval(
        **row
        | {
            "run_id": str(row["run_id"]),
            "root_run_id": str(row["root_run_id"]),
            "calls": decode_calls(row["calls"]),
            "decisions": None if decisions is None else decode_decisions(decisions),
        }
    )
