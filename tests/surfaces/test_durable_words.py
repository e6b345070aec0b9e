"""What the durable commands say: findings of the doctor, questions, turns. No process."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from heartbit.cli.checks import (
    Finding,
    migration_finding,
    redis_findings,
    server_findings,
    visibility_finding,
    worker_findings,
)
from heartbit.cli.inspect import first_numbers
from heartbit.cli.overview import approval_json, approval_lines, run_lines
from heartbit.cli.turns import turn_lines
from heartbit.core.messages import Json, ToolCall
from heartbit.stores.health import ServerFacts
from heartbit.stores.records import Approval, RunRow

FACTS = ServerFacts(
    version=180_001, max_connections=100, connections=2, vector="0.8.0", ahead_seconds=0.1
)
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def levels(findings: list[Finding]) -> dict[str, str]:
    """The level of each finding by its name; what is not well has a remedy."""
    assert all(finding.remedy or finding.level == "ok" for finding in findings)
    return {finding.name: finding.level for finding in findings}


def of_server(**changes: Any) -> dict[str, str]:
    """The levels for a server that differs so from a good one."""
    return levels(list(server_findings(replace(FACTS, **changes))))


def test_a_good_server_is_good() -> None:
    assert {"ok"} == set(of_server().values())


@pytest.mark.parametrize(
    ("changes", "name", "level"),
    [
        ({"version": 130_011}, "database", "fail"),
        ({"version": 140_000}, "database", "ok"),
        ({"vector": None}, "pgvector", "warn"),
        ({"vector": "0.6.2"}, "pgvector", "warn"),
        ({"vector": "0.10.0"}, "pgvector", "ok"),
        ({"ahead_seconds": 3.0}, "clock", "warn"),
        ({"ahead_seconds": -3.0}, "clock", "warn"),
        ({"max_connections": 14}, "connections", "warn"),
    ],
)
def test_what_is_wrong_with_a_server_has_a_remedy(
    changes: dict[str, Any], name: str, level: str
) -> None:
    assert level == of_server(**changes)[name]


@pytest.mark.parametrize(
    ("version", "policy", "expected"),
    [
        ("7.2.4", "noeviction", ("ok", "ok")),
        ("7.2.4", "allkeys-lru", ("ok", "fail")),
        ("7.2.4", None, ("ok", "warn")),
        ("6.0.16", "noeviction", ("fail", "ok")),
    ],
)
def test_a_redis_that_would_lose_messages_fails(
    version: str, policy: str | None, expected: tuple[str, str]
) -> None:
    found = levels(list(redis_findings(version, policy)))
    assert expected == (found["broker"], found["eviction"])


def test_a_short_visibility_timeout_is_a_warning() -> None:
    assert "warn" == visibility_finding(60, 15).level
    assert "warn" == visibility_finding(3600, 7200).level
    assert "ok" == visibility_finding(3600, 15).level


def test_a_queue_that_nobody_reads_fails() -> None:
    read = {"a@host": ["heartbit.llm"], "b@host": ["heartbit.tools"]}
    found = list(worker_findings(read, ["heartbit.llm", "heartbit.tools", "gpu"]))
    assert {"workers": "ok", "queues": "fail"} == levels(found)
    assert "Start a worker with -Q gpu." == found[1].remedy
    assert {"workers": "fail"} == levels(list(worker_findings({}, ["gpu"])))


def test_a_missing_migration_fails() -> None:
    assert isinstance(migration_finding([]), Finding)
    assert ("ok", "fail") == (migration_finding([]).level, migration_finding(["0002_x"]).level)


def question(*calls: ToolCall, **changes: Any) -> Approval:
    """An open question about these calls."""
    return replace(
        Approval(
            run_id="r",
            step="1/approval",
            root_run_id="root",
            agent="writer",
            calls=calls,
            calls_hash="0123456789abcdef",
            requested_at=NOW,
        ),
        **changes,
    )


def test_nothing_in_a_question_can_hide_from_who_decides() -> None:
    """An escape sequence could overwrite the line that is approved."""
    hidden = ToolCall(id="1", name="bash\x1b[2K", arguments={"x": "rm\x1b[1A", "y": "\u202e"})
    text = "\n".join(approval_lines(question(hidden)))
    assert not [character for character in text if character in "\x1b\u202e"]
    assert "rm\\u001b[1A" in text


def test_a_question_tells_its_hash_its_time_and_its_end() -> None:
    head = next(iter(approval_lines(question(expires_at=NOW))))
    assert head.startswith("[writer] asks since 2026-01-0")
    assert ", until 2026-01-0" in head
    assert head.endswith("(--calls 01234567):")
    assert NOW.isoformat() == approval_json(question(expires_at=NOW))["expires_at"]


def test_calls_are_numbered_through_all_questions() -> None:
    assert [1, 3, 4] == first_numbers([2, 1, 3])
    call = ToolCall(id="1", name="save", arguments={})
    assert [3, 4] == [each["number"] for each in approval_json(question(call, call), 3)["calls"]]


def test_a_run_is_one_line_whatever_its_prompt_is() -> None:
    row = RunRow(
        run_id="r",
        task_id="r",
        parent_run_id=None,
        root_run_id="r",
        step_in_parent=None,
        agent="a",
        title="first\x1b[2K\nsecond",
        status="failed",
        output=None,
        completion=None,
        completion_done=False,
        cancel_requested=False,
        tenant_id=None,
        user_id=None,
        created_at=NOW,
        finished_at=None,
    )
    (line,) = run_lines([row])
    assert line.startswith("r  failed     2026-01-0")
    assert line.endswith("first\\u001b[2K second")


def entry(kind: str, **fields: object) -> Json:
    """An entry of the run r."""
    return {"run_id": "r", "agent": "writer", "type": kind, "step": None} | fields


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (entry("run_started", prompt="a\nb"), "prompt: a b"),
        (entry("model_failed", step="2/model", message="no"), "turn 2: the model call failed: no"),
        (entry("tool_returned", step="1/tool/0", is_error=True, content="x"), "1/tool/0 failed: x"),
        (entry("run_failed", code="c", message="m"), "failed (c): m"),
        (entry("run_cancelled"), "run cancelled"),
        (entry("approval_requested", calls=[{"name": "save"}]), "asked about save"),
    ],
)
def test_every_event_is_told_in_a_line(told: Json, line: str) -> None:
    assert ["writer  r", line] == [each.strip() for each in turn_lines([told])]
