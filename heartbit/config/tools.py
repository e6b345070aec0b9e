"""Whether the tools that a configuration lists can be had: imports what it names, unlike `load`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from heartbit.config.agents import AgentTable, ToolTable
from heartbit.config.load import Loaded
from heartbit.config.locate import line_of, locate
from heartbit.config.problems import Problem
from heartbit.config.walk import KeyPath
from heartbit.errors import ConfigError
from heartbit.tools.base import Tool
from heartbit.tools.registry import (
    CELERY_TASK,
    ToolOptions,
    load_tool,
    own_tools,
    with_options,
)


def tool_problems(loaded: Loaded) -> list[Problem]:
    """A problem for each listed tool that cannot be had, or not with its `[[tools]]` options."""
    return [problem for problem, _ in _looked_at(loaded) if problem is not None]


def unused_options(loaded: Loaded) -> list[Problem]:
    """The `[[tools]]` entries that are about no tool of any agent.

    None, if an agent has MCP servers: only those know what tools they have.
    """
    config = loaded.config
    if any(agent.mcp_servers for agent in config.agents):
        return []
    names = {reference for agent in config.agents for reference in agent.tools}
    names |= {tool.spec.name for _, tool in _looked_at(loaded) if tool is not None}
    return [
        _problem(loaded, ("tools", index), f"[[tools]] {table.name!r} is about no agent's tool")
        for index, table in enumerate(config.tools)
        if table.name not in names
    ]


def _looked_at(loaded: Loaded) -> Iterator[tuple[Problem | None, Tool | None]]:
    """What is wrong with each listed tool, or the tool; nothing is known of Celery tasks."""
    options = {table.name: table for table in loaded.config.tools}
    for index, agent in enumerate(loaded.config.agents):
        for place, reference in enumerate(agent.tools):
            if reference.startswith(CELERY_TASK):
                continue
            try:
                yield None, _tool(reference, options)
            except ConfigError as error:
                path = ("agents", index, "tools", place)
                yield _problem(loaded, path, _sentence(agent, error)), None


def _tool(reference: str, options: Mapping[str, ToolTable]) -> Tool:
    """As `heartbit.toolbox` finds it."""
    found = load_tool(reference) if ":" in reference else own_tools()[reference]
    chosen = options.get(reference) or options.get(found.spec.name)
    return with_options(found, ToolOptions(**chosen.model_dump())) if chosen else found


def _sentence(agent: AgentTable, error: ConfigError) -> str:
    return f"{error.message.rstrip('.')} (listed by [[agents]] {agent.name!r})"


def _problem(loaded: Loaded, path: KeyPath, message: str) -> Problem:
    draft = loaded.draft
    if draft.source is None or draft.origin(path):
        return Problem(message=message)
    return Problem(message=message, source=draft.source, line=line_of(locate(draft.text), path))
