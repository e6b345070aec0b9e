"""How many tokens a request will take, estimated: a token is four bytes of UTF-8.

Messages and tool specs never change, so each is estimated once and remembers it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, cast

from heartbit.core.messages import Message, Part, TextPart, ThinkingPart, ToolCall
from heartbit.core.output import byte_length
from heartbit.core.tools import ToolSpec

MESSAGE_OVERHEAD = 4
_MEMO = "tokens"


def estimate_text(text: str) -> int:
    """A quarter of the text's bytes, rounded up."""
    return (byte_length(text) + 3) // 4


def estimate_message(message: Message) -> int:
    """All parts of the message and a little for the message itself."""
    tokens = message.memo.get(_MEMO)
    if tokens is None:
        tokens = message.memo[_MEMO] = MESSAGE_OVERHEAD + sum(map(_estimate_part, message.parts))
    return cast(int, tokens)


def estimate_tools(tools: Iterable[ToolSpec]) -> int:
    """Names, descriptions and schemas, as they are sent with every request."""
    return sum(map(_estimate_tool, tools))


def estimate(system: str, tools: Iterable[ToolSpec], messages: Iterable[Message]) -> int:
    """The whole request: system prompt, tools and messages."""
    return estimate_text(system) + estimate_tools(tools) + sum(map(estimate_message, messages))


def _estimate_part(part: Part) -> int:
    if isinstance(part, TextPart):
        return estimate_text(part.text)
    if isinstance(part, ToolCall):
        arguments = _compact(part.arguments)
        return estimate_text(part.id) + estimate_text(part.name) + estimate_text(arguments)
    if isinstance(part, ThinkingPart):
        return estimate_text(_compact(part.data))
    return estimate_text(part.call_id) + estimate_text(part.content)


def _estimate_tool(tool: ToolSpec) -> int:
    tokens = tool.memo.get(_MEMO)
    if tokens is None:
        texts = (tool.name, tool.description, _compact(tool.input_schema))
        tokens = tool.memo[_MEMO] = sum(map(estimate_text, texts))
    return cast(int, tokens)


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
