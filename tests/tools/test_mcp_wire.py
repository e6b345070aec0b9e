"""What is noted of a message on its way to an MCP server decides whether a call may be repeated."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from heartbit.tools.mcp.failure import Exchange
from heartbit.tools.mcp.wire import WatchedClient, exchange_now

REQUEST = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
NOTICE = {"jsonrpc": "2.0", "method": "notifications/cancelled"}


def sent(message: dict[str, Any], outcome: int | Exception, exchange: Exchange) -> int:
    """The status a sender sees when the network answers with this outcome."""

    def network(request: httpx2.Request) -> httpx2.Response:
        if isinstance(outcome, Exception):
            raise outcome
        return httpx2.Response(outcome)

    async def main() -> int:
        exchange_now.set(exchange)
        async with WatchedClient(transport=httpx2.MockTransport(network)) as client:
            response = await client.post("http://server/mcp", json=message)
        return response.status_code

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("error", "may_have_arrived"),
    [
        (httpx2.ConnectError("refused"), False),
        (httpx2.ConnectTimeout("late"), False),
        (httpx2.PoolTimeout("busy"), False),
        (httpx2.ProxyError("no"), False),
        (httpx2.WriteError("broken pipe"), True),
        (httpx2.WriteTimeout("late"), True),
        (httpx2.ReadError("reset"), True),
        (httpx2.ReadTimeout("late"), True),
        (httpx2.RemoteProtocolError("disconnected"), True),
    ],
)
def test_a_request_has_not_arrived_only_if_there_was_no_connection(
    error: httpx2.TransportError, may_have_arrived: bool
) -> None:
    """In every other case the server may be at work."""
    exchange = Exchange(contained=True)
    assert 503 == sent(REQUEST, error, exchange)
    assert (error, may_have_arrived) == (exchange.error, exchange.sent)


def test_a_second_attempt_that_fails_does_not_undo_that_the_first_arrived() -> None:
    """The server may be at work on it."""
    exchange = Exchange(contained=True)
    sent(REQUEST, 200, exchange)
    sent(REQUEST, httpx2.ConnectError("refused"), exchange)
    assert exchange.sent


@pytest.mark.parametrize("outcome", [404, httpx2.ConnectError("refused")])
def test_a_notice_sent_after_a_request_says_nothing_about_it(outcome: int | Exception) -> None:
    """A call that timed out may have been made, even if its cancellation never got through."""
    exchange = Exchange(contained=True)
    sent(REQUEST, 200, exchange)
    sent(NOTICE, outcome, exchange)
    assert Exchange(contained=True, sent=True, status=200) == exchange


def test_an_error_while_connecting_ends_the_attempt() -> None:
    """There is no session yet that others might need."""
    exchange = Exchange(contained=False)
    with pytest.raises(httpx2.ConnectError):
        sent(REQUEST, httpx2.ConnectError("refused"), exchange)
    assert not exchange.sent
