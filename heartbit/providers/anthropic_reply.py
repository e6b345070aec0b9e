"""What comes back on Anthropic's Messages wire: bodies and streams, read into completions. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from heartbit.core.messages import (
    Completion,
    Json,
    Part,
    StopReason,
    TextPart,
    ThinkingPart,
    ToolCall,
    Usage,
)
from heartbit.errors import MalformedReply, TruncatedStream
from heartbit.providers.failures import failure
from heartbit.providers.wire import (
    count,
    details,
    loosely_decoded,
    mapping,
    mappings,
    parsed_object,
    settled,
    string,
    tool_call,
    whole,
)

NAME = "anthropic"

STOP_REASONS: Mapping[str, StopReason] = {
    "end_turn": "end_turn",
    "tool_use": "tool_use",
    "max_tokens": "max_tokens",
    "stop_sequence": "stop_sequence",
    "pause_turn": "pause_turn",
    "refusal": "refusal",
    "model_context_window_exceeded": "context_too_long",
}


def parse_response(data: Json) -> Completion:
    """The reply that a Messages body holds; blocks of an unknown type are left out.

    Raises:
        MalformedReply: it holds none.
    """
    if "content" not in data:
        raise MalformedReply
    parts = [part for block in mappings(data, "content") for part in _parts(block)]
    stop = STOP_REASONS.get(string(data, "stop_reason"))
    return Completion(
        parts=tuple(parts),
        stop_reason=settled(stop, any(isinstance(part, ToolCall) for part in parts)),
        usage=parse_usage(details(data, "usage")),
        model=string(data, "model") or None,
    )


def parse_usage(usage: Json) -> Usage:
    """Anthropic's input_tokens already exclude what the cache was read or written."""
    return Usage(
        input_tokens=count(usage, "input_tokens"),
        output_tokens=count(usage, "output_tokens"),
        cache_read_tokens=count(usage, "cache_read_input_tokens"),
        cache_write_tokens=count(usage, "cache_creation_input_tokens"),
        reasoning_tokens=count(details(usage, "output_tokens_details"), "thinking_tokens"),
    )


class AnthropicStream:
    """Puts a streamed message together; complete once message_stop has come, not before."""

    def __init__(self) -> None:
        self.done = False
        self._message: Json = {}
        self._usage: Json = {}
        self._blocks: list[_Block] = []
        self._open: dict[Any, _Block] = {}

    @property
    def usage(self) -> Usage:
        """The tokens told of so far."""
        return parse_usage(self._usage)

    def feed(self, event: str, data: str) -> list[str]:
        """Take in an event and return the text it adds."""
        if event == "error":
            raise failure(loosely_decoded(data))
        if not data:
            return []
        given = parsed_object(data)
        match given.get("type"):
            case "content_block_delta":
                return self._grow(given)
            case "content_block_start":
                return self._start(given)
            case "message_start":
                self._message = mapping(given, "message")
                self._count(details(self._message, "usage"))
            case "message_delta":
                self._message = {**self._message, **mapping(given, "delta")}
                self._count(details(given, "usage"))
            case "message_stop":
                self.done = True
            case "error":
                raise failure(given)
        return []

    def finish(self) -> Completion:
        """The whole message.

        Raises:
            TruncatedStream: message_stop has not come.
            MalformedReply: message_start has not.
        """
        if not self.done:
            raise TruncatedStream
        if not self._message:
            raise MalformedReply
        content = [block.complete() for block in self._blocks]
        return parse_response({**self._message, "content": content, "usage": self._usage})

    def _count(self, usage: Json) -> None:
        told = {name: value for name, value in usage.items() if value is not None}
        self._usage = {**self._usage, **told}

    def _start(self, given: Json) -> list[str]:
        # A second block under an index that is taken is another block, not a new start.
        block = _Block(start=mapping(given, "content_block"))
        self._blocks.append(block)
        self._open[_index(given)] = block
        text = string(block.start, "text") if block.start.get("type") == "text" else ""
        return [text] if text else []

    def _grow(self, given: Json) -> list[str]:
        block = self._open.get(_index(given))
        delta = mapping(given, "delta")
        if block is None:
            return []
        match delta.get("type"), block.start.get("type"):
            case "text_delta", "text":
                block.texts.append(string(delta, "text"))
                return block.texts[-1:]
            case "input_json_delta", "tool_use":
                block.texts.append(string(delta, "partial_json"))
            case "thinking_delta", "thinking":
                block.texts.append(string(delta, "thinking"))
            case "signature_delta", "thinking":
                block.start = {**block.start, "signature": string(delta, "signature")}
        return []


@dataclass(kw_only=True, slots=True)
class _Block:
    """A content block as it started, and what came after."""

    start: Json
    texts: list[str] = field(default_factory=list)

    def complete(self) -> Json:
        added = "".join(self.texts)
        match self.start.get("type"):
            case "text":
                return {**self.start, "text": string(self.start, "text") + added}
            case "thinking":
                return {**self.start, "thinking": string(self.start, "thinking") + added}
            case "tool_use" if added:
                return {**self.start, "input": added}
        return self.start


def _index(given: Json) -> int:
    index = given.get("index")
    return index if isinstance(index, int) else -1


def _parts(block: Json) -> Iterable[Part]:
    match block.get("type"):
        case "text":
            text = whole(string(block, "text"))
            return [TextPart(text=text)] if text else []
        case "thinking" | "redacted_thinking":
            return [ThinkingPart(provider=NAME, data=block)]
        case "tool_use":
            call_id, name = string(block, "id"), string(block, "name")
            return [tool_call(call_id, name, block.get("input", ""))]
    return []
