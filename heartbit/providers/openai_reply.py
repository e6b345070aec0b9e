"""What comes back on the chat completions wire: bodies and streams, read into completions.

Pure, and wary: servers that call themselves compatible differ in whatever the wire leaves open.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
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
from heartbit.errors import MalformedReply, ServerFailure, TruncatedStream
from heartbit.providers.failures import failure
from heartbit.providers.wire import (
    count,
    details,
    encoded,
    loosely_decoded,
    mapping,
    mappings,
    parsed_object,
    reports_error,
    settled,
    string,
    tool_call,
    whole,
)

STOP_REASONS: Mapping[str, StopReason] = {
    "stop": "end_turn",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "length": "max_tokens",
    "content_filter": "refusal",
}

# Where servers put the model's reasoning; the first one found is kept and sent back as it came.
REASONING_FIELDS = ("reasoning_details", "reasoning_content", "reasoning")


def parse_response(data: Json, provider: str) -> Completion:
    """The reply that a chat completion holds: its first choice.

    `provider` is whose reasoning it is, if it holds any.

    Raises:
        MalformedReply: it holds none.
        ServerFailure: the list of choices is empty, which is a provider that failed to say so.
    """
    choice = _first_choice(data)
    if choice.get("error"):
        raise failure(choice)
    message, usage = mapping(choice, "message"), details(data, "usage")
    parts = _parts(message, provider)
    stop = STOP_REASONS.get(string(choice, "finish_reason"))
    if string(message, "refusal"):
        stop = "refusal"
    return Completion(
        parts=parts,
        stop_reason=settled(stop, any(isinstance(part, ToolCall) for part in parts)),
        usage=parse_usage(usage),
        model=string(data, "model") or None,
        cost_usd=_cost(usage) if provider == "openrouter" else None,
    )


def parse_usage(usage: Json) -> Usage:
    """prompt_tokens include what the cache was read or written; our input_tokens don't."""
    prompt = details(usage, "prompt_tokens_details")
    read, write = count(prompt, "cached_tokens"), count(prompt, "cache_write_tokens")
    return Usage(
        input_tokens=max(0, count(usage, "prompt_tokens") - read - write),
        output_tokens=count(usage, "completion_tokens"),
        cache_read_tokens=read,
        cache_write_tokens=write,
        reasoning_tokens=count(details(usage, "completion_tokens_details"), "reasoning_tokens"),
    )


class OpenAIStream:
    """Puts a streamed completion together.

    It is complete once its finish_reason has come: the usage and [DONE] that should follow are left
    out by some servers. [DONE] without a finish_reason is a stream that was cut.
    """

    def __init__(self, provider: str) -> None:
        self.done = False
        self._provider = provider
        self._model: Any = None
        self._usage: Json = {}
        self._finish_reason = ""
        self._texts: dict[str, list[str]] = {}
        self._details: list[Json] = []
        self._calls: list[_Call] = []

    @property
    def usage(self) -> Usage:
        """The tokens told of so far."""
        return parse_usage(self._usage)

    def feed(self, event: str, data: str) -> list[str]:
        """Take in an event and return the text it adds."""
        if event == "error":
            raise failure(loosely_decoded(data))
        if data.strip() == "[DONE]":
            self.done = True
        if self.done or not data:
            return []
        chunk = parsed_object(data)
        if reports_error(chunk):
            raise failure(chunk)
        self._model = chunk.get("model") or self._model
        self._usage = details(chunk, "usage") or self._usage
        spoken: list[str] = []
        for choice in mappings(chunk, "choices"):
            if choice.get("index", 0) == 0:
                spoken += self._take(choice)
        return spoken

    def finish(self) -> Completion:
        """The whole reply.

        Raises:
            TruncatedStream: no finish_reason has come.
        """
        if not self._finish_reason:
            raise TruncatedStream
        message: Json = {name: "".join(texts) for name, texts in self._texts.items()}
        message["reasoning_details"] = self._details
        message["tool_calls"] = [call.complete() for call in self._calls]
        choice = {"message": message, "finish_reason": self._finish_reason}
        data = {"model": self._model, "usage": self._usage, "choices": [choice]}
        return parse_response(data, self._provider)

    def _take(self, choice: Json) -> list[str]:
        if choice.get("error"):
            raise failure(choice)
        delta = mapping(choice, "delta")
        self._finish_reason = string(choice, "finish_reason") or self._finish_reason
        for name in ("reasoning_content", "reasoning"):
            self._add(name, string(delta, name))
        for detail in mappings(delta, "reasoning_details"):
            _grow_details(self._details, detail)
        for position, call in enumerate(mappings(delta, "tool_calls")):
            self._call_of(call, position).grow(mapping(call, "function"))
        spoken = [_content(delta), string(delta, "refusal")]
        self._add("content", spoken[0])
        self._add("refusal", spoken[1])
        return [text for text in spoken if text]

    def _add(self, name: str, text: str) -> None:
        if text:
            self._texts.setdefault(name, []).append(text)

    def _call_of(self, delta: Json, position: int) -> _Call:
        """The call that the delta continues, or a new one.

        Servers differ: some leave the index out, some give every call the same one and only the id
        tells them apart, some repeat the id with every delta.
        """
        given = delta.get("index")
        index = given if isinstance(given, int) else position
        call_id = string(delta, "id")
        call = next((call for call in reversed(self._calls) if call.index == index), None)
        named = bool(string(mapping(delta, "function"), "name"))
        other = call is not None and (
            (call_id and call.id and call_id != call.id)
            or (given is None and not call_id and named and call.name)
        )
        if call is None or other:
            call = _Call(index=index)
            self._calls.append(call)
        call.id = call.id or call_id
        return call


@dataclass(kw_only=True, slots=True)
class _Call:
    """A tool call that is being streamed."""

    index: int
    id: str = ""
    name: str = ""
    texts: list[str] = field(default_factory=list)

    def grow(self, function: Json) -> None:
        self.name = self.name or string(function, "name")
        arguments = function.get("arguments")
        if isinstance(arguments, dict):
            arguments = encoded(arguments).decode()
        self.texts.append(string({"arguments": arguments}, "arguments"))

    def complete(self) -> Json:
        return {"id": self.id, "function": {"name": self.name, "arguments": "".join(self.texts)}}


def _grow_details(known: list[Json], detail: Json) -> None:
    """Add a reasoning detail; a piece of the last one is joined to it."""
    last = known[-1] if known else {}
    if not last or any(last.get(key) != detail.get(key) for key in ("type", "index")):
        known.append(detail)
        return
    told = {key: value for key, value in detail.items() if value is not None}
    for key in ("text", "summary", "data"):
        if isinstance(last.get(key), str) and isinstance(told.get(key), str):
            told[key] = last[key] + told[key]
    known[-1] = {**last, **told}


def _first_choice(data: Json) -> Json:
    if "choices" not in data:
        raise MalformedReply
    choices = mappings(data, "choices")
    if not choices:
        raise ServerFailure("The provider sent a reply without any choice; try again later.")
    return choices[0]


def _parts(message: Json, provider: str) -> tuple[Part, ...]:
    parts: list[Part] = []
    reasoning = next((name for name in REASONING_FIELDS if message.get(name)), None)
    if reasoning:
        parts.append(ThinkingPart(provider=provider, data={reasoning: message[reasoning]}))
    text = whole(_content(message) + string(message, "refusal"))
    if text:
        parts.append(TextPart(text=text))
    for call in mappings(message, "tool_calls"):
        function = mapping(call, "function")
        raw = function.get("arguments")
        raw = "" if raw is None else raw
        parts.append(tool_call(string(call, "id"), string(function, "name"), raw))
    return tuple(parts)


def _content(message: Json) -> str:
    """The text of a message or delta; some servers split it into typed pieces."""
    content = message.get("content")
    if not isinstance(content, list):
        return string(message, "content")
    pieces = mappings(message, "content")
    return "".join(string(piece, "text") for piece in pieces if piece.get("type") == "text")


def _cost(usage: Json) -> float | None:
    cost = usage.get("cost")
    if isinstance(cost, int | float) and not isinstance(cost, bool) and 0 <= cost < math.inf:
        return float(cost)
    return None
