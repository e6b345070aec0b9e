"""A tiny MCP server over stdio, for the demo: `python -m heartbit.demo.mcp_server`.

Its number is drawn when it starts, so an answer that contains it must have come through it.
"""

from __future__ import annotations

import secrets

from mcp.server.mcpserver import MCPServer
from mcp_types import ToolAnnotations

FACTS = {
    "lisbon": "Lisbon, the capital of Portugal, lies on the Tagus and on seven hills.",
    "nairobi": "Nairobi, the capital of Kenya, lies 1,795 m above the sea beside a national park.",
    "oslo": "Oslo, the capital of Norway, lies at the end of a fjord and is two thirds forest.",
}


def build_server() -> MCPServer:
    """The server with its two tools, both of which only read."""
    server = MCPServer("heartbit-demo", log_level="WARNING")
    number = 100_000 + secrets.randbelow(900_000)
    read_only = ToolAnnotations(read_only_hint=True)

    @server.tool(annotations=read_only, structured_output=False)
    def draw_number() -> str:
        """The six-digit number this server drew when it started."""
        return str(number)

    @server.tool(annotations=read_only, structured_output=False)
    def lookup_city(city: str) -> str:
        """A fact about a city."""
        known = ", ".join(name.capitalize() for name in FACTS)
        return FACTS.get(city.strip().lower(), f"I know nothing of {city}, only of {known}.")

    return server


if __name__ == "__main__":
    build_server().run()
