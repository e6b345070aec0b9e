"""One MCP server for the length of a block: connected once, and again after a connection was lost.

This module decides what is repeated; how a connection is made is `link`'s business, and what its
failures mean is `failure`'s. All of it belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from heartbit.core.messages import Json
from heartbit.core.tools import Effect, ToolOutput
from heartbit.tools.mcp.failure import McpFailure
from heartbit.tools.mcp.link import McpLink
from heartbit.tools.mcp.server import McpServer, McpTool
from heartbit.tools.mcp.translate import tool_output, tool_spec

REPEATABLE: frozenset[Effect] = frozenset({"pure", "idempotent"})
LONGEST_PAUSE_SECONDS = 30.0


class McpSession:
    """The tools of one server, and whatever connection serves them at the moment."""

    def __init__(self, server: McpServer, *, clock: Callable[[], float]) -> None:
        self.warning = ""
        self._server = server
        self._pause = Pause(clock)
        self._lock = asyncio.Lock()
        self._tools: tuple[McpTool, ...] | None = None
        self._link: McpLink | None = None
        self._links: set[McpLink] = set()
        self._closed = False

    async def tools(self) -> tuple[McpTool, ...]:
        """What the server offered when it was connected; nothing, and a warning, if it was not."""
        async with self._lock:
            if self._tools is None:
                self._tools = await self._first_tools()
        return self._tools

    async def call(self, tool: str, arguments: Json, effect: Effect) -> ToolOutput:
        """Call a tool by the server's own name for it; a failure is an output, too."""
        try:
            return await self._at_most_twice(tool, arguments, effect)
        except McpFailure as failure:
            doubt = ""
            if failure.begun and effect not in REPEATABLE:
                doubt = f" Whether {tool} took effect is unknown: check before you call it again."
            return ToolOutput(content=failure.message + doubt, is_error=True)

    def close(self) -> set[asyncio.Task[None]]:
        """Begin to close; everything is closed when the returned tasks are done."""
        self._closed = True
        for link in self._links:
            link.close()
        return {link.task for link in self._links}

    async def _first_tools(self) -> tuple[McpTool, ...]:
        try:
            self._link = await self._new_link()
        except McpFailure as failure:
            self.warning = f"{failure.message} Its tools are left out."
            return ()
        return tuple(
            McpTool(spec=tool_spec(self._server, tool), remote_name=tool.name, server=self)
            for tool in self._link.tools
        )

    async def _at_most_twice(self, tool: str, arguments: Json, effect: Effect) -> ToolOutput:
        try:
            return await self._once(tool, arguments)
        except McpFailure as failure:
            if not failure.lost or (failure.begun and effect not in REPEATABLE):
                raise
        return await self._once(tool, arguments)

    async def _once(self, tool: str, arguments: Json) -> ToolOutput:
        link = await self._connected()
        try:
            result = await link.call(tool, arguments)
        except McpFailure as failure:
            if failure.lost:
                self._drop(link)
            raise
        self._pause.over()
        return tool_output(result)

    async def _connected(self) -> McpLink:
        """The connection, made anew if it was lost: by the first who needs it, for all."""
        async with self._lock:
            if self._link is None:
                self._pause.admit(self._server.label)
                self._link = await self._new_link()
            return self._link

    async def _new_link(self) -> McpLink:
        if self._closed:
            raise McpFailure(f"The connection to the MCP server {self._server.label} was closed.")
        link = McpLink(self._server)
        self._links.add(link)
        link.task.add_done_callback(lambda _: self._links.discard(link))
        await link.opened()
        return link

    def _drop(self, link: McpLink) -> None:
        """Use it for no further call; the calls it still carries are left to finish."""
        if self._link is link:
            self._link = None
        link.retire()


class Pause:
    """Keeps a server that was lost from being tried at every call: 1, 2, 4 ... 30 seconds.

    The first attempt after a call that went well is free.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._attempts = 0
        self._until = -math.inf

    def admit(self, label: str) -> None:
        """Count one more attempt to reconnect.

        Raises:
            McpFailure: it is too early for one.
        """
        now = self._clock()
        if now < self._until:
            raise McpFailure(
                f"The connection to the MCP server {label} is lost;"
                f" it will be tried again in {math.ceil(self._until - now)} s."
            )
        self._until = now + min(2.0**self._attempts, LONGEST_PAUSE_SECONDS)
        self._attempts += 1

    def over(self) -> None:
        """The server answered a call."""
        self._attempts = 0
        self._until = -math.inf
