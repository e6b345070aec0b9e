"""Which of an agent's tools the model is told about.

A profile narrows what is sent with each request; it grants nothing and removes nothing from what
the agent was given.
"""

from __future__ import annotations

from heartbit.core.agent import ToolProfile
from heartbit.core.tools import RESERVED, ToolSpec

_CONVERSATIONAL = RESERVED | {
    "memory_recall",
    "memory_store",
    "memory_update",
    "memory_forget",
    "memory_consolidate",
    "question",
    "todoread",
}
_STANDARD = _CONVERSATIONAL | {
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
    "knowledge_search",
}
_STANDARD_PREFIXES = ("blackboard_", "shared_memory_")
_CUSTOM = ("python:", "celery:", "mcp:")


def visible(tools: tuple[ToolSpec, ...], profile: ToolProfile | None) -> tuple[ToolSpec, ...]:
    """The tools the model is to know, in their order.

    `conversational`: memory, questions to the user and reading the todo list. `standard`: also
    files, shell, web, todo list, blackboard, knowledge and shared memory. `full`, or no profile:
    all of them. Delegation and the structured answer are kept in every profile. An agent's own
    tools (Python functions, Celery tasks, MCP servers) are seen with `full` only, whatever
    their names.
    """
    if profile is None or profile == "full":
        return tools
    return tuple(tool for tool in tools if _is_visible(tool, profile))


def _is_visible(tool: ToolSpec, profile: ToolProfile) -> bool:
    if tool.ref.startswith(_CUSTOM):
        return False
    if profile == "conversational":
        return tool.name in _CONVERSATIONAL
    return tool.name in _STANDARD or tool.name.startswith(_STANDARD_PREFIXES)
