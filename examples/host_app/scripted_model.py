"""What a model might say, so that the example costs nothing; heartbit.toml can name a real one."""

from __future__ import annotations

from heartbit.core.messages import ToolResult
from heartbit.core.request import ModelRequest
from heartbit.providers.scripted import Reply, call


def reply(request: ModelRequest) -> Reply:
    """Look the rules up, then answer with them."""
    results = [part for part in request.messages[-1].parts if isinstance(part, ToolResult)]
    if not results:
        return call("refund_rules", product="kettle")
    return f"We are sorry. {results[0].content}"
