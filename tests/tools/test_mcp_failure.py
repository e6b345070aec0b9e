"""Sentences about an MCP server: what they quote, and what they leave out."""

from __future__ import annotations

import httpx2
import pytest
from mcp import MCPError
from mcp_types import CONNECTION_CLOSED, INTERNAL_ERROR, INVALID_PARAMS

from heartbit.tools.mcp.failure import Exchange, call_failure, quoted
from heartbit.tools.mcp.server import McpServer

SERVER = McpServer("http://h/mcp", auth_header="Bearer s3cr3t", name="files")


def test_a_quotation_is_one_short_line_without_the_auth_header() -> None:
    """Some servers repeat what they were sent."""
    said = "You sent\n  Bearer s3cr3t,\tand s3cr3t is wrong."
    assert "You sent ***, and *** is wrong" == quoted(SERVER, said)
    assert len(quoted(SERVER, "x" * 10_000)) < 400
    assert "ValueError" == quoted(SERVER, ValueError())


@pytest.mark.parametrize(
    ("status", "code", "lost", "begun"),
    [
        (404, 0, True, False),
        (400, CONNECTION_CLOSED, True, False),
        (400, INVALID_PARAMS, False, False),
        (401, 0, False, False),
        (429, 0, False, False),
        (500, INTERNAL_ERROR, False, True),
        (503, 0, False, True),
    ],
)
def test_a_status_tells_whether_the_call_was_begun(
    status: int, code: int, lost: bool, begun: bool
) -> None:
    """A request that was turned away did nothing; a server that failed may have done it."""
    exchange = Exchange(contained=True, sent=True, in_session=True, status=status)
    failure = call_failure(SERVER, exchange, MCPError(code, "because of s3cr3t"))
    assert (lost, begun) == (failure.lost, failure.begun)
    assert "The MCP server files " in failure.message
    assert "s3cr3t" not in failure.message


def test_a_404_outside_of_a_session_is_no_lost_session() -> None:
    """The address is wrong, or the gateway has lost its server: connecting anew changes nothing."""
    exchange = Exchange(contained=True, sent=True, status=404)
    failure = call_failure(SERVER, exchange, MCPError(0, "Not Found"))
    assert not failure.lost
    assert "HTTP 404" in failure.message


def test_a_server_may_use_the_code_of_a_closed_connection_for_an_error_of_its_own() -> None:
    """It answered, so the connection is fine and the outcome is known."""
    exchange = Exchange(contained=True, sent=True, status=200)
    failure = call_failure(SERVER, exchange, MCPError(CONNECTION_CLOSED, "no such account"))
    assert (False, False) == (failure.lost, failure.begun)
    assert "The MCP server files refused the call: no such account." == failure.message


def test_a_lost_connection_leaves_in_doubt_what_was_sent() -> None:
    """And only that."""
    closed = MCPError(CONNECTION_CLOSED, "Connection closed")
    sent = call_failure(SERVER, Exchange(contained=True, sent=True), closed)
    unsent = call_failure(SERVER, Exchange(contained=True), closed)
    refused = Exchange(contained=True, error=httpx2.ConnectError("refused"), status=0)
    assert (True, True) == (sent.lost, sent.begun)
    assert (True, False) == (unsent.lost, unsent.begun)
    assert (True, False) == (
        (failure := call_failure(SERVER, refused, MCPError(0, ""))).lost,
        failure.begun,
    )
