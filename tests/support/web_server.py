"""A web server on loopback that says what a test tells it to."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

LOOPBACK = (ip_network("127.0.0.1/32"),)

Handler = Callable[[asyncio.StreamWriter], Any]


def answer(
    body: bytes | str = b"", *headers: str, status: str = "200 OK", kind: str | None = "text/html"
) -> bytes:
    """A complete HTTP response."""
    body = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    if kind is not None:
        lines.append(f"Content-Type: {kind}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def redirect(to: str) -> bytes:
    """A response that sends elsewhere."""
    return answer("", f"Location: {to}", status="302 Found")


@dataclass
class Server:
    """A loopback server that answers each path from a script and keeps the requests."""

    routes: dict[str, bytes | Handler]
    port: int = 0
    requests: list[str] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection."""
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._answer(reader, writer)
                writer.close()
                await writer.wait_closed()
        finally:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.requests.append(head)
        route = self.routes[head.split(" ")[1]]
        if isinstance(route, bytes):
            writer.write(route)
            await writer.drain()
        else:
            await route(writer)

    @contextlib.asynccontextmanager
    async def running(
        self, context: ssl.SSLContext | None = None, host: str = "127.0.0.1"
    ) -> AsyncIterator[Server]:
        """Serve on a free port while the block runs, and wait for what is still being served."""
        tasks: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.add(asyncio.ensure_future(self.serve(reader, writer)))

        server = await asyncio.start_server(accept, host, 0, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
