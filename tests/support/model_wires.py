"""What the model server says, in the words of both wires: replies as JSON bodies and as events."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.support.model_server import Gate


@dataclass(frozen=True, kw_only=True)
class Call:
    """A tool call in a reply; `arguments` as a string is sent as it is, so it may be broken JSON.

    Without an `id` it gets one of its own.
    """

    name: str
    arguments: dict[str, Any] | str = field(default_factory=dict)
    id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the model says. `stop` is the wire's own word; by default the one that fits.

    `input_tokens` excludes the cached ones, on both wires. `piece` is the number of characters per
    streamed delta. The answer comes after `delay_seconds`, and after `gate` has been opened.
    """

    text: str = ""
    calls: tuple[Call, ...] = ()
    thinking: str = ""
    stop: str | None = None
    input_tokens: int = 10
    output_tokens: int = 5
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    piece: int = 8
    delay_seconds: float = 0.0
    gate: Gate | None = None


def json_body(wire: str, reply: Reply, *, number: int = 0, model: str = "m") -> dict[str, Any]:
    """The reply as the body of an answer that isn't streamed."""
    return (_anthropic_body if wire == "anthropic" else _openai_body)(reply, number, model)


def stream_events(wire: str, reply: Reply, *, number: int = 0, model: str = "m") -> list[bytes]:
    """The reply as server-sent events, one `bytes` each, so that a test can cut or change them."""
    if wire == "anthropic":
        return [_sse(data, data["type"]) for data in _anthropic_events(reply, number, model)]
    return [*(_sse(data) for data in _openai_chunks(reply, number, model)), b"data: [DONE]\n\n"]


def _sse(data: dict[str, Any], event: str | None = None) -> bytes:
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def _pieces(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def _call_id(call: Call, number: int, position: int) -> str:
    return f"call_{number}_{position}" if call.id is None else call.id


def _arguments_text(call: Call) -> str:
    return call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments)


def _anthropic_blocks(reply: Reply, number: int) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if reply.thinking:
        blocks.append({"type": "thinking", "thinking": reply.thinking, "signature": "c2ln"})
    if reply.text:
        blocks.append({"type": "text", "text": reply.text})
    for position, call in enumerate(reply.calls):
        call_id = _call_id(call, number, position)
        block = {"type": "tool_use", "id": call_id, "name": call.name, "input": call.arguments}
        blocks.append(block)
    return blocks


def _anthropic_usage(reply: Reply) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "input_tokens": reply.input_tokens,
        "cache_read_input_tokens": reply.cache_read_tokens,
        "cache_creation_input_tokens": reply.cache_write_tokens,
        "output_tokens": reply.output_tokens,
    }
    if reply.reasoning_tokens:
        usage["output_tokens_details"] = {"thinking_tokens": reply.reasoning_tokens}
    return usage


def _anthropic_stop(reply: Reply) -> str:
    return reply.stop or ("tool_use" if reply.calls else "end_turn")


def _anthropic_body(reply: Reply, number: int, model: str) -> dict[str, Any]:
    return {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": _anthropic_blocks(reply, number),
        "stop_reason": _anthropic_stop(reply),
        "stop_sequence": None,
        "usage": _anthropic_usage(reply),
    }


def _anthropic_events(reply: Reply, number: int, model: str) -> list[dict[str, Any]]:
    usage = _anthropic_usage(reply)
    start = {**_anthropic_body(reply, number, model), "content": [], "stop_reason": None}
    start["usage"] = {**usage, "output_tokens": 1}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}, {"type": "ping"}]
    for index, block in enumerate(_anthropic_blocks(reply, number)):
        opening, deltas = _opened(block, reply.piece)
        events.append({"type": "content_block_start", "index": index, "content_block": opening})
        for delta in deltas:
            events.append({"type": "content_block_delta", "index": index, "delta": delta})
        events.append({"type": "content_block_stop", "index": index})
    delta = {"stop_reason": _anthropic_stop(reply), "stop_sequence": None}
    told = {name: count for name, count in usage.items() if name.startswith("output_")}
    events.append({"type": "message_delta", "delta": delta, "usage": told})
    return [*events, {"type": "message_stop"}]


def _opened(block: dict[str, Any], piece: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A block as it starts, and the deltas that complete it."""
    if block["type"] == "text":
        deltas = [{"type": "text_delta", "text": text} for text in _pieces(block["text"], piece)]
        return {**block, "text": ""}, deltas
    if block["type"] == "thinking":
        pieces = _pieces(block["thinking"], piece)
        deltas = [{"type": "thinking_delta", "thinking": text} for text in pieces]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
        return {**block, "thinking": "", "signature": ""}, deltas
    given = block["input"]
    raw = given if isinstance(given, str) else json.dumps(given) if given else ""
    deltas = [{"type": "input_json_delta", "partial_json": text} for text in _pieces(raw, piece)]
    return {**block, "input": {}}, deltas


def _openai_calls(reply: Reply, number: int) -> list[dict[str, Any]]:
    return [
        {
            "id": _call_id(call, number, position),
            "type": "function",
            "function": {"name": call.name, "arguments": _arguments_text(call)},
        }
        for position, call in enumerate(reply.calls)
    ]


def _openai_usage(reply: Reply) -> dict[str, Any]:
    prompt = reply.input_tokens + reply.cache_read_tokens + reply.cache_write_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": reply.output_tokens,
        "total_tokens": prompt + reply.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": reply.cache_read_tokens,
            "cache_write_tokens": reply.cache_write_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": reply.reasoning_tokens},
    }


def _openai_stop(reply: Reply) -> str:
    return reply.stop or ("tool_calls" if reply.calls else "stop")


def _openai_frame(kind: str, number: int, model: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{number}", "object": kind, "created": 1, "model": model}


def _openai_body(reply: Reply, number: int, model: str) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None}
    if reply.thinking:
        message["reasoning_content"] = reply.thinking
    if reply.calls:
        message["tool_calls"] = _openai_calls(reply, number)
    choice = {"index": 0, "message": message, "finish_reason": _openai_stop(reply)}
    frame = _openai_frame("chat.completion", number, model)
    return {**frame, "choices": [choice], "usage": _openai_usage(reply)}


def _openai_chunks(reply: Reply, number: int, model: str) -> list[dict[str, Any]]:
    frame = _openai_frame("chat.completion.chunk", number, model)
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"reasoning_content": text} for text in _pieces(reply.thinking, reply.piece)]
    deltas += [{"content": text} for text in _pieces(reply.text, reply.piece)]
    for index, call in enumerate(_openai_calls(reply, number)):
        function = {**call["function"], "arguments": ""}
        deltas.append({"tool_calls": [{**call, "index": index, "function": function}]})
        for text in _pieces(call["function"]["arguments"], reply.piece):
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": text}}]})
    choices: list[dict[str, Any]]
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": _openai_stop(reply)})
    chunks = [{**frame, "choices": [choice]} for choice in choices]
    return [*chunks, {**frame, "choices": [], "usage": _openai_usage(reply)}]
