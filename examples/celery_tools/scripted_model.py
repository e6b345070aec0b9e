"""What a model might say, so that the example costs nothing; heartbit.toml can name a real one."""

from __future__ import annotations

from heartbit.core.messages import ToolResult
from heartbit.core.request import ModelRequest
from heartbit.providers.scripted import Reply, call


def reply(request: ModelRequest) -> Reply:
    """Look the invoice up, try two tones at once, and say what came of it."""
    parts = [part for message in request.messages for part in message.parts]
    results = [part.content for part in parts if isinstance(part, ToolResult)]
    match len(results):
        case 0:
            return call("lookup_invoice", number="4711")
        case 1:
            return [call("remind", number="4711", tone=tone) for tone in ("strict", "friendly")]
    return "\n".join(results)
