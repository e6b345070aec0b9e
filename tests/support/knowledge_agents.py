"""An agent that answers with what it finds for its prompt, and with nothing else."""

from __future__ import annotations

from heartbit.core.messages import TextPart, ToolResult
from heartbit.core.request import ModelRequest
from heartbit.providers.scripted import Reply, call

CONFIG = """
[provider]
name = "scripted"
model = "tests.support.knowledge_agents:reply"

[[agents]]
name = "reader"
description = "Reads."
system_prompt = "You read."

[knowledge]
[[knowledge.sources]]
type = "glob"
pattern = "docs/**/*.md"
"""


def reply(request: ModelRequest) -> Reply:
    """Search for the prompt, then say what was found."""
    parts = [part for message in request.messages for part in message.parts]
    results = [part.content for part in parts if isinstance(part, ToolResult)]
    if results:
        return results[-1]
    prompt = next(part.text for part in parts if isinstance(part, TextPart))
    return call("knowledge_search", query=prompt, limit=1)
