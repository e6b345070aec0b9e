"""The value that names an MCP server, and one tool of it.

Cheap to import: nothing here knows the `mcp` package.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import PurePath
from typing import Literal, Protocol
from urllib.parse import urlsplit

from heartbit.core.messages import Json
from heartbit.core.tools import Effect, ToolOutput, ToolSpec
from heartbit.errors import ConfigError
from heartbit.tools.base import ToolContext


@dataclass(frozen=True, slots=True, repr=False)
class McpServer:
    """An MCP server: at a `url` (streamable HTTP), or a `command` spoken to over its pipes.

    `auth_header` is the Authorization header as it is sent. A command sees `env` and the few
    variables every program needs, nothing else of this process's environment. `timeout_seconds`
    bounds connecting as well as each single call. `mode="legacy"` spares older servers the question
    for the newest protocol. Two equal values are one server and share a connection.

    Raises:
        ConfigError: there is not exactly one of `url` and `command`, or a value makes no sense.
    """

    url: str | None = None
    _: KW_ONLY
    auth_header: str | None = None
    command: str | None = None
    args: Sequence[str] = ()
    env: Mapping[str, str] | None = field(default=None, hash=False)
    mode: Literal["auto", "legacy"] = "auto"
    name: str | None = None
    timeout_seconds: float = 30.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "args", tuple(self.args))
        object.__setattr__(self, "env", dict(self.env) if self.env else None)
        problem = _problem_of(self)
        if problem:
            raise ConfigError(problem)

    @property
    def label(self) -> str:
        """What a person calls it: its name, address or program, without anything secret."""
        if self.name:
            return self.name
        return _public_url(self.url) if self.url else PurePath(self.command or "").name

    @property
    def ref(self) -> str:
        """Its stable name in a journal; secrets that tell two servers apart are hashed into it."""
        hidden = [*self.args, urlsplit(self.url or "").query]
        if self.name or not any(hidden):
            return f"mcp:{self.label}"
        digest = hashlib.sha256(json.dumps(hidden).encode()).hexdigest()
        return f"mcp:{self.label}~{digest[:8]}"

    def __repr__(self) -> str:
        shown = {
            "url": _public_url(self.url) if self.url else None,
            "auth_header": "***" if self.auth_header else None,
            "command": self.command,
            "args": f"<{len(self.args)}>" if self.args else None,
            "env": dict.fromkeys(self.env, "***") if self.env else None,
            "mode": self.mode if self.mode != "auto" else None,
            "name": self.name,
        }
        return (
            f"McpServer({', '.join(f'{key}={value!r}' for key, value in shown.items() if value)})"
        )


class Caller(Protocol):
    """What a tool needs of its server."""

    async def call(self, tool: str, arguments: Json, effect: Effect) -> ToolOutput:
        """Call the tool by the server's own name for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class McpTool:
    """One tool of an MCP server. A call never raises: every failure is a result for the model."""

    spec: ToolSpec
    remote_name: str
    server: Caller = field(repr=False)

    def with_spec(self, spec: ToolSpec) -> McpTool:
        """The same tool under another description; the effect that counts is the new one."""
        return replace(self, spec=spec)

    async def call(self, arguments: Json, context: ToolContext) -> ToolOutput:
        """Call it at the server.

        A call whose connection was lost is repeated once if the server cannot have begun it, or if
        its effect is pure or idempotent. Any other is not: the model is told that its outcome is
        unknown.
        """
        return await self.server.call(self.remote_name, arguments, self.spec.effect)


def _problem_of(server: McpServer) -> str | None:
    """What is wrong with the value; never quotes a secret."""
    if bool(server.url) == bool(server.command):
        return "An MCP server has either a url or a command."
    if server.url and not _is_web_address(server.url):
        return "An MCP server's url starts with http:// or https:// and has a host."
    about = f"The MCP server {server.label}"
    if server.mode not in ("auto", "legacy"):
        return f"{about} has mode {server.mode!r}, but it must be auto | legacy."
    if not (math.isfinite(server.timeout_seconds) and server.timeout_seconds > 0):
        return f"{about} needs a timeout_seconds greater than 0."
    problem = _problem_of_url(server) if server.url else _problem_of_command(server)
    return problem and f"{about} {problem}"


def _problem_of_url(server: McpServer) -> str | None:
    if server.args or server.env:
        return "has a url, so args and env mean nothing to it; remove them."
    header = server.auth_header or ""
    if not (header.isascii() and header.isprintable()):
        return "has an auth_header with a line break or a character no header can carry."
    return None


def _problem_of_command(server: McpServer) -> str | None:
    if server.auth_header:
        return "is a command, so auth_header means nothing to it; pass the secret in env."
    words = [server.command or "", *server.args, *(server.env or {}).values()]
    if any("\0" in word for word in words):
        return "has a NUL character in its command, args or env."
    return None


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _public_url(url: str) -> str:
    """The address without user, password, query and fragment."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
