"""A model that needs no key: it books, charges and writes, and says what came of it."""

from __future__ import annotations

from heartbit.core.messages import ToolResult
from heartbit.core.request import ModelRequest
from heartbit.providers.scripted import Reply, call


def reply(request: ModelRequest) -> Reply:
    """All of the desk's tools at once, and then their results."""
    parts = [part for message in request.messages for part in message.parts]
    results = [part.content for part in parts if isinstance(part, ToolResult)]
    if results:
        return "\n".join(results)
    return [
        call("price", nights=2),
        call("book_room", room="12", guest="Ada"),
        call("pay", guest="Ada", euros=180),
        call("send_letter", guest="Ada", room="12"),
    ]
