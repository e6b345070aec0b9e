"""From what a person lists as an agent's tools to specs for the rules and code for the engines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

from heartbit.core.schema import schema_problem
from heartbit.core.tools import ToolSpec
from heartbit.errors import ConfigError
from heartbit.tools.base import Tool
from heartbit.tools.function import tool as as_tool
from heartbit.tools.mcp import McpServer
from heartbit.tools.registry import (
    CELERY_TASK,
    ToolOptions,
    instead_of,
    load_tool,
    own_tools,
    unique_names,
    with_options,
    with_spec,
)

ToolLike = Tool | McpServer | str | Callable[..., Any]
CeleryTasks = Callable[[str, ToolOptions | None], Tool]


class Connections(Protocol):
    """Open MCP servers; a server that cannot be reached has no tools and a warning instead."""

    async def tools(self, server: McpServer) -> Sequence[Tool]:
        """The tools of a server, connecting to it at the first call."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """The tools that an agent's list stands for, and what a person should know about the rest."""

    tools: tuple[Tool, ...]
    warnings: tuple[str, ...]


async def find_tools(
    listed: Sequence[ToolLike],
    connections: Connections,
    options: Mapping[str, ToolOptions],
    celery_tasks: CeleryTasks | None = None,
) -> Found:
    """Resolve everything an agent lists; servers are connected to side by side.

    `options` apply to the tool with that name, or to the reference it was listed by. Without
    `celery_tasks`, which looks up what is listed as `celery:task.name`, there can be none.

    Raises:
        ConfigError: a tool does not exist or cannot be used as asked.
    """
    servers = [entry for entry in listed if isinstance(entry, McpServer)]
    local = [
        _local(entry, options, celery_tasks) for entry in listed if not isinstance(entry, McpServer)
    ]
    remote = await asyncio.gather(*(connections.tools(server) for server in servers))
    groups = [("", local)]
    groups += [
        (server.name or f"mcp{number}", [_with_options(found, options) for found in tools])
        for number, (server, tools) in enumerate(zip(servers, remote, strict=True), 1)
    ]
    tools, warnings = unique_names(groups)
    problems = [_schema_problem(found.spec) for found in tools]
    warnings += [
        f"Tool {found.spec.name} is left out: its input_schema is not valid: {problem}"
        for found, problem in zip(tools, problems, strict=True)
        if problem
    ]
    usable = [found for found, problem in zip(tools, problems, strict=True) if not problem]
    return Found(tools=tuple(usable), warnings=tuple(warnings))


def _schema_problem(spec: ToolSpec) -> str | None:
    """Checking a schema costs milliseconds, and a spec never changes: it is checked once."""
    if "schema_problem" not in spec.memo:
        spec.memo["schema_problem"] = schema_problem(spec.input_schema)
    problem = spec.memo["schema_problem"]
    return None if problem is None else str(problem)


def put_in(tools: Sequence[Tool], executables: dict[str, Tool]) -> tuple[ToolSpec, ...]:
    """Add `tools` to the executables of a run tree, by ref, and give their specs.

    Different functions of one qualified name (made by a factory) get numbers, to stay apart.
    """
    return tuple(_put_in(found, executables) for found in tools)


def _put_in(found: Tool, executables: dict[str, Tool]) -> ToolSpec:
    ref, number = found.spec.ref, 1
    while True:
        candidate = with_spec(found, replace(found.spec, ref=ref))
        if executables.setdefault(ref, candidate) == candidate:
            return candidate.spec
        number += 1
        ref = f"{found.spec.ref}#{number}"


def _local(
    entry: ToolLike, options: Mapping[str, ToolOptions], celery_tasks: CeleryTasks | None
) -> Tool:
    if isinstance(entry, str):
        if entry.startswith(CELERY_TASK) and celery_tasks is not None:
            found = celery_tasks(entry, options.get(entry))
        else:
            found = _named(entry)
        if entry in options:
            return with_options(found, options[entry])
        return _with_options(found, options)
    is_tool = hasattr(entry, "spec")
    found = cast(Tool, entry) if is_tool else as_tool(cast(Callable[..., Any], entry))
    return _with_options(found, options)


def _with_options(found: Tool, options: Mapping[str, ToolOptions]) -> Tool:
    chosen = options.get(found.spec.name)
    return with_options(found, chosen) if chosen else found


def _named(reference: str) -> Tool:
    if ":" in reference:
        return load_tool(reference)
    ours = own_tools()
    if found := ours.get(reference):
        return found
    raise ConfigError(f"Unknown tool {reference!r}{instead_of(reference, ours)}")
