"""The adapter of Anthropic's Messages wire. It translates; nothing is sent from here.

What comes back is read in `anthropic_reply`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from heartbit.core.agent import ReasoningEffort
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
from heartbit.providers.anthropic_reply import NAME, AnthropicStream, parse_response
from heartbit.providers.http import HttpClient, Timeouts
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

VERSION = "2023-06-01"
BREAKPOINT = b',"cache_control":{"type":"ephemeral"}}'

# The share of max_tokens that may be spent on thinking: the rest is room for the answer. The wire
# refuses fewer than MIN_THINKING_TOKENS; a smaller share leaves thinking off.
THINKING_SHARE: Mapping[ReasoningEffort, float] = {"low": 0.25, "medium": 0.5, "high": 0.75}
MIN_THINKING_TOKENS = 1024

USER = b'{"role":"user","content":['

_ILLEGAL_IN_ID = re.compile(r"[^a-zA-Z0-9_-]")


class AnthropicProvider(Adapter):
    """Claude models, or any server that speaks the Messages wire at `base_url` + /v1/messages.

    `prompt_caching` marks three places up to which the provider may cache the request: the system
    prompt, the tools, and the conversation up to the second-to-last user message.
    """

    default_base_url = "https://api.anthropic.com"
    key_variable = "ANTHROPIC_API_KEY"
    path = "/v1/messages"

    def __init__(
        self,
        *,
        model: str,
        api_key: str | None = None,
        base_url: str | None = None,
        prompt_caching: bool = False,
        http: HttpClient | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        super().__init__(
            model=model, name=NAME, api_key=api_key, base_url=base_url, http=http, timeouts=timeouts
        )
        self._caching = prompt_caching

    def build_request(self, request: ModelRequest, *, stream: bool = False) -> bytes:
        """The body to send."""
        model = encoded(request.model or self.model)
        members = [b'"model":%b,"max_tokens":%d' % (model, request.max_tokens)]
        if request.system.strip():
            members.append(b'"system":' + _system(request.system, self._caching))
        budget = _thinking_budget(request)
        if request.tools:
            members.append(b'"tools":[%b]' % _tools(request.tools, self._caching))
            if request.tool_choice is not None:
                members.append(b'"tool_choice":' + _tool_choice(request.tool_choice, budget))
        if budget:
            members.append(b'"thinking":{"type":"enabled","budget_tokens":%d}' % budget)
        if stream:
            members.append(b'"stream":true')
        return body(members, _messages(request.messages, self._caching))

    def parse_response(self, data: Json) -> Completion:
        """The reply that a body holds."""
        return parse_response(data)

    def stream_parser(self) -> StreamParser:
        """A parser for one streamed reply."""
        return AnthropicStream()

    def _headers(self, key: str) -> Mapping[str, str]:
        shown = {"x-api-key": key} if key else {}
        return {**shown, "anthropic-version": VERSION}


def _system(system: str, caching: bool) -> bytes:
    if not caching:
        return encoded(system)
    return b"[%b]" % _with_breakpoint(encoded({"type": "text", "text": system}))


def _tools(tools: tuple[ToolSpec, ...], caching: bool) -> bytes:
    listed = joined(map(_tool, tools))
    return _with_breakpoint(listed) if caching else listed


def _tool(spec: ToolSpec) -> bytes:
    known = spec.memo.get(NAME)
    if isinstance(known, bytes):
        return known
    shown = {"name": spec.name, "description": spec.description, "input_schema": spec.input_schema}
    spec.memo[NAME] = fresh = encoded(shown)
    return fresh


def _tool_choice(choice: ToolChoice, budget: int) -> bytes:
    # The wire refuses a forced call together with thinking.
    if budget or choice.type == "auto":
        return b'{"type":"auto"}'
    if choice.type == "tool" and choice.name:
        return encoded({"type": "tool", "name": choice.name})
    return b'{"type":"any"}'


def _thinking_budget(request: ModelRequest) -> int:
    """Tokens to think with, zero for not at all."""
    share = THINKING_SHARE.get(request.reasoning_effort or "none", 0)
    budget = int(request.max_tokens * share)
    if budget < MIN_THINKING_TOKENS or _began_without_thinking(request.messages):
        return 0
    return budget


def _began_without_thinking(messages: Sequence[Message]) -> bool:
    """Whether tool results wait for an answer to a turn in which another model didn't think.

    The wire refuses to start thinking in the middle of such a turn.
    """
    last = next((message for message in reversed(messages) if message.role == "assistant"), None)
    if last is None or not last.tool_calls:
        return False
    return not any(isinstance(p, ThinkingPart) and p.provider == NAME for p in last.parts)


def _messages(messages: Sequence[Message], caching: bool) -> list[bytes]:
    turns = usual_messages(messages, NAME, _usual) or _mended(messages)
    if caching:
        _mark_second_to_last_user(turns)
    return turns


def _usual(message: Message) -> tuple[Ids, bytes]:
    ids = own_ids(message)
    results, rest = _content(message, ids)
    if not (results or rest) or not distinct(ids) or any(_legal_id(own) != own for own in ids):
        return ids, b""
    return ids, _turn(message.role, results + rest)


def _mended(messages: Sequence[Message]) -> list[bytes]:
    """Consecutive messages of one role as one, its tool results first; every id once."""
    turns: list[tuple[Role, list[bytes], list[bytes]]] = []
    for message, ids in zip(messages, wire_ids(messages, NAME, _legal_id), strict=True):
        results, rest = once_per_message(message, NAME, ids, _content)
        if not (results or rest):
            continue
        if not turns or turns[-1][0] != message.role:
            turns.append((message.role, [], []))
        turns[-1][1].extend(results)
        turns[-1][2].extend(rest)
    return [_turn(role, results + rest) for role, results, rest in turns]


def _turn(role: Role, blocks: Iterable[bytes]) -> bytes:
    return b'{"role":"%b","content":[%b]}' % (role.encode(), joined(blocks))


def _mark_second_to_last_user(turns: list[bytes]) -> None:
    places = [place for place, turn in enumerate(turns) if turn.startswith(USER)]
    if len(places) >= 2:
        turns[places[-2]] = _with_breakpoint(turns[places[-2]].removesuffix(b"]}")) + b"]}"


def _with_breakpoint(objects: bytes) -> bytes:
    """JSON objects, the last of them marked: everything up to it may be cached."""
    return objects[:-1] + BREAKPOINT


def _content(message: Message, ids: Ids) -> tuple[list[bytes], list[bytes]]:
    """The message's tool results, and its other blocks."""
    results, rest, names = [], [], iter(ids)
    for part in message.parts:
        match part:
            case TextPart() if part.text.strip():
                rest.append(encoded({"type": "text", "text": part.text}))
            case ThinkingPart() if part.provider == NAME:
                rest.append(encoded(part.data))
            case ToolCall():
                rest.append(_tool_use(part, next(names)))
            case ToolResult():
                results.append(_tool_result(part, next(names)))
    return results, rest


def _tool_use(call: ToolCall, call_id: str) -> bytes:
    shown = {"type": "tool_use", "id": call_id, "name": call.name or "unnamed"}
    return encoded({**shown, "input": call.arguments})


def _tool_result(result: ToolResult, call_id: str) -> bytes:
    shown: Json = {"type": "tool_result", "tool_use_id": call_id, "content": result.content}
    return encoded({**shown, "is_error": True} if result.is_error else shown)


def _legal_id(call_id: str) -> str:
    return _ILLEGAL_IN_ID.sub("_", call_id)
