"""A provider that says what it is told to, without network or cost: for tests and demos."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from heartbit.core.messages import (
    Completion,
    Message,
    Part,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResult,
    Usage,
)
from heartbit.core.request import ModelRequest
from heartbit.errors import InvalidRequest
from heartbit.providers.base import Listener

Piece = str | ToolCall | Exception
Reply = Piece | Completion | Sequence[Piece]
Script = Callable[[ModelRequest], Reply | Awaitable[Reply]]

_ID = re.compile(r"call_(\d{1,9})")
_WORD = re.compile(r"\S+\s*|\s+")


def call(name: str, /, **arguments: Any) -> ToolCall:
    """A reply that calls the tool `name`; the provider gives it its id."""
    return ToolCall(id="", name=name, arguments=arguments)


class ScriptedProvider:
    """Replies from a list, one after the other, or from a function of the request.

    A reply is a text, a tool call (see `call`), an exception to raise, a whole `Completion`, which
    is given as it is, or a list of texts, tool calls and exceptions: what stands before the
    exception is still heard, as in a stream that breaks off.

    A list is consumed in the order of the requests, so it is for one agent at a time. Agents that
    run in parallel, and anything that a restart may repeat, want a function (plain or async) that
    decides from the request alone. Ids of tool calls and usage depend on the request alone too.

    `requests` are all requests so far, in order.
    """

    def __init__(
        self,
        replies: Sequence[Reply] | Script,
        name: str = "scripted",
        model: str = "scripted-1",
    ) -> None:
        if isinstance(replies, str):
            raise TypeError("replies is a list or a function; put a single reply into a list.")
        self.name = name
        self.model = model
        self.requests: list[ModelRequest] = []
        self._script = replies if callable(replies) else _in_order(replies)

    async def complete(self, request: ModelRequest, listener: Listener | None = None) -> Completion:
        """Give the next reply; with a listener its text is heard word by word.

        Raises:
            InvalidRequest: the list has no more replies.
            Exception: the one that the script holds.
        """
        self.requests.append(request)
        # A real call waits, and lets others run meanwhile.
        await asyncio.sleep(0)
        reply = self._script(request)
        if inspect.isawaitable(reply):
            reply = await reply
        if isinstance(reply, Completion):
            await _tell(listener, reply.message.text)
            return reply
        return await self._say(_pieces(reply), request, listener)

    async def _say(
        self, pieces: Sequence[Piece], request: ModelRequest, listener: Listener | None
    ) -> Completion:
        parts: list[Part] = []
        number = _last_number(request)
        for piece in pieces:
            if isinstance(piece, Exception):
                raise piece
            if isinstance(piece, str):
                await _tell(listener, piece)
                parts.append(TextPart(text=piece))
            else:
                number += 1
                parts.append(piece if piece.id else replace(piece, id=f"call_{number}"))
        return self._completion(request, Message(role="assistant", parts=tuple(parts)))

    def _completion(self, request: ModelRequest, message: Message) -> Completion:
        return Completion(
            parts=message.parts,
            stop_reason="tool_use" if message.tool_calls else "end_turn",
            usage=Usage(
                input_tokens=_tokens(_shown(request)),
                output_tokens=_tokens(_said(message)),
            ),
            model=request.model or self.model,
        )


def _in_order(replies: Sequence[Reply]) -> Script:
    left = iter(tuple(replies))

    def script(request: ModelRequest) -> Reply:
        for reply in left:
            return reply
        raise InvalidRequest(
            f"The scripted provider has no reply left: its list had {len(replies)}; "
            "add one, or give it a function of the request."
        )

    return script


def _pieces(reply: Piece | Sequence[Piece]) -> Sequence[Piece]:
    if isinstance(reply, Piece):
        return [reply]
    if isinstance(reply, list | tuple) and all(isinstance(piece, Piece) for piece in reply):
        return reply
    raise TypeError(
        "A scripted reply is a text, a tool call, an exception, a list of these, or a Completion; "
        f"not {reply!r}."
    )


async def _tell(listener: Listener | None, text: str) -> None:
    if listener is None:
        return
    for word in _WORD.findall(text):
        listener.text(word)
        await asyncio.sleep(0)


def _last_number(request: ModelRequest) -> int:
    ids = (call.id for message in request.messages for call in message.tool_calls)
    return max((int(found[1]) for found in map(_ID.fullmatch, ids) if found), default=0)


def _shown(request: ModelRequest) -> str:
    tools = [[tool.name, tool.description, tool.input_schema] for tool in request.tools]
    return "".join(
        [request.system, json.dumps(tools) if tools else "", *map(_said, request.messages)]
    )


def _said(message: Message) -> str:
    return "".join(_text_of(part) for part in message.parts)


def _text_of(part: Part) -> str:
    match part:
        case TextPart():
            return part.text
        case ThinkingPart():
            return json.dumps(part.data)
        case ToolCall():
            return part.name + json.dumps(part.arguments)
        case ToolResult():
            return part.content


def _tokens(text: str) -> int:
    return -(-len(text.encode("utf-8", "surrogatepass")) // 4)
