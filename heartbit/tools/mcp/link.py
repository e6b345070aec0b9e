"""One connection to an MCP server, from the handshake to the goodbye.

A task of its own enters and leaves the mcp client, as its cancel scopes demand; calls come from
whatever task needs one.
"""

from __future__ import annotations

import asyncio
import math

import anyio
import mcp_types
from mcp import Client, MCPError

import heartbit
from heartbit.core.messages import Json
from heartbit.tools.mcp.failure import Exchange, McpFailure, call_failure, connect_failure
from heartbit.tools.mcp.server import McpServer
from heartbit.tools.mcp.wire import GOODBYE_SECONDS, StderrLog, exchange_now, wire_to

MOST_PAGES = 100


class McpLink:
    """Connecting begins at once; `opened` waits for it, `call` needs it, `close` ends it."""

    def __init__(self, server: McpServer) -> None:
        self.tools: tuple[mcp_types.Tool, ...] = ()
        self._server = server
        self._client: Client | None = None
        self._calls = 0
        self._retired = False
        self._failure: McpFailure | None = None
        self._decided = asyncio.Event()
        self._goodbye = asyncio.Event()
        self._scope = anyio.CancelScope()
        self.task = asyncio.create_task(self._live(), name=f"mcp {server.label}")

    async def opened(self) -> None:
        """Wait until the server is ready and its tools are listed.

        Raises:
            McpFailure: it did not get that far.
        """
        try:
            await self._decided.wait()
        except asyncio.CancelledError:
            self.close()
            raise
        if self._failure:
            raise self._failure

    async def call(self, tool: str, arguments: Json) -> mcp_types.CallToolResult:
        """The result of one call; several may be under way at the same time.

        Raises:
            McpFailure: there is no result.
        """
        exchange = Exchange(contained=True)
        token = exchange_now.set(exchange)
        self._calls += 1
        try:
            return await self._client_now().call_tool(tool, arguments)
        except McpFailure:
            raise
        except Exception as error:
            raise call_failure(self._server, exchange, error) from error
        finally:
            exchange_now.reset(token)
            self._calls -= 1
            self._close_when_idle()

    def retire(self) -> None:
        """Close as soon as no call is under way."""
        self._retired = True
        self._close_when_idle()

    def close(self) -> None:
        """Begin to close; `task` is done when nothing is left, no child process either."""
        if self._decided.is_set():
            self._goodbye.set()
        else:
            self._scope.cancel()

    def _close_when_idle(self) -> None:
        if self._retired and not self._calls:
            self.close()

    def _client_now(self) -> Client:
        if self._client is None:
            text = f"The connection to the MCP server {self._server.label} was lost."
            raise McpFailure(text, lost=True)
        return self._client

    async def _live(self) -> None:
        exchange = Exchange(contained=False)
        exchange_now.set(exchange)
        stderr = StderrLog(self._server.label)
        error: BaseException | None = None
        try:
            await self._serve(stderr)
        except (Exception, BaseExceptionGroup) as raised:
            error = raised
        finally:
            self._client = None
            if not self._decided.is_set():
                self._failure = connect_failure(self._server, exchange, error, stderr.last_line)
            self._decided.set()

    async def _serve(self, stderr: StderrLog) -> None:
        """Connect within the server's time, be there until the goodbye, and leave within ours.

        The deadline is a scope around everything: shielded clean-up still gets its time.
        """
        with self._scope:
            self._scope.deadline = anyio.current_time() + self._server.timeout_seconds
            async with self._new_client(stderr) as client:
                self.tools = await _all_tools(client)
                self._client = client
                self._scope.deadline = math.inf
                self._decided.set()
                await self._goodbye.wait()
                self._client = None
                self._scope.deadline = anyio.current_time() + 2 * GOODBYE_SECONDS

    def _new_client(self, stderr: StderrLog) -> Client:
        return Client(
            wire_to(self._server, stderr),
            mode=self._server.mode,
            read_timeout_seconds=self._server.timeout_seconds,
            client_info=mcp_types.Implementation(name="heartbit", version=heartbit.__version__),
            cache=None,
        )


async def _all_tools(client: Client) -> tuple[mcp_types.Tool, ...]:
    """Every page of the list, unless the server hands out the same page twice or never ends."""
    tools: list[mcp_types.Tool] = []
    cursors: set[str | None] = set()
    cursor: str | None = None
    while cursor not in cursors and len(cursors) < MOST_PAGES:
        cursors.add(cursor)
        try:
            page = await client.list_tools(cursor=cursor)
        except MCPError as error:
            if error.code != mcp_types.METHOD_NOT_FOUND:
                raise
            break
        tools += page.tools
        if page.next_cursor is None:
            break
        cursor = page.next_cursor
    return tuple(tools)
