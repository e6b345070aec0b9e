"""todowrite and todoread: one list per agent, replaced as a whole."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from tests.support.builtin_tools import ToolUser


def todo(content: str, status: str = "pending", priority: str = "medium") -> dict[str, str]:
    return {"content": content, "status": status, "priority": priority}


@pytest.fixture
def agent() -> ToolUser:
    return ToolUser(None)


def test_the_list_is_replaced_and_shown(agent: ToolUser) -> None:
    assert "The todo list is empty." == agent.ok("todoread")
    agent.ok("todowrite", todos=[todo("old")])
    written = agent.ok(
        "todowrite", todos=[todo("first", "in_progress", "high"), todo("then", "cancelled", "low")]
    )
    assert "1. [>] first (in_progress, high priority)\n2. [-] then (cancelled, low priority)" == (
        written
    )
    assert written == agent.ok("todoread")


def test_two_todos_in_progress_are_refused_and_the_old_list_stays(agent: ToolUser) -> None:
    agent.ok("todowrite", todos=[todo("old")])
    refusal = agent.fails("todowrite", todos=[todo("a", "in_progress"), todo("b", "in_progress")])
    assert "2 todos are in_progress; at most one may be" in refusal
    assert "old" in agent.ok("todoread")


def test_agents_do_not_share_their_lists(agent: ToolUser, tmp_path: Path) -> None:
    agent.ok("todowrite", todos=[todo("mine")])
    assert "The todo list is empty." == ToolUser(tmp_path).ok("todoread")


@pytest.mark.parametrize(
    "wrong",
    [
        {"content": "x", "status": "pending"},
        {"content": "x", "status": "later", "priority": "low"},
        {"content": "x", "status": "pending", "priority": "urgent"},
        {"content": "", "status": "pending", "priority": "low"},
        {"content": "x", "status": "pending", "priority": "low", "due": "now"},
    ],
)
def test_the_schema_refuses_what_is_no_todo(agent: ToolUser, wrong: dict[str, str]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        agent.ok("todowrite", todos=[wrong])
