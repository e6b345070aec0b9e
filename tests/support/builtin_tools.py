"""An agent that calls built-in tools the way an engine does: validated arguments, one scratch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema

from heartbit.core.tools import ToolOutput
from heartbit.stores.in_memory import InMemoryBlackboard
from heartbit.tools.base import BoundTool, ToolContext
from heartbit.tools.builtin import builtin_tool


class ToolUser:
    """One agent's run in `workspace`."""

    def __init__(self, workspace: Path | None) -> None:
        self.context = ToolContext(workspace=workspace, notes=InMemoryBlackboard())

    async def call(self, tool: str | BoundTool, **arguments: Any) -> ToolOutput:
        """The output of one call, whose arguments must fit the tool's schema."""
        bound = builtin_tool(tool) if isinstance(tool, str) else tool
        jsonschema.validate(arguments, bound.spec.input_schema)
        output = await bound.call(arguments, self.context)
        output.content.encode("utf-8")
        return output

    def ok(self, tool: str | BoundTool, **arguments: Any) -> str:
        """The content of a call that must succeed."""
        output = asyncio.run(self.call(tool, **arguments))
        assert not output.is_error, output.content
        return output.content

    def fails(self, tool: str | BoundTool, **arguments: Any) -> str:
        """The content of a call that must end in an error result."""
        output = asyncio.run(self.call(tool, **arguments))
        assert output.is_error, output.content
        return output.content


async def until(condition: Callable[[], object]) -> None:
    """Give way to the loop until `condition`, on what other processes do, holds."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
