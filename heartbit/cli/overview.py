"""Runs and questions as lines and as JSON: what `status`, `runs` and `approvals` print. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from heartbit.cli.lines import DELEGATING, summary
from heartbit.cli.tally import AgentTally
from heartbit.cli.words import one_line, pretty
from heartbit.core.agent import as_json
from heartbit.core.messages import Json
from heartbit.stores.records import Approval, RunRow

HASH_CHARACTERS = 8


def row_json(row: RunRow) -> Json:
    """What is known of a run without its journal."""
    return {
        "run_id": row.run_id,
        "parent_run_id": row.parent_run_id,
        "root_run_id": row.root_run_id,
        "agent": row.agent,
        "prompt": row.title,
        "status": row.status,
        "cancel_requested": row.cancel_requested,
        "created_at": row.created_at.isoformat(),
        "finished_at": _moment(row.finished_at),
    }


def usage_json(run: AgentTally) -> Json:
    """What one run has used, without those below it."""
    return {
        "turns": run.turn,
        "usage": as_json(run.usage),
        "cost_usd": run.cost_usd,
        "tools": dict(run.tools),
    }


def approval_json(approval: Approval, first: int = 1) -> Json:
    """A question; its calls are numbered from `first`."""
    return {
        "run_id": approval.run_id,
        "root_run_id": approval.root_run_id,
        "agent": approval.agent,
        "step": approval.step,
        "calls_hash": approval.calls_hash,
        "calls": [
            {"number": number, "name": call.name, "arguments": call.arguments}
            for number, call in enumerate(approval.calls, first)
        ],
        "requested_at": approval.requested_at.isoformat(),
        "expires_at": _moment(approval.expires_at),
    }


def tree_lines(run: AgentTally, rows: Mapping[str, RunRow], depth: int = 0) -> Iterator[str]:
    """A run and those below it, indented: who, where it stands, what it used, what it does."""
    indent = "  " * depth
    yield f"{indent}{one_line(run.agent, 64)}  {rows[run.run_id].status}  {summary(run)}"
    used = [f"{name} x{number}" for name, number in run.tools.items() if name not in DELEGATING]
    if used:
        yield f"{indent}  tools: {one_line(', '.join(used))}"
    for child in run.children:
        yield from tree_lines(child, rows, depth + 1)


def approval_lines(approval: Approval, first: int = 1) -> Iterator[str]:
    """A question with every call whole, for nothing may be hidden from who decides."""
    until = f", until {_short(approval.expires_at)}" if approval.expires_at else ""
    since = f"since {_short(approval.requested_at)}{until}"
    yield f"[{one_line(approval.agent, 64)}] asks {since} (--calls {short_hash(approval)}):"
    for number, call in enumerate(approval.calls, first):
        yield f"  {number}  {one_line(call.name)} {pretty(call.arguments)}"


def run_lines(rows: Sequence[RunRow]) -> Iterator[str]:
    """One line per run."""
    for row in rows:
        yield f"{row.run_id}  {row.status:<9}  {_short(row.created_at)}  {one_line(row.title, 60)}"


def short_hash(approval: Approval) -> str:
    """The beginning of the hash: enough to tell the questions of one run apart."""
    return approval.calls_hash[:HASH_CHARACTERS]


def _moment(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _short(at: datetime) -> str:
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S}"
