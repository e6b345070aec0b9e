"""The two ways messages travel to an MCP server, watched closely enough to tell what it has seen.

The mcp package does the talking; here is what it leaves out: whether a request can have reached the
server, HTTP status codes, a command's stderr, and servers that are careless about schemas.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import cache
from types import TracebackType
from typing import Any, Self

import anyio
import httpx2
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCResponse

from heartbit.tools.mcp.failure import Exchange
from heartbit.tools.mcp.server import McpServer
from heartbit.tools.mcp.translate import listed_tool

logger = logging.getLogger(__name__)
# An application that has set up no logging must not see the package's tracebacks on its terminal.
logging.getLogger("mcp").addHandler(logging.NullHandler())

exchange_now: ContextVar[Exchange] = ContextVar("exchange_now")
"""The exchange in whose name a task speaks; the mcp package carries it to where the wire is."""

LONGEST_EVENT_BYTES = 64 * 1024 * 1024
LONGEST_SILENCE_SECONDS = 300.0
GOODBYE_SECONDS = 2.0
LONGEST_LINE_BYTES = 10_000
_UNSENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
)


@asynccontextmanager
async def wire_to(server: McpServer, stderr: StderrLog) -> AsyncIterator[tuple[Any, Any]]:
    """The streams of messages from and to the server, as the mcp package's client takes them."""
    opened = _http(server) if server.url else _stdio(server, stderr)
    async with opened as (incoming, outgoing):
        yield Incoming(incoming), outgoing


@asynccontextmanager
async def _http(server: McpServer) -> AsyncIterator[tuple[Any, Any]]:
    headers = {"Authorization": server.auth_header} if server.auth_header else None
    silence = max(LONGEST_SILENCE_SECONDS, server.timeout_seconds)
    timeout = httpx2.Timeout(server.timeout_seconds, read=silence)
    async with (
        WatchedClient(headers=headers, timeout=timeout, verify=_trusted()) as client,
        streamable_http_client(
            server.url or "", http_client=client, max_sse_event_size=LONGEST_EVENT_BYTES
        ) as streams,
    ):
        yield streams


@asynccontextmanager
async def _stdio(server: McpServer, stderr: StderrLog) -> AsyncIterator[tuple[Any, Any]]:
    parameters = StdioServerParameters(
        command=server.command or "",
        args=list(server.args),
        env=dict(server.env) if server.env else None,
    )
    async with stderr.open() as pipe, stdio_client(parameters, errlog=pipe) as streams:
        incoming, outgoing = streams
        yield incoming, Outgoing(outgoing)


@cache
def _trusted() -> ssl.SSLContext:
    """Reading the system's certificates costs 20 to 40 ms, so it is done once."""
    return httpx2.create_ssl_context()


class WatchedClient(httpx2.AsyncClient):
    """Notes for every message what became of it on its way to the server.

    An error would otherwise end the session, and with it the calls of others that are under way: a
    contained one is answered by a made-up reply that ends its own call only.
    """

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send it; a contained error comes back as a reply with status 503."""
        if request.method == "DELETE":
            request.extensions["timeout"] = httpx2.Timeout(GOODBYE_SECONDS).as_dict()
        exchange = exchange_now.get(None)
        if exchange is None or request.method != "POST":
            return await super().send(request, **options)
        noted = exchange if _asks(request) else Exchange(contained=exchange.contained)
        return await self._send_noted(request, noted, options)

    async def _send_noted(
        self, request: httpx2.Request, exchange: Exchange, options: dict[str, Any]
    ) -> httpx2.Response:
        exchange.in_session = "mcp-session-id" in request.headers
        sent_before, exchange.sent = exchange.sent, True
        try:
            response = await super().send(request, **options)
        except httpx2.TransportError as error:
            exchange.error = error
            if isinstance(error, _UNSENT):
                exchange.sent = sent_before
            if not exchange.contained:
                raise
            return httpx2.Response(503, request=request)
        exchange.status = response.status_code
        return response


def _asks(request: httpx2.Request) -> bool:
    """Whether the message is a request: notices sent in its wake say nothing about its outcome."""
    message = json.loads(request.content)
    return "id" in message and "method" in message


class Incoming:
    """Messages from the server; a listed tool without a usable schema does not spoil the list."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def receive(self) -> Any:
        return _tolerated(await self._stream.receive())

    async def aclose(self) -> None:
        await self._stream.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        return _tolerated(await self._stream.__anext__())

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stream.__aexit__(kind, error, trace)


class Outgoing:
    """Messages to a command; notes which exchange may have reached it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def send(self, message: SessionMessage) -> None:
        exchange = exchange_now.get(None)
        if exchange is None:
            await self._stream.send(message)
            return
        before, exchange.sent = exchange.sent, True
        try:
            await self._stream.send(message)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            exchange.sent = before
            raise

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stream.__aexit__(kind, error, trace)


class StderrLog(asyncio.Protocol):
    """What a command writes to its stderr: lines in the debug log, never on the terminal."""

    def __init__(self, label: str) -> None:
        self.last_line = ""
        self._label = label
        self._rest = b""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Any]:
        """The end of a pipe for the command to write to."""
        reading, writing = os.pipe()
        loop = asyncio.get_running_loop()
        with os.fdopen(writing, "w") as pipe:
            transport, _ = await loop.connect_read_pipe(lambda: self, os.fdopen(reading, "rb"))
            try:
                yield pipe
            finally:
                transport.close()

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-LONGEST_LINE_BYTES:]
        for line in lines:
            text = line.decode(errors="replace").strip()
            if text:
                self.last_line = text
                logger.debug("%s: %s", self._label, text)


def _tolerated(item: Any) -> Any:
    """The message; if it lists tools, each of them with a schema the protocol allows."""
    message = item.message if isinstance(item, SessionMessage) else None
    if isinstance(message, JSONRPCResponse) and isinstance(message.result.get("tools"), list):
        tools = message.result["tools"]
        message.result["tools"] = [listed_tool(tool) for tool in tools if isinstance(tool, dict)]
    return item
