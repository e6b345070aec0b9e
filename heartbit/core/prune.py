"""Shorten old tool results in what is sent; the conversation itself stays whole.

A message is shortened once and the result remembered with it, so that a request repeats the very
objects of the one before: they are not encoded again, and the provider's prompt cache holds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from heartbit.core.agent import SessionPrune
from heartbit.core.messages import Message, Part, ToolResult
from heartbit.core.output import byte_length, split_at

# Room for the marker at any size: a limit below it would cut nothing and leave only markers.
_SMALLEST_LIMIT = 48


def prune(messages: tuple[Message, ...], settings: SessionPrune) -> tuple[Message, ...]:
    """The messages with all but the newest `2 * keep_recent_n` shortened.

    A tool result above `pruned_tool_result_max_bytes` is cut so that, with the marker that says
    how much is gone, it takes at most that much. Below 48 bytes the limit counts as 48: there is
    nothing to gain. With `preserve_task` the first message is never touched.
    """
    start = 1 if settings.preserve_task else 0
    end = len(messages) - 2 * settings.keep_recent_n
    if end <= start:
        return messages
    limit = max(settings.pruned_tool_result_max_bytes, _SMALLEST_LIMIT)
    old = (_pruned(message, limit) for message in messages[start:end])
    return (*messages[:start], *old, *messages[end:])


def _pruned(message: Message, limit: int) -> Message:
    key = f"pruned:{limit}"
    if key not in message.memo:
        parts = tuple(_pruned_part(part, limit) for part in message.parts)
        # None stands for "unchanged": a message that held itself would never be freed by count.
        message.memo[key] = None if parts == message.parts else replace(message, parts=parts)
    return cast("Message | None", message.memo[key]) or message


def _pruned_part(part: Part, limit: int) -> Part:
    if not isinstance(part, ToolResult):
        return part
    size = byte_length(part.content)
    if size <= limit:
        return part
    head, omitted = split_at(part.content, limit - byte_length(_marker(size)))
    return replace(part, content=head + _marker(omitted))


def _marker(omitted: int) -> str:
    return f"\n[pruned: {omitted} bytes omitted]"
