"""What went wrong between us and an MCP server: one sentence, and whether the call can have begun.

Whatever text comes from the server or a library loses the auth header before it is quoted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import httpx2
from mcp import MCPError
from mcp_types import CONNECTION_CLOSED, INVALID_PARAMS, METHOD_NOT_FOUND, REQUEST_TIMEOUT
from pydantic import ValidationError

from heartbit.errors import ToolError
from heartbit.tools.mcp.server import McpServer

LONGEST_QUOTE = 300


class McpFailure(ToolError):
    """A call to an MCP server has no result.

    `lost` says that the connection is of no further use; `begun` that the server may have begun the
    call.
    """

    def __init__(self, message: str, *, lost: bool = False, begun: bool = False) -> None:
        super().__init__(message)
        self.lost = lost
        self.begun = begun


@dataclass(kw_only=True, slots=True)
class Exchange:
    """What the wire notes about one call, or about connecting.

    `sent` is true from the moment in which the server may have seen the request. A `contained`
    `error` ends this exchange only, and not the session for everybody.
    """

    contained: bool
    sent: bool = False
    in_session: bool = False
    status: int = 0
    error: httpx2.TransportError | None = None


def connect_failure(
    server: McpServer, exchange: Exchange, error: BaseException | None, complaint: str
) -> McpFailure:
    """Why there is no connection; without an error, the time was over.

    `complaint` is the last thing a command wrote to its stderr.
    """
    about = f"The MCP server {server.label}"
    if error is None:
        return McpFailure(f"{about} did not answer within {server.timeout_seconds:g} s.")
    if exchange.error:
        return McpFailure(f"{about} could not be reached: {quoted(server, exchange.error)}.")
    if exchange.status >= 400:
        return McpFailure(f"{about} {_refusal(exchange.status)}.")
    cause = next(_leaves(error))
    if isinstance(cause, FileNotFoundError):
        return McpFailure(f"{about} cannot be started: there is no command {server.command}.")
    if isinstance(cause, OSError):
        return McpFailure(f"{about} cannot be started: {quoted(server, cause)}.")
    if _is_closed(cause):
        said = f": {quoted(server, complaint)}" if complaint else ""
        return McpFailure(f"{about} ended the connection before it was ready{said}.")
    return McpFailure(f"{about} does not speak MCP as it should: {quoted(server, cause)}.")


def call_failure(server: McpServer, exchange: Exchange, error: Exception) -> McpFailure:
    """What the failure of a call means."""
    about = f"The MCP server {server.label}"
    if exchange.error:
        text = f"The connection to the MCP server {server.label} failed: "
        text += f"{quoted(server, exchange.error)}."
        return McpFailure(text, lost=True, begun=exchange.sent)
    if exchange.status >= 400:
        return _status_failure(server, exchange, error)
    if not isinstance(error, MCPError):
        text = f"{about} answered with what is no valid result: {quoted(server, error)}."
        return McpFailure(text, begun=exchange.sent and isinstance(error, ValidationError))
    if _is_closed(error):
        text = f"The connection to the MCP server {server.label} was lost."
        return McpFailure(text, lost=True, begun=exchange.sent)
    if error.code == REQUEST_TIMEOUT:
        text = f"{about} did not answer within {server.timeout_seconds:g} s."
        return McpFailure(text, begun=exchange.sent)
    return McpFailure(f"{about} refused the call: {quoted(server, error)}.")


def quoted(server: McpServer, source: BaseException | str) -> str:
    """Foreign text as part of our sentence: one line, not too long, without the auth header."""
    text = " ".join(str(source).split()).rstrip(".") or type(source).__name__
    header = server.auth_header or ""
    for secret in (header, header.partition(" ")[2]):
        if secret:
            text = text.replace(secret, "***")
    return text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]} ..."


def _status_failure(server: McpServer, exchange: Exchange, error: Exception) -> McpFailure:
    about = f"The MCP server {server.label}"
    code = error.code if isinstance(error, MCPError) else 0
    # Servers differ in how they say that they have forgotten a session: 404, or 400 as of old.
    forgotten = exchange.in_session and exchange.status in (400, 404)
    if forgotten and code not in (INVALID_PARAMS, METHOD_NOT_FOUND):
        return McpFailure(f"{about} has ended the session.", lost=True)
    text = f"{about} {_refusal(exchange.status)}: {quoted(server, error)}."
    return McpFailure(text, begun=exchange.status >= 500)


def _refusal(status: int) -> str:
    if status in (401, 403):
        return f"refused the credentials (HTTP {status}); check its auth_header"
    if status in (404, 405):
        return f"has no MCP endpoint at this address (HTTP {status}); check its url"
    return f"answered with HTTP {status}"


def _is_closed(error: BaseException) -> bool:
    """True for the client's own verdict: servers use the same code for errors of theirs."""
    return (
        isinstance(error, MCPError)
        and error.code == CONNECTION_CLOSED
        and error.message.startswith(("Connection closed", "SSE stream"))
    )


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
