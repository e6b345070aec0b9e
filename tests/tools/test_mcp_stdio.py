"""Tools of a real MCP server that is a command: its life, its death, and what it may see."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heartbit.tools.mcp import McpConnections, McpServer
from tests.support.mcp_servers import (
    Clock,
    alive,
    call,
    eventually,
    lines,
    stdio_server,
    tools_of,
    written,
)


def test_agents_that_share_a_server_share_one_process(tmp_path: Path) -> None:
    """Equal values are one server, also when they are asked for at the same time."""

    async def main() -> None:
        async with McpConnections() as connections:
            servers = [stdio_server(calls=calls), stdio_server(calls=calls)]
            await asyncio.gather(*(connections.tools(server) for server in servers))
            tools = [await tools_of(connections, server) for server in servers]
            outputs = [await call(each["process"]) for each in tools]
            pid = int(outputs[0].content)
            assert outputs[0] == outputs[1]
            assert alive(pid)
        assert not alive(pid)

    calls = tmp_path / "calls"
    asyncio.run(main())
    assert ["start"] == lines(calls)


@pytest.mark.slow
def test_concurrent_calls_interleave_on_the_pipes() -> None:
    """Neither would return if the other had to wait for it."""

    async def main() -> None:
        async with McpConnections() as connections:
            tools = await tools_of(connections, stdio_server(mode="legacy"))
            outputs = await asyncio.gather(
                call(tools["meet"], name="ä"),
                call(tools["meet"], name="b"),
                call(tools["letters"], count=1_200_000),
            )
        assert ["ä", "b", "ä" * 1_200_000] == [output.content for output in outputs]

    asyncio.run(main())


@pytest.mark.slow
def test_a_command_sees_only_its_own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of this process are not for other people's programs."""

    async def main() -> None:
        async with McpConnections() as connections:
            tools = await tools_of(connections, stdio_server(env={"GIVEN": "1"}))
            names = (await call(tools["environment"])).content.split()
        assert "GIVEN" in names
        assert "PATH" in names
        assert "SOME_API_KEY" not in names

    monkeypatch.setenv("SOME_API_KEY", "s3cr3t")
    asyncio.run(main())


@pytest.mark.slow
def test_what_a_command_writes_to_stderr_goes_to_the_debug_log(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Not onto the terminal of the person."""

    async def main() -> None:
        async with McpConnections() as connections:
            tools = await tools_of(connections, stdio_server(name="grumpy"))
            await call(tools["complain"], text="no cheese \N{CHEESE WEDGE}")

    caplog.set_level(logging.DEBUG, "heartbit.tools.mcp")
    asyncio.run(main())
    assert "grumpy: no cheese \N{CHEESE WEDGE}" in [record.message for record in caplog.records]
    assert ("", "") == capfd.readouterr()


@pytest.mark.slow
def test_a_killed_command_is_started_again_for_the_next_call(tmp_path: Path) -> None:
    """The call cannot have begun, so even a payment is made, once."""

    async def main() -> None:
        async with McpConnections() as connections:
            tools = await tools_of(connections, stdio_server(calls=calls))
            before = int((await call(tools["process"])).content)
            os.kill(before, 9)
            await eventually(lambda: not alive(before))
            for _ in range(20):  # the loop's turn to see that the pipes have ended
                await asyncio.sleep(0)
            assert "paid 1" == (await call(tools["pay"], amount=1)).content
            assert before != int((await call(tools["process"])).content)

    calls = tmp_path / "calls"
    asyncio.run(main())
    assert ["start", "start", "pay"] == lines(calls)


@pytest.mark.slow
def test_a_command_that_dies_in_a_call_is_asked_again_only_if_that_is_safe(tmp_path: Path) -> None:
    """Reading happens again; paying does not, and the model is told to check."""

    async def main() -> None:
        async with McpConnections() as connections:
            tools = await tools_of(connections, stdio_server(calls=calls, name="till"))
            assert "alive" == (await call(tools["die_reading"])).content
            paid = await call(tools["die_paying"])
            assert paid.is_error
            assert (
                "The connection to the MCP server till was lost. Whether die_paying took effect"
                " is unknown: check before you call it again."
            ) == paid.content
            assert "on" == (await call(tools["read"], text="on")).content

    calls = tmp_path / "calls"
    asyncio.run(main())
    expected = ["start", "die_reading", "start", "die_reading", "die_paying", "start", "read"]
    assert expected == lines(calls)


@pytest.mark.slow
def test_a_command_that_dies_in_every_call_is_not_started_for_each(tmp_path: Path) -> None:
    """That it can be started does not make it well; only an answer does."""

    async def main() -> None:
        clock = Clock()
        async with McpConnections(clock=clock) as connections:
            tools = await tools_of(connections, stdio_server(calls=calls))
            twice = await call(tools["die"])
            refused = await call(tools["die"])
            clock.now += 1
            once = await call(tools["die"])
        assert "was lost" in twice.content
        assert "will be tried again in 1 s." in refused.content
        assert "will be tried again in 2 s." in once.content

    calls = tmp_path / "calls"
    asyncio.run(main())
    assert ["start", "die"] * 3 == lines(calls)


@pytest.mark.slow
def test_a_tool_under_another_effect_follows_that_one(tmp_path: Path) -> None:
    """Whoever configures the tool knows it better than its server."""

    async def main() -> None:
        async with McpConnections() as connections:
            tools = await tools_of(connections, stdio_server(calls=calls))
            cautious = tools["die_reading"]
            cautious = cautious.with_spec(replace(cautious.spec, effect="at_most_once"))
            assert "unknown" in (await call(cautious)).content

    calls = tmp_path / "calls"
    asyncio.run(main())
    assert 1 == lines(calls).count("die_reading")


@pytest.mark.slow
def test_a_cancelled_block_leaves_no_process(tmp_path: Path) -> None:
    """Even one that ignores every polite request to end, however often the block is cancelled."""

    async def main() -> None:
        pids: list[int] = []

        async def block() -> None:
            server = stdio_server(calls=calls, env={"STUBBORN": "1"})
            async with McpConnections() as connections:
                tools = await tools_of(connections, server)
                pids.append(int((await call(tools["process"])).content))
                await call(tools["sleep"], seconds=60)

        task = asyncio.create_task(block())
        await written(calls, "sleep")
        while not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=0.2)
        assert task.cancelled()
        assert not alive(pids[0])

    calls = tmp_path / "calls"
    asyncio.run(main())


@pytest.mark.slow
def test_cancelled_connecting_leaves_no_process(tmp_path: Path) -> None:
    """A command that never answers is ended with the block that waited for it."""

    async def main() -> None:
        async def block() -> None:
            async with McpConnections() as connections:
                await connections.tools(silent_server(pid_file))

        task = asyncio.create_task(block())
        await written(pid_file, "started")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not alive(int(lines(pid_file)[0]))

    pid_file = tmp_path / "pid"
    asyncio.run(main())


@pytest.mark.slow
def test_a_connection_nobody_waits_for_any_more_is_given_up(tmp_path: Path) -> None:
    """The block that it belongs to goes on without it."""

    async def main() -> None:
        async with McpConnections() as connections:
            task = asyncio.create_task(connections.tools(silent_server(pid_file)))
            await written(pid_file, "started")
            task.cancel()
            await eventually(lambda: not alive(int(lines(pid_file)[0])))

    pid_file = tmp_path / "pid"
    asyncio.run(main())


def silent_server(pid_file: Path, **options: Any) -> McpServer:
    """A command that says who it is, and then nothing."""
    said = f"open({str(pid_file)!r}, 'w').write(f'{{os.getpid()}}\\nstarted\\n')"
    return command(f"import os, time; {said}; time.sleep(60)", **options)


def command(code: str, **options: Any) -> McpServer:
    """Python code as a command."""
    return McpServer(command=sys.executable, args=["-c", code], **options)


@pytest.mark.slow
def test_commands_that_are_no_servers_are_told_apart(tmp_path: Path) -> None:
    """One sentence each, with what the command said last."""

    ended = "ended the connection before it was ready"
    expected = {
        McpServer(command="no-such-command"): "there is no command no-such-command",
        McpServer(command=str(tmp_path)): "cannot be started",
        command("import nothing_here"): f"{ended}: ModuleNotFoundError: No module named 'nothing",
        command("print('hello'); input()"): ended,
        silent_server(tmp_path / "pid", timeout_seconds=0.3): "did not answer within 0.3 s",
    }

    async def main() -> None:
        async with McpConnections() as connections:
            await connections.open(expected)
            found = zip(connections.warnings, expected.values(), strict=True)
            assert [] == [warning for warning, words in found if words not in warning]

    asyncio.run(main())


def test_a_careless_server_keeps_its_tools() -> None:
    """A list whose tools have no schema, no description, or no object schema."""

    async def main() -> None:
        code = """
import json, sys
tools = [{"name": "a"}, {"name": "b", "inputSchema": {"properties": {"x": {}}}}, "c"]
for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    reply = {"jsonrpc": "2.0", "id": asked["id"]}
    if asked["method"] == "initialize":
        reply["result"] = {"protocolVersion": "2025-03-26", "capabilities": {},
                           "serverInfo": {"name": "careless", "version": "0"}}
    elif asked["method"] == "tools/list":
        reply["result"] = {"tools": tools}
    elif asked["params"]["name"] == "a":
        reply["result"] = {"content": "not a list"}
    else:
        reply["error"] = {"code": -32000, "message": "not today"}
    print(json.dumps(reply), flush=True)
"""
        server = command(code, mode="legacy", name="careless")
        async with McpConnections() as connections:
            tools = await tools_of(connections, server)
            assert () == connections.warnings
            assert {"type": "object"} == tools["a"].spec.input_schema
            assert {"type": "object", "properties": {"x": {}}} == tools["b"].spec.input_schema
            invalid = await call(tools["a"])
            refused = await call(tools["b"])
        assert "no valid result" in invalid.content
        assert "unknown" in invalid.content
        assert "The MCP server careless refused the call: not today." == refused.content

    asyncio.run(main())


@pytest.mark.slow
def test_the_demo_server_draws_its_number_once() -> None:
    """Six digits, new at every start, the same at every call; and it knows some cities."""

    async def numbers() -> set[str]:
        server = McpServer(command=sys.executable, args=["-m", "heartbit.demo.mcp_server"])
        async with McpConnections() as connections:
            tools = await tools_of(connections, server)
            assert {"pure"} == {tool.spec.effect for tool in tools.values()}
            assert "fjord" in (await call(tools["lookup_city"], city=" oslo")).content
            assert "Lisbon" in (await call(tools["lookup_city"], city="Atlantis")).content
            return {(await call(tools["draw_number"])).content for _ in range(2)}

    first, second = asyncio.run(numbers()), asyncio.run(numbers())
    assert (1, 1) == (len(first), len(second))
    assert first != second
    assert all(number.isdigit() and len(number) == 6 for number in first | second)


@pytest.mark.slow
def test_nothing_appears_on_the_terminal_of_an_application_without_logging() -> None:
    """A server that talks nonsense, one that ends at once, and one that is not there."""
    code = """
import asyncio, sys
from heartbit.tools.mcp import McpConnections, McpServer
async def main():
    async with McpConnections() as connections:
        await connections.open([
            McpServer(command=sys.executable, args=["-c", "print('hello'); input()"]),
            McpServer(command=sys.executable, args=["-c", "import nothing_here"]),
            McpServer("http://127.0.0.1:1/mcp"),
        ])
        print(len(connections.warnings))
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ("3\n", "") == (done.stdout, done.stderr)
