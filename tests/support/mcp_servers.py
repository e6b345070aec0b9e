"""Real MCP servers in processes of their own, on loopback, gone when their block ends."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from heartbit.core.tools import ToolOutput
from heartbit.tools.base import ToolContext
from heartbit.tools.mcp import McpConnections, McpServer, McpTool

ROOT = Path(__file__).parents[2]
NODE_DIRECTORY = ROOT / ".heartbit" / "node"
NPM_SECONDS = 90  # within the timeout of a test
NODE_PACKAGES = {
    "@modelcontextprotocol/server-everything": "2026.8.31",
    "@modelcontextprotocol/server-filesystem": "2026.8.31",
    "supergateway": "4.0.0",
}


def stdio_server(*, calls: Path | None = None, **options: Any) -> McpServer:
    """The test program as a command; `calls` is where it writes down what it was asked."""
    env = {"PYTHONPATH": str(ROOT), **options.pop("env", {})}
    if calls:
        env["CALLS"] = str(calls)
    args = ["-m", "tests.support.mcp_program", "stdio", "tools"]
    return McpServer(command=sys.executable, args=args, env=env, **options)


@dataclass
class HttpServer:
    """The test program on a port of 127.0.0.1."""

    process: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        """Its MCP endpoint."""
        return self.at("/mcp")

    def at(self, path: str) -> str:
        """The address of `path`."""
        return f"http://127.0.0.1:{self.port}{path}"

    def kill(self) -> None:
        """End it as a crash would."""
        end_group(self.process)


@contextmanager
def http_server(kind: str = "tools", *, port: int = 0, **env: str) -> Iterator[HttpServer]:
    """The test program over HTTP, ready to be connected to."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.mcp_program", "http", kind, str(port)],
        cwd=ROOT,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout
    try:
        with process.stdout:
            yield HttpServer(process=process, port=int(process.stdout.readline()))
    finally:
        end_group(process)


def end_group(process: subprocess.Popen[Any]) -> None:
    """End the process and whatever it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


async def tools_of(connections: McpConnections, server: McpServer) -> dict[str, McpTool]:
    """The server's tools by name."""
    return {tool.spec.name: tool for tool in await connections.tools(server)}


async def call(tool: McpTool, **arguments: Any) -> ToolOutput:
    """The output of one call."""
    return await tool.call(arguments, ToolContext())


def lines(path: Path) -> list[str]:
    """What a server wrote down."""
    return path.read_text().splitlines()


def alive(pid: int) -> bool:
    """Whether the process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for something that another process does."""

    def poll() -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    await asyncio.to_thread(poll)


async def written(path: Path, line: str) -> None:
    """Wait until a server has written the line down."""
    await eventually(lambda: path.exists() and line in lines(path))


@dataclass
class Clock:
    """Time that passes when a test says so."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class CuttingProxy:
    """A TCP proxy that can lose a reply: the server has done its work, and nobody hears of it."""

    port: int = 0
    cut_next_reply: bool = False
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def url(self) -> str:
        """The MCP endpoint behind it."""
        return f"http://127.0.0.1:{self.port}/mcp"

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes one way until their source ends."""
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def reply(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry a server's replies, but for one that is to be lost."""
        while data := await reader.read(65536):
            if self.cut_next_reply:
                self.cut_next_reply = False
                break
            writer.write(data)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def cutting_proxy(target: int) -> AsyncIterator[CuttingProxy]:
    """A proxy before the server on port `target`."""
    proxy = CuttingProxy()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", target)
        proxy.writers |= {writer, there_writer}
        await asyncio.gather(
            proxy.carry(reader, there_writer),
            proxy.reply(there_reader, writer),
            return_exceptions=True,
        )
        there_writer.close()

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    proxy.port = listener.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        listener.close()
        for writer in proxy.writers:
            writer.close()
        await asyncio.sleep(0)


def node_packages() -> Path:
    """The directory with the commands of the node servers, installed by name when missing."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed; install Node.js 20 or newer to run this test")
    wanted = [f"{name}@{version}" for name, version in NODE_PACKAGES.items()]
    mark = NODE_DIRECTORY / "installed"
    if not mark.exists() or mark.read_text() != " ".join(wanted):
        quiet = ["--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
        command = [npm, "install", "--prefix", str(NODE_DIRECTORY), *quiet, *wanted]
        NODE_DIRECTORY.mkdir(parents=True, exist_ok=True)
        if reason := _failure(command):
            problem = f"npm could not install {', '.join(wanted)}: {reason}"
            pytest.fail(problem) if os.environ.get("CI") else pytest.skip(problem)
        mark.write_text(" ".join(wanted))
    return NODE_DIRECTORY / "node_modules" / ".bin"


def _failure(command: list[str]) -> str | None:
    """Why npm failed, if it did; without a network it would go on for minutes."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=NPM_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"it took longer than {NPM_SECONDS} seconds"
    return f"exit code {done.returncode} {done.stderr.strip()[-500:]}" if done.returncode else None


@contextmanager
def node_server(
    directory: Path, *command: str, port: str = "0"
) -> Iterator[tuple[str, subprocess.Popen[Any]]]:
    """The MCP endpoint and the process of a node server, whatever port it thinks it listens on."""
    address_file = directory / "address"
    address_file.unlink(missing_ok=True)
    preload = ROOT / "tests" / "support" / "loopback.cjs"
    env = {
        **os.environ,
        "PORT": port,
        "NODE_OPTIONS": f"--require {preload}",
        "ADDRESS_FILE": str(address_file),
    }
    output = (directory / "output").open("wb")
    process = subprocess.Popen(
        command, env=env, stdout=output, stderr=output, start_new_session=True, cwd=directory
    )
    try:
        yield f"http://{_address(address_file, process)}/mcp", process
    finally:
        end_group(process)
        output.close()


def _address(file: Path, process: subprocess.Popen[Any]) -> str:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        if file.exists() and (text := file.read_text()).endswith("\n"):
            return text.strip()
        time.sleep(0.02)
    raise AssertionError(f"{process.args!r} did not begin to listen")
