"""An MCP server as a value: what is accepted, what is shown, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from heartbit.errors import ConfigError
from heartbit.tools.mcp import McpServer

SECRET = "Bearer s3cr3t-t0ken"


def test_an_address_is_the_first_argument() -> None:
    """The short form of the library API."""
    server = McpServer("http://localhost:8000/mcp")
    assert "http://localhost:8000/mcp" == server.url
    assert "mcp:http://localhost:8000/mcp" == server.ref


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "either a url or a command"),
        ({"url": "http://h/mcp", "command": "x"}, "either a url or a command"),
        ({"url": "ftp://h/mcp"}, "http:// or https://"),
        ({"url": "localhost:8000"}, "http:// or https://"),
        ({"url": "http:///mcp"}, "has a host"),
        ({"url": "http://h:port/mcp"}, "http:// or https://"),
        ({"url": "http://[::1/mcp"}, "http:// or https://"),
        ({"url": "http://h/mcp", "args": ["x"]}, "args and env mean nothing"),
        ({"url": "http://h/mcp", "auth_header": "Bearer a\nb"}, "auth_header"),
        ({"url": "http://h/mcp", "auth_header": "Bearer ä"}, "auth_header"),
        ({"command": "x", "auth_header": SECRET}, "auth_header means nothing"),
        ({"command": "x", "args": ["a\0b"]}, "NUL"),
        ({"url": "http://h/mcp", "mode": "modern"}, "auto | legacy"),
        ({"url": "http://h/mcp", "timeout_seconds": 0}, "timeout_seconds"),
        ({"url": "http://h/mcp", "timeout_seconds": float("nan")}, "timeout_seconds"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_in_a_sentence(
    values: dict[str, object], words: str
) -> None:
    """And the sentence quotes no secret."""
    with pytest.raises(ConfigError) as raised:
        McpServer(**values)  # type: ignore[arg-type]
    assert words in raised.value.message
    assert "s3cr3t" not in raised.value.message


def test_no_secret_is_shown() -> None:
    """Neither the header, nor the environment, nor what is hidden in an address."""
    address = "https://ann:s3cr3t@example.org/mcp?key=s3cr3t#s3cr3t"
    shown = [
        repr(McpServer("http://h/mcp", auth_header=SECRET)),
        repr(McpServer(address)),
        McpServer(address).label,
        McpServer(address).ref,
        repr(McpServer(command="npx", args=["--key", "s3cr3t"], env={"KEY": "s3cr3t"})),
        McpServer(command="npx", args=["--key", "s3cr3t"]).ref,
    ]
    assert [] == [text for text in shown if "s3cr3t" in text]
    assert "https://example.org/mcp" == McpServer(address).label


def test_servers_that_differ_in_something_hidden_have_different_references() -> None:
    """A journal can tell two servers of one command apart."""
    first = McpServer(command="/usr/bin/npx", args=["server-a"])
    second = McpServer(command="/usr/bin/npx", args=["server-b"])
    assert first.ref != second.ref
    assert first.ref.startswith("mcp:npx~")
    assert McpServer("http://h/mcp?a=1").ref != McpServer("http://h/mcp?a=2").ref
    assert "mcp:files" == McpServer(command="npx", args=["server-a"], name="files").ref


def test_equal_values_are_one_server() -> None:
    """Lists and tuples, copies of an environment: what is equal is equal."""
    env = {"A": "1"}
    one = McpServer(command="x", args=["a"], env=env)
    env["A"] = "2"
    other = McpServer(command="x", args=("a",), env={"A": "1"})
    assert one == other
    assert hash(one) == hash(other)
    assert one != McpServer(command="x", args=("a",), env={"A": "2"})


def test_importing_the_value_does_not_import_the_mcp_package() -> None:
    """Which costs most of a second and 70 MiB."""
    code = "import sys, heartbit.tools.mcp; sys.exit('mcp' in sys.modules)"
    assert 0 == subprocess.run([sys.executable, "-c", code], check=False).returncode


def test_without_the_mcp_package_the_error_names_the_command_that_installs_it() -> None:
    """It is an extra."""
    code = """
import asyncio, sys
sys.modules["mcp"] = sys.modules["mcp_types"] = None
from heartbit.errors import ConfigError
from heartbit.tools.mcp import McpConnections, McpServer
async def main():
    async with McpConnections() as connections:
        await connections.tools(McpServer("http://127.0.0.1:1/mcp"))
try:
    asyncio.run(main())
except ConfigError as error:
    print(error.message)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'heartbit[mcp]'" in done.stdout
