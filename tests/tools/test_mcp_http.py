"""Tools of a real MCP server over streamable HTTP: calls, pages, lost sessions, refusals."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from heartbit.tools.mcp import McpConnections, McpServer
from tests.support.mcp_servers import (
    Clock,
    HttpServer,
    call,
    cutting_proxy,
    http_server,
    lines,
    tools_of,
    written,
)

TOKEN = "Bearer s3cr3t-t0ken"


@pytest.fixture(scope="module")
def shared() -> Iterator[HttpServer]:
    """One server for the tests that don't harm it."""
    with http_server() as server:
        yield server


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_call_over_http_gives_the_text_of_the_server(shared: HttpServer, mode: str) -> None:
    """In both generations of the protocol, unicode and all."""

    async def main() -> None:
        server = McpServer(shared.url, mode=mode)  # type: ignore[arg-type]
        async with McpConnections() as connections:
            tools = await tools_of(connections, server)
            output = await call(tools["read"], text="Zürich ✓ 東京\u2028\n")
        assert ("Zürich ✓ 東京\u2028\n", False) == (output.content, output.is_error)
        assert "Give the text back." == tools["read"].spec.description
        assert ["text"] == tools["read"].spec.input_schema["required"]
        effects = [tools[name].spec.effect for name in ("read", "put", "pay")]
        assert ["pure", "idempotent", "at_most_once"] == effects
        assert f"mcp:{shared.url}#read" == tools["read"].spec.ref

    asyncio.run(main())


def test_every_kind_of_part_reaches_the_model_as_text(shared: HttpServer) -> None:
    """Bytes as a placeholder, an embedded text as itself."""

    async def main() -> None:
        async with McpConnections() as connections:
            tools = await tools_of(connections, McpServer(shared.url))
            everything = await call(tools["everything"])
            picture = await call(tools["picture"])
            structured = await call(tools["only_structured"])
        expected = [
            "first",
            "[audio: audio/wav, 2 bytes]",
            "the memo",
            "[resource: blob://1, font/ttf, 3 bytes]",
            "[resource link: file:///a, text/csv, 7 bytes]",
            "last",
        ]
        assert expected == everything.content.splitlines()
        assert "[image: image/png, 100 bytes]" == picture.content
        assert '{"städte": ["Köln"]}' == structured.content

    asyncio.run(main())


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_an_output_of_megabytes_comes_whole(shared: HttpServer, mode: str) -> None:
    """The event that carries it is larger than what the HTTP client takes by default."""

    async def main() -> None:
        async with McpConnections() as connections:
            tools = await tools_of(connections, McpServer(shared.url, mode=mode))  # type: ignore[arg-type]
            output = await call(tools["letters"], count=1_500_000)
        assert "ä" * 1_500_000 == output.content

    asyncio.run(main())


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_failures_of_tools_are_error_outputs(shared: HttpServer, mode: str) -> None:
    """A tool that fails, arguments it does not take, a question nobody can answer."""

    async def main() -> None:
        async with McpConnections() as connections:
            tools = await tools_of(connections, McpServer(shared.url, mode=mode))  # type: ignore[arg-type]
            outputs = [
                await call(tools["fail"]),
                await call(tools["read"], txt="misspelt"),
                await call(tools["ask"]),
            ]
        assert [True, True, True] == [output.is_error for output in outputs]
        assert "fail" in outputs[0].content
        assert "text" in outputs[1].content

    asyncio.run(main())


def test_concurrent_calls_share_one_session(shared: HttpServer) -> None:
    """Neither would return if the other had to wait for it."""

    async def main() -> None:
        async with McpConnections() as connections:
            tools = await tools_of(connections, McpServer(shared.url, mode="legacy"))
            outputs = await asyncio.gather(
                call(tools["meet"], name="a"), call(tools["meet"], name="b")
            )
        assert ["a", "b"] == [output.content for output in outputs]

    asyncio.run(main())


@pytest.mark.slow
def test_a_call_that_takes_too_long_is_an_error_output(tmp_path: Path) -> None:
    """With a doubt, because the tool is not known to be harmless; the session lives on."""

    async def main(server: McpServer) -> None:
        async with McpConnections() as connections:
            tools = await tools_of(connections, server)
            late = await call(tools["sleep"], seconds=60)
            after = await call(tools["read"], text="still here")
        assert late.is_error
        assert "did not answer within 0.5 s. Whether sleep took effect is unknown" in late.content
        assert "still here" == after.content

    calls = tmp_path / "calls"
    with http_server(CALLS=str(calls)) as running:
        asyncio.run(main(McpServer(running.url, timeout_seconds=0.5)))
    assert ["start", "sleep", "read"] == lines(calls)


def test_a_cancelled_call_stays_cancelled(shared: HttpServer) -> None:
    """The one thing that is no output; the session serves the next call."""

    async def main() -> None:
        async with McpConnections() as connections:
            tools = await tools_of(connections, McpServer(shared.url))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(call(tools["sleep"], seconds=60), 0.05)
            assert "on" == (await call(tools["read"], text="on")).content

    asyncio.run(main())


@pytest.mark.slow
def test_all_pages_of_a_list_are_read() -> None:
    """Sixty tools on three pages."""

    async def main(server: McpServer) -> None:
        async with McpConnections() as connections:
            tools = await tools_of(connections, server)
            output = await call(tools["tool59"])
        assert [f"tool{n}" for n in range(60)] == list(tools)
        assert "I am tool59" == output.content

    with http_server("paged") as running:
        asyncio.run(main(McpServer(running.url)))


@pytest.mark.slow
def test_a_list_that_never_ends_is_read_once() -> None:
    """Its last page names itself as the next one."""

    async def main(server: McpServer) -> None:
        async with McpConnections() as connections:
            assert 60 == len(await tools_of(connections, server))

    with http_server("looping") as running:
        asyncio.run(main(McpServer(running.url)))


@pytest.mark.slow
def test_the_auth_header_is_sent_as_it_is_and_never_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A right one connects, a wrong or a missing one is a warning that says what to check."""

    async def main(url: str) -> None:
        right = McpServer(url, auth_header=TOKEN)
        wrong = McpServer(url, auth_header="Bearer wr0ng-t0ken", mode="legacy")
        async with McpConnections() as connections:
            await connections.open([right, wrong, McpServer(url)])
            tools = await tools_of(connections, right)
            assert "in" == (await call(tools["read"], text="in")).content
            assert () == await connections.tools(wrong)
            refused = (
                f"The MCP server {url} refused the credentials (HTTP 401);"
                " check its auth_header. Its tools are left out."
            )
            assert (refused, refused) == connections.warnings

    caplog.set_level(logging.DEBUG)
    with http_server(TOKEN=TOKEN) as running:
        asyncio.run(main(running.url))
    assert caplog.records
    assert "t0ken" not in caplog.text


def test_servers_that_cannot_be_connected_are_told_apart(shared: HttpServer) -> None:
    """At the same time, each in one sentence, and the header is in none of them."""

    async def main() -> None:
        expected = {
            "http://127.0.0.1:1/mcp": "could not be reached",
            shared.at("/status/401"): "refused the credentials (HTTP 401)",
            shared.at("/status/404"): "has no MCP endpoint at this address (HTTP 404)",
            shared.at("/status/500"): "answered with HTTP 500",
            shared.at("/status/200"): "does not speak MCP",
            shared.at("/silent"): "did not answer within 0.7 s",
        }
        servers = [McpServer(url, auth_header=TOKEN, timeout_seconds=0.7) for url in expected]
        started = time.monotonic()
        async with McpConnections() as connections:
            await connections.open(servers)
            for warning, (url, words) in zip(connections.warnings, expected.items(), strict=True):
                assert f"The MCP server {url} {words}" in warning
                assert "t0ken" not in warning
            assert () == await connections.tools(servers[0])
        assert time.monotonic() - started < 5

    asyncio.run(main())


@pytest.mark.slow
def test_an_expired_session_is_opened_again_and_the_call_is_made(tmp_path: Path) -> None:
    """The server refused it before it began, so even a payment is made, once."""

    async def main(running: HttpServer) -> None:
        async with McpConnections() as connections:
            tools = await tools_of(connections, McpServer(running.url, mode="legacy"))
            assert "paid 1" == (await call(tools["pay"], amount=1)).content
            async with httpx2.AsyncClient() as client:
                await client.post(running.at("/forget"))
            assert "paid 2" == (await call(tools["pay"], amount=2)).content

    calls = tmp_path / "calls"
    with http_server(CALLS=str(calls)) as running:
        asyncio.run(main(running))
    assert ["start", "pay", "pay"] == lines(calls)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_server_restarted_between_calls_is_used_again(tmp_path: Path, mode: str) -> None:
    """On the same port; no call is made twice."""

    async def main(first: HttpServer) -> None:
        async with McpConnections() as connections:
            tools = await tools_of(connections, McpServer(first.url, mode=mode))  # type: ignore[arg-type]
            await call(tools["pay"], amount=1)
            first.kill()
            with http_server(port=first.port, CALLS=str(calls)):
                outputs = await asyncio.gather(*(call(tools["pay"], amount=n) for n in range(2, 6)))
        assert [f"paid {n}" for n in range(2, 6)] == [output.content for output in outputs]

    calls = tmp_path / "calls"
    with http_server(CALLS=str(calls)) as first:
        asyncio.run(main(first))
    assert 5 == lines(calls).count("pay")


@pytest.mark.slow
def test_a_server_that_is_gone_is_not_tried_at_every_call() -> None:
    """One attempt, then a pause that doubles; when it is back, it is used again."""

    async def main(first: HttpServer) -> None:
        clock = Clock()
        async with McpConnections(clock=clock) as connections:
            tools = await tools_of(connections, McpServer(first.url))
            first.kill()
            tried = await call(tools["pay"], amount=1)
            refused = await call(tools["pay"], amount=2)
            clock.now += 1
            tried_again = await call(tools["pay"], amount=3)
            with http_server(port=first.port):
                clock.now += 1.5
                still_refused = await call(tools["pay"], amount=4)
                clock.now += 0.5
                back = await call(tools["pay"], amount=5)
        assert "could not be reached" in tried.content
        assert "unknown" not in tried.content
        assert "is lost; it will be tried again in 1 s." in refused.content
        assert "could not be reached" in tried_again.content
        assert "is lost; it will be tried again in 1 s." in still_refused.content
        assert "paid 5" == back.content

    with http_server() as first:
        asyncio.run(main(first))


@pytest.mark.slow
def test_a_call_whose_reply_was_lost_is_repeated_only_if_that_is_safe(tmp_path: Path) -> None:
    """Reading and putting happen again; paying does not, and the model is told to check."""

    async def main(running: HttpServer) -> None:
        async with cutting_proxy(running.port) as proxy, McpConnections() as connections:
            tools = await tools_of(connections, McpServer(proxy.url, name="till"))
            outputs = []
            for name, arguments in (
                ("read", {"text": "a"}),
                ("put", {"text": "b"}),
                ("pay", {"amount": 3}),
                ("pay", {"amount": 4}),
            ):
                proxy.cut_next_reply = name != "pay" or arguments["amount"] == 3
                outputs.append(await call(tools[name], **arguments))
        assert ["a", "b"] == [output.content for output in outputs[:2]]
        assert outputs[2].is_error
        assert outputs[2].content.startswith("The connection to the MCP server till failed")
        assert outputs[2].content.endswith(
            "Whether pay took effect is unknown: check before you call it again."
        )
        assert "paid 4" == outputs[3].content

    calls = tmp_path / "calls"
    with http_server(CALLS=str(calls)) as running:
        asyncio.run(main(running))
    assert ["start", "read", "read", "put", "put", "pay", "pay"] == lines(calls)


@pytest.mark.slow
def test_a_call_that_is_under_way_survives_the_failure_of_another(tmp_path: Path) -> None:
    """They share a session, not a fate."""

    async def main(running: HttpServer) -> None:
        async with cutting_proxy(running.port) as proxy, McpConnections() as connections:
            tools = await tools_of(connections, McpServer(proxy.url))
            first = asyncio.create_task(call(tools["meet"], name="first"))
            await written(calls, "meet")
            proxy.cut_next_reply = True
            assert "b" == (await call(tools["read"], text="b")).content
            assert not first.done()
            assert "second" == (await call(tools["meet"], name="second")).content
            assert "first" == (await first).content

    calls = tmp_path / "calls"
    with http_server(CALLS=str(calls)) as running:
        asyncio.run(main(running))
