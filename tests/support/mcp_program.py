"""A real MCP server for tests: `python -m tests.support.mcp_program stdio|http KIND [PORT]`.

KIND `tools` offers one tool per behaviour, `paged` sixty tools on three pages, `looping` a list
whose last page names itself as the next. Over HTTP it listens on 127.0.0.1 and prints its port.
The environment says where calls are written down (CALLS), which Authorization header it asks for
(TOKEN), and that stopping takes long (STUBBORN).
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import mcp_types as types
import uvicorn
from mcp.server import Server
from mcp.server.mcpserver import Context, Image, MCPServer
from pydantic import BaseModel
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PURE = types.ToolAnnotations(read_only_hint=True)
IDEMPOTENT = types.ToolAnnotations(idempotent_hint=True)
PIXEL = b"\x89PNG\r\n\x1a\n" + bytes(92)


def note(line: str) -> None:
    """Write down that something happened, so that a test can count it."""
    if path := os.environ.get("CALLS"):
        with Path(path).open("a") as file:
            file.write(line + "\n")


class Answer(BaseModel):
    """Nothing is asked for; the question itself is what a test is about."""

    name: str


def tools_server() -> MCPServer:
    """One tool per behaviour."""
    server = MCPServer("tools", log_level="ERROR")
    met = asyncio.Event()
    waiting: list[str] = []

    @server.tool(annotations=PURE, structured_output=False)
    def read(text: str) -> str:
        """Give the text back."""
        note("read")
        return text

    @server.tool(annotations=IDEMPOTENT, structured_output=False)
    def put(text: str) -> str:
        """Give the text back."""
        note("put")
        return text

    @server.tool(structured_output=False)
    def pay(amount: int) -> str:
        note("pay")
        return f"paid {amount}"

    @server.tool(annotations=PURE, structured_output=False)
    def die_reading() -> str:
        """End this process, the first time it is asked."""
        note("die_reading")
        _die_once("reading")
        return "alive"

    @server.tool(annotations=PURE, structured_output=False)
    def die() -> str:
        """End this process."""
        note("die")
        os._exit(1)

    @server.tool(structured_output=False)
    def die_paying() -> str:
        """End this process, the first time it is asked."""
        note("die_paying")
        _die_once("paying")
        return "alive"

    @server.tool(structured_output=False)
    async def sleep(seconds: float) -> str:
        """Answer late."""
        note("sleep")
        await asyncio.sleep(seconds)
        return "awake"

    @server.tool(annotations=PURE, structured_output=False)
    async def meet(name: str) -> str:
        """Answer when two have come."""
        note("meet")
        waiting.append(name)
        if len(waiting) == 2:
            met.set()
        await met.wait()
        return name

    @server.tool(annotations=PURE, structured_output=False)
    def letters(count: int) -> str:
        """So many letters."""
        return "ä" * count

    @server.tool(annotations=PURE, structured_output=False)
    def fail() -> str:
        """Never works."""
        raise ValueError("out of cheese")

    @server.tool(annotations=PURE)
    def picture() -> Image:
        """A hundred bytes of a picture."""
        return Image(data=PIXEL, format="png")

    @server.tool(annotations=PURE)
    def everything() -> types.CallToolResult:
        """Every kind of part."""
        text = types.TextResourceContents(uri="memo://1", mime_type="text/plain", text="the memo")
        blob = types.BlobResourceContents(uri="blob://1", mime_type="font/ttf", blob="AAAA")
        link = types.ResourceLink(uri="file:///a", name="a", mime_type="text/csv", size=7)
        return types.CallToolResult(
            content=[
                types.TextContent(text="first"),
                types.AudioContent(data="AAA=", mime_type="audio/wav"),
                types.EmbeddedResource(resource=text),
                types.EmbeddedResource(resource=blob),
                link,
                types.TextContent(text="last"),
            ]
        )

    @server.tool(annotations=PURE)
    def only_structured() -> types.CallToolResult:
        """No text at all."""
        return types.CallToolResult(content=[], structured_content={"städte": ["Köln"]})

    @server.tool(annotations=PURE, structured_output=False)
    async def ask(ctx: Context) -> str:  # type: ignore[type-arg]
        """Ask the person something."""
        await ctx.elicit("Who are you?", Answer)
        return "thanks"

    @server.tool(annotations=PURE, structured_output=False)
    def process() -> str:
        """The number of this process."""
        return str(os.getpid())

    @server.tool(annotations=PURE, structured_output=False)
    def environment() -> str:
        """The names of all variables."""
        return " ".join(sorted(os.environ))

    @server.tool(annotations=PURE, structured_output=False)
    def complain(text: str) -> str:
        """Write to stderr."""
        print(text, file=sys.stderr, flush=True)
        return "done"

    return server


def _die_once(name: str) -> None:
    mark = Path(os.environ["CALLS"]).with_suffix(f".{name}")
    if not mark.exists():
        mark.touch()
        os._exit(1)


def paged_server(*, loop: bool) -> Server[Any]:
    """Sixty tools on three pages."""

    async def list_tools(
        ctx: object, params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        first = int((params and params.cursor) or 0)
        tools = [
            types.Tool(name=f"tool{n}", input_schema={"type": "object"})
            for n in range(first, first + 20)
        ]
        following = str(first + 20) if first < 40 else (str(first) if loop else None)
        return types.ListToolsResult(tools=tools, next_cursor=following)

    async def call_tool(ctx: object, params: types.CallToolRequestParams) -> types.CallToolResult:
        return types.CallToolResult(content=[types.TextContent(text=f"I am {params.name}")])

    return Server("paged", on_list_tools=list_tools, on_call_tool=call_tool)


class Gate:
    """What a test can ask of the HTTP side: an Authorization header, errors, forgotten sessions."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.sessions: set[bytes] = set()
        self.forgotten: set[bytes] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        answer = await self.refusal(scope["path"], headers)
        if answer is not None:
            await answer(scope, receive, send)
            return

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.sessions |= {v for k, v in message["headers"] if k == b"mcp-session-id"}
            await send(message)

        await self.app(scope, receive, watched)

    async def refusal(self, path: str, headers: dict[bytes, bytes]) -> PlainTextResponse | None:
        """The reply that the server itself never gets to give."""
        if path == "/forget":
            self.forgotten |= self.sessions
            return PlainTextResponse("forgotten")
        if path == "/silent":
            await asyncio.sleep(3600)
        if path.startswith("/status/"):
            text = f"you sent {headers.get(b'authorization', b'').decode()}"
            return PlainTextResponse(text, int(path.removeprefix("/status/")))
        token = os.environ.get("TOKEN")
        if token and headers.get(b"authorization", b"").decode() != token:
            return PlainTextResponse("no", 401)
        if headers.get(b"mcp-session-id") in self.forgotten:
            return PlainTextResponse("Session not found", 404)
        return None


def serve_http(server: Any, port: int) -> None:
    """Listen on loopback and print the port, once it can be connected to."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(128)
    print(listener.getsockname()[1], flush=True)
    app = Gate(server.streamable_http_app())
    config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1)
    asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))


def main(wire: str, kind: str, port: str = "0") -> None:
    """Serve one kind of tools over one wire until the end."""
    note("start")
    if os.environ.get("STUBBORN"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    server: Any = tools_server() if kind == "tools" else paged_server(loop=kind == "looping")
    if wire == "http":
        serve_http(server, int(port))
    elif isinstance(server, MCPServer):
        server.run()
    else:
        raise SystemExit("only tools are served over stdio")
    while os.environ.get("STUBBORN"):
        signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
