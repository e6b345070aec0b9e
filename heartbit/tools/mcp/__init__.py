"""Tools of MCP servers, over streamable HTTP and over the pipes of a command.

A server's tools are listed once, when it is connected: what a run may call does not change while it
runs, so a server's notice that its list has changed is not acted upon. Servers may not ask anything
back: sampling, elicitation and roots are not offered.
"""

from __future__ import annotations

from heartbit.tools.mcp.connections import McpConnections
from heartbit.tools.mcp.server import McpServer, McpTool

__all__ = ["McpConnections", "McpServer", "McpTool"]
