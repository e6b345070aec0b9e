"""MCP servers that others wrote, run by node: the everything server, and files behind a gateway."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from heartbit.tools.mcp import McpConnections, McpServer
from tests.support.mcp_servers import call, end_group, node_packages, node_server, tools_of

pytestmark = [pytest.mark.slow, pytest.mark.network]


@pytest.fixture(scope="module")
def commands() -> Path:
    """Where the commands of the node servers are."""
    return node_packages()


@pytest.fixture(scope="module")
def everything(commands: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The everything server over streamable HTTP."""
    directory = tmp_path_factory.mktemp("everything")
    command = [str(commands / "mcp-server-everything"), "streamableHttp"]
    with node_server(directory, *command) as (url, _):
        yield url


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The directory that the filesystem server may read."""
    directory = tmp_path / "files"
    directory.mkdir()
    (directory / "ünïcode.txt").write_text("größe\n")
    return directory


def gateway(commands: Path, files: Path) -> list[str]:
    """The filesystem server behind the gateway, one process per session."""
    inner = f"{commands / 'mcp-server-filesystem'} {files}"
    outer = [str(commands / "supergateway"), "--stdio", inner, "--stateful"]
    return [*outer, "--outputTransport", "streamableHttp", "--logLevel", "none"]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_everything_server_is_used_like_any_other(everything: str, mode: str) -> None:
    """Texts, pictures, structured content, links, and arguments it does not take."""

    async def main() -> None:
        async with McpConnections() as connections:
            tools = await tools_of(connections, McpServer(everything, mode=mode))  # type: ignore[arg-type]
            assert () == connections.warnings
            echo = await call(tools["echo"], message="Grüße")
            picture = await call(tools["get-tiny-image"])
            links = await call(tools["get-resource-links"], count=1)
            weather = await call(tools["get-structured-content"], location="Chicago")
            wrong = await call(tools["echo"], massage="Grüße")
        assert "Echo: Grüße" == echo.content
        assert "[image: image/png, " in picture.content
        assert "[resource link: " in links.content
        assert "temperature" in weather.content
        assert wrong.is_error

    assert everything.startswith("http://127.0.0.1:")
    asyncio.run(main())


def test_the_everything_server_over_stdio(commands: Path) -> None:
    """Started as a command, as most configurations do."""

    async def main() -> None:
        server = McpServer(command=str(commands / "mcp-server-everything"), args=["stdio"])
        async with McpConnections() as connections:
            tools = await tools_of(connections, server)
            outputs = await asyncio.gather(
                call(tools["get-sum"], a=2, b=3), call(tools["echo"], message="a")
            )
        assert "5" in outputs[0].content
        assert "Echo: a" == outputs[1].content

    asyncio.run(main())


def test_files_behind_the_gateway(commands: Path, files: Path, tmp_path: Path) -> None:
    """Reading is pure, a path outside the root is refused by the server."""

    async def main(url: str) -> None:
        async with McpConnections() as connections:
            tools = await tools_of(connections, McpServer(url))
            assert () == connections.warnings
            assert "pure" == tools["read_text_file"].spec.effect
            inside = await call(tools["read_text_file"], path=str(files / "ünïcode.txt"))
            outside = await call(tools["read_text_file"], path="/etc/hostname")
        assert "größe\n" == inside.content
        assert outside.is_error
        assert "Access denied" in outside.content

    with node_server(tmp_path, *gateway(commands, files)) as (url, _):
        asyncio.run(main(url))


@pytest.mark.parametrize("behind", ["everything", "gateway"])
def test_a_node_server_that_restarts_is_used_again(
    commands: Path, files: Path, tmp_path: Path, behind: str
) -> None:
    """It has forgotten the session; every server says so in its own way."""
    command = [str(commands / "mcp-server-everything"), "streamableHttp"]
    tool, arguments = "echo", {"message": "again"}
    if behind == "gateway":
        command = gateway(commands, files)
        tool, arguments = "read_text_file", {"path": str(files / "ünïcode.txt")}

    async def main(url: str, process: subprocess.Popen[bytes]) -> None:
        async with McpConnections() as connections:
            tools = await tools_of(connections, McpServer(url))
            before = await call(tools[tool], **arguments)
            end_group(process)
            port = url.split(":")[2].removesuffix("/mcp")
            with node_server(tmp_path, *command, port=port):
                after = await call(tools[tool], **arguments)
        assert not before.is_error
        assert before == after

    with node_server(tmp_path, *command) as (url, process):
        asyncio.run(main(url, process))
