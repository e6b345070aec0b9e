"""The adapter of the chat completions wire: OpenAI, OpenRouter and every compatible endpoint.

It translates; nothing is sent from here. What comes back is read in `openai_reply`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from heartbit.core.messages import (
    Completion,
    Json,
    Message,
    Role,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResult,
)
from heartbit.core.request import ModelRequest
from heartbit.core.tools import ToolChoice, ToolSpec
from heartbit.providers.adapter import Adapter, StreamParser
from heartbit.providers.http import HttpClient, Timeouts
from heartbit.providers.openai_reply import OpenAIStream, parse_response
from heartbit.providers.wire import (
    Ids,
    body,
    distinct,
    encoded,
    joined,
    once_per_message,
    own_ids,
    usual_messages,
    wire_ids,
)

# Between texts that become one, inside a JSON string.
BLANK_LINE = rb"\n\n"


class OpenAIProvider(Adapter):
    """OpenAI's models, or those of any server that speaks chat completions under `base_url`.

    Another server than OpenAI's needs no key and gets `max_tokens`, which OpenAI itself has
    replaced by `max_completion_tokens`. The reasoning effort `none` is the absence of the field.
    """

    default_base_url = "https://api.openai.com/v1"
    key_variable = "OPENAI_API_KEY"
    path = "/chat/completions"
    default_name = "openai"

    def __init__(
        self,
        *,
        model: str,
        api_key: str | None = None,
        base_url: str | None = None,
        http: HttpClient | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        super().__init__(
            model=model,
            name=self.default_name,
            api_key=api_key,
            base_url=base_url,
            http=http,
            timeouts=timeouts,
        )

    def build_request(self, request: ModelRequest, *, stream: bool = False) -> bytes:
        """The body to send."""
        model, limit = encoded(request.model or self.model), self._limit_field
        members = [b'"model":%b,"%b":%d' % (model, limit, request.max_tokens)]
        if request.tools:
            members.append(b'"tools":[%b]' % joined(map(_tool, request.tools)))
            if request.tool_choice is not None:
                members.append(b'"tool_choice":' + _tool_choice(request.tool_choice))
        if request.reasoning_effort is not None:
            members += self._reasoning(request.reasoning_effort)
        if stream:
            members.append(b'"stream":true,"stream_options":{"include_usage":true}')
        return body(members, _messages(request.system, request.messages, self.name))

    def parse_response(self, data: Json) -> Completion:
        """The reply that a body holds."""
        return parse_response(data, self.name)

    def stream_parser(self) -> StreamParser:
        """A parser for one streamed reply."""
        return OpenAIStream(self.name)

    @property
    def _limit_field(self) -> bytes:
        return b"max_completion_tokens" if self.official else b"max_tokens"

    def _reasoning(self, effort: str) -> list[bytes]:
        return [] if effort == "none" else [b'"reasoning_effort":"%b"' % effort.encode()]

    def _headers(self, key: str) -> Mapping[str, str]:
        return {"authorization": f"Bearer {key}"} if key else {}


class OpenRouterProvider(OpenAIProvider):
    """The models of OpenRouter, under names like `vendor/model`."""

    default_base_url = "https://openrouter.ai/api/v1"
    key_variable = "OPENROUTER_API_KEY"
    default_name = "openrouter"

    @property
    def _limit_field(self) -> bytes:
        return b"max_tokens"

    def _reasoning(self, effort: str) -> list[bytes]:
        return [b'"reasoning":{"effort":"%b"}' % effort.encode()]


def _tool(spec: ToolSpec) -> bytes:
    known = spec.memo.get("openai")
    if isinstance(known, bytes):
        return known
    shown = {"name": spec.name, "description": spec.description, "parameters": spec.input_schema}
    spec.memo["openai"] = fresh = encoded({"type": "function", "function": shown})
    return fresh


def _tool_choice(choice: ToolChoice) -> bytes:
    if choice.type == "tool" and choice.name:
        return encoded({"type": "function", "function": {"name": choice.name}})
    return b'"auto"' if choice.type == "auto" else b'"required"'


@dataclass(frozen=True, kw_only=True, slots=True)
class _Encoded:
    """A message in pieces: its texts (JSON strings without their quotes), calls, reasoning fields,
    and the tool messages that its results become.
    """

    text: bytes
    calls: bytes
    reasoning: bytes
    results: bytes


@dataclass(kw_only=True, slots=True)
class _Turn:
    """Consecutive messages of one role: one message on the wire."""

    role: Role
    pieces: list[_Encoded]

    def render(self) -> bytes:
        texts = [piece.text for piece in self.pieces if piece.text]
        content = b'"%b"' % BLANK_LINE.join(texts) if texts else b"null"
        members = [b'"role":"%b","content":%b' % (self.role.encode(), content)]
        members += [piece.reasoning for piece in self.pieces[-1:] if piece.reasoning]
        calls = joined(piece.calls for piece in self.pieces if piece.calls)
        if calls:
            members.append(b'"tool_calls":[%b]' % calls)
        return b"{%b}" % joined(members)


def _messages(system: str, messages: Sequence[Message], provider: str) -> list[bytes]:
    turns = usual_messages(messages, provider, partial(_usual, provider))
    turns = turns or _mended(messages, provider)
    if system.strip():
        turns.insert(0, encoded({"role": "system", "content": system}))
    return turns


def _usual(provider: str, message: Message) -> tuple[Ids, bytes]:
    ids = own_ids(message)
    if not distinct(ids):
        return ids, b""
    return ids, joined(_rendered([(message.role, _encode(provider, message, ids))]))


def _mended(messages: Sequence[Message], provider: str) -> list[bytes]:
    """Consecutive messages of one role as one, and every id once."""
    ids = wire_ids(messages, provider)
    encode = partial(_encode, provider)
    return _rendered(
        (message.role, once_per_message(message, provider, own, encode))
        for message, own in zip(messages, ids, strict=True)
    )


def _rendered(pieces: Iterable[tuple[Role, _Encoded]]) -> list[bytes]:
    turns: list[_Turn | bytes] = []
    for role, piece in pieces:
        if piece.results:
            turns.append(piece.results)
        if not (piece.text or piece.calls):
            continue
        last = turns[-1] if turns else None
        if isinstance(last, _Turn) and last.role == role:
            last.pieces.append(piece)
        else:
            turns.append(_Turn(role=role, pieces=[piece]))
    return [turn if isinstance(turn, bytes) else turn.render() for turn in turns]


def _encode(provider: str, message: Message, ids: Ids) -> _Encoded:
    texts, calls, results, names = [], [], [], iter(ids)
    reasoning: Json = {}
    for part in message.parts:
        match part:
            case TextPart() if part.text.strip():
                texts.append(encoded(part.text)[1:-1])
            case ThinkingPart() if part.provider == provider:
                reasoning |= part.data
            case ToolCall():
                calls.append(_function_call(part, next(names)))
            case ToolResult():
                results.append(_tool_message(part, next(names)))
    between = BLANK_LINE if message.role == "user" else b""
    return _Encoded(
        text=between.join(texts),
        calls=joined(calls),
        reasoning=encoded(reasoning)[1:-1] if reasoning else b"",
        results=joined(results),
    )


def _function_call(call: ToolCall, call_id: str) -> bytes:
    arguments = encoded(call.arguments).decode()
    function = {"name": call.name or "unnamed", "arguments": arguments}
    return encoded({"id": call_id, "type": "function", "function": function})


def _tool_message(result: ToolResult, call_id: str) -> bytes:
    # This wire has no field for a failed call.
    content = f"[ERROR] {result.content}" if result.is_error else result.content
    return encoded({"role": "tool", "tool_call_id": call_id, "content": content})
