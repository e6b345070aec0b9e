"""What users need to test their agents: a provider that says what the test tells it to.

    from heartbit.testing import ScriptedProvider, call

    provider = ScriptedProvider([call("book_room", day="2025-03-01", seats=4), "Booked."])

The agent under test runs as it would with a paid model: its tools are called, its limits hold.
Afterwards `provider.requests` shows what the model was shown. A function in place of the list
decides from the request, which parallel agents need:

    def script(request: ModelRequest) -> Reply:
        return "Found it." if "research" in request.system else call("delegate_task", ...)
"""

from __future__ import annotations

from heartbit.core.messages import Completion, Message, TextPart, ToolCall, ToolResult, Usage
from heartbit.core.request import ModelRequest
from heartbit.providers.hash_embedder import HashEmbedder
from heartbit.providers.scripted import Reply, Script, ScriptedProvider, call

__all__ = [
    "Completion",
    "HashEmbedder",
    "Message",
    "ModelRequest",
    "Reply",
    "Script",
    "ScriptedProvider",
    "TextPart",
    "ToolCall",
    "ToolResult",
    "Usage",
    "call",
]
