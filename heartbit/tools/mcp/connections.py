"""The open connections to MCP servers, one per server and event loop.

The `mcp` package is imported when the first connection is opened, never before: it costs most of a
second and 70 MiB.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from heartbit.errors import ConfigError
from heartbit.tools.mcp.server import McpServer, McpTool

if TYPE_CHECKING:
    from heartbit.tools.mcp.session import McpSession


class McpConnections:
    """The open connections of one event loop, each server's opened once and closed with the block.

    A server that cannot be reached is a sentence in `warnings` and has no tools. `clock` measures
    how long a lost server is left alone (seconds, monotonic).
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked: dict[McpServer, None] = {}
        self._sessions: dict[McpServer, McpSession] = {}
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed = True
        await _finished(task for session in self._sessions.values() for task in session.close())

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence for each server that could not be connected, in the order they were asked."""
        sessions = map(self._sessions.get, self._asked)
        return tuple(session.warning for session in sessions if session and session.warning)

    async def open(self, servers: Iterable[McpServer]) -> None:
        """Connect all of them at the same time.

        Raises:
            ConfigError: the `mcp` package is not installed.
        """
        await asyncio.gather(*(self.tools(server) for server in dict.fromkeys(servers)))

    async def tools(self, server: McpServer) -> tuple[McpTool, ...]:
        """The server's tools, in its own order; none if it could not be connected.

        Raises:
            ConfigError: the `mcp` package is not installed.
        """
        if server not in self._sessions:
            self._asked.setdefault(server)  # the import below ends in any order
            session = (await _session_type())(server, clock=self._clock)
            if self._closed:
                raise RuntimeError("McpConnections cannot connect after its block has ended")
            self._sessions.setdefault(server, session)
        return await self._sessions[server].tools()


async def _session_type() -> type[McpSession]:
    try:
        module = await asyncio.to_thread(importlib.import_module, "heartbit.tools.mcp.session")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("mcp", "mcp_types"):
            raise
        raise ConfigError(
            "MCP servers need the mcp package; install it: pip install 'heartbit[mcp]'"
        ) from error
    found: type[McpSession] = module.McpSession
    return found


async def _finished(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Wait for all of them, even when cancelled: no child process may outlive the block."""
    cancelled: asyncio.CancelledError | None = None
    pending = set(tasks)
    while pending:
        try:
            _, pending = await asyncio.wait(pending)
        except asyncio.CancelledError as error:
            cancelled = error
            pending = {task for task in pending if not task.done()}
    if cancelled:
        raise cancelled
