"""A conversation as plain text, one line per message, for a model that is to summarise it.

Thinking is left out: it belongs to the provider that wrote it and is no part of what was said.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from heartbit.core.messages import Message, Part, TextPart, ThinkingPart, ToolCall
from heartbit.core.output import byte_length, split_at

_PART_BYTES = (None, 4_000, 400)


def transcript(messages: Sequence[Message], max_bytes: int) -> str:
    """The messages as lines, in at most about `max_bytes`.

    Whole if that fits; otherwise long parts are cut, harder if need be; and if even that is too
    much, the first line and the newest ones are kept.
    """
    lines: list[str] = []
    for part_bytes in _PART_BYTES:
        lines = [line for line in (_line(message, part_bytes) for message in messages) if line]
        if _size(lines) <= max_bytes:
            return "\n".join(lines)
    return "\n".join(_newest(lines, max_bytes))


def _line(message: Message, part_bytes: int | None) -> str:
    texts = [_cut(_part_text(part), part_bytes) for part in message.parts]
    said = " ".join(text for text in texts if text)
    return f"{message.role.capitalize()}: {said}" if said else ""


def _part_text(part: Part) -> str:
    if isinstance(part, TextPart):
        return part.text
    if isinstance(part, ThinkingPart):
        return ""
    if isinstance(part, ToolCall):
        arguments = json.dumps(part.arguments, separators=(",", ":"), ensure_ascii=False)
        return f"[Tool call: {part.name}({part.malformed or arguments})]"
    return f"[Tool result: {part.content}]"


def _cut(text: str, part_bytes: int | None) -> str:
    if part_bytes is None:
        return text
    head, omitted = split_at(text, part_bytes)
    return f"{head} [... {omitted} bytes omitted]" if omitted else text


def _newest(lines: list[str], max_bytes: int) -> list[str]:
    room = max_bytes - byte_length(lines[0])
    start = len(lines)
    while start > 1 and room >= byte_length(lines[start - 1]) + 1:
        start -= 1
        room -= byte_length(lines[start]) + 1
    return [lines[0], f"[{start - 1} messages omitted]", *lines[start:]]


def _size(lines: list[str]) -> int:
    return sum(byte_length(line) + 1 for line in lines)
