"""A tool profile narrows what the model is told about, and never what it needs to finish."""

from __future__ import annotations

import pytest

from heartbit.core.agent import ToolProfile
from heartbit.core.tool_profile import visible
from heartbit.core.tools import ToolSpec

CONVERSATIONAL = [
    "memory_recall",
    "memory_store",
    "memory_update",
    "memory_forget",
    "memory_consolidate",
    "question",
    "todoread",
    "__respond__",
    "delegate_task",
    "form_squad",
]
STANDARD_ONLY = [
    "bash",
    "read",
    "write",
    "edit",
    "patch",
    "glob",
    "grep",
    "list",
    "webfetch",
    "websearch",
    "skill",
    "todowrite",
    "blackboard_read",
    "blackboard_write",
    "blackboard_list",
    "knowledge_search",
    "shared_memory_read",
    "shared_memory_write",
]


def tool(name: str, ref: str = "builtin:x") -> ToolSpec:
    return ToolSpec(name=name, description="", input_schema={}, ref=ref)


BUILT_IN = tuple(tool(name) for name in (*CONVERSATIONAL, *STANDARD_ONLY, "todo_manage"))
OWN = (
    tool("book_room", "python:app:book"),
    tool("lookup", "celery:a.b"),
    tool("find", "mcp:s#find"),
)


def names(tools: tuple[ToolSpec, ...], profile: ToolProfile | None) -> list[str]:
    return [each.name for each in visible(tools, profile)]


def test_conversational_shows_memory_questions_and_the_todo_list() -> None:
    assert names(BUILT_IN + OWN, "conversational") == CONVERSATIONAL


def test_standard_adds_files_shell_web_and_everything_the_agents_share() -> None:
    assert names(BUILT_IN + OWN, "standard") == CONVERSATIONAL + STANDARD_ONLY


@pytest.mark.parametrize("profile", ["full", None])
def test_full_and_no_profile_show_every_tool(profile: ToolProfile | None) -> None:
    assert visible(BUILT_IN + OWN, profile) == BUILT_IN + OWN


@pytest.mark.parametrize("profile", ["conversational", "standard"])
@pytest.mark.parametrize("name", ["__respond__", "delegate_task", "form_squad"])
def test_every_profile_keeps_delegation_and_the_structured_answer(
    profile: ToolProfile, name: str
) -> None:
    assert names((tool(name, f"core:{name}"),), profile) == [name]


@pytest.mark.parametrize("ref", ["python:app:read", "celery:app.read", "mcp:files#read"])
def test_an_own_tool_with_a_built_in_name_is_still_an_own_tool(ref: str) -> None:
    assert names((tool("read", ref), tool("blackboard_x", ref)), "standard") == []
