"""What both wires share: reading values that may be anything, and the ids of tool calls.

Pure translation, no I/O. Everything read here was sent by somebody else: a value of the wrong type
is a MalformedReply, never another exception.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, TypeVar

from heartbit.core.messages import Json, Message, StopReason, ToolCall, ToolResult
from heartbit.errors import MalformedReply

E = TypeVar("E")
Ids = tuple[str, ...]


def loosely_decoded(content: str) -> Any:
    """Parsed JSON, or an object whose `message` is the text: what an error event may hold."""
    try:
        return decoded(content)
    except ValueError:
        return {"message": content}


def encoded(value: Any) -> bytes:
    """Compact JSON. A lone surrogate, which no provider accepts, becomes a question mark."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def decoded(content: bytes | str) -> Any:
    """Parsed JSON, without the numbers that JSON doesn't have.

    Raises:
        ValueError: it is no JSON.
    """
    text = content if isinstance(content, str) else content.decode("utf-8-sig", "replace")
    try:
        return _DECODER.decode(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def parsed_object(content: str) -> Json:
    """A JSON object.

    Raises:
        MalformedReply: it is none.
    """
    try:
        value = decoded(content)
    except ValueError as error:
        raise MalformedReply from error
    if not isinstance(value, dict):
        raise MalformedReply
    return value


def string(data: Json, key: str) -> str:
    """The text at `key`, empty if there is none.

    Raises:
        MalformedReply: something else is there.
    """
    value = data.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise MalformedReply
    return value


def mapping(data: Json, key: str) -> Json:
    """The object at `key`, empty if there is none.

    Raises:
        MalformedReply: something else is there.
    """
    value = data.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise MalformedReply
    return value


def mappings(data: Json, key: str) -> list[Json]:
    """The list of objects at `key`, empty if there is none.

    Raises:
        MalformedReply: something else is there.
    """
    value = data.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise MalformedReply
    return value


def reports_error(data: Json) -> bool:
    """Whether the object is an error, in one of the shapes that servers give it."""
    return bool(data.get("error")) or "error" in (data.get("type"), data.get("object"))


def details(data: Json, key: str) -> Json:
    """The object at `key`, empty if anything else is there: for counts nobody depends on."""
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def count(data: Json, key: str) -> int:
    """The number of tokens at `key`; zero if nothing sensible is there."""
    value = data.get(key)
    return value if type(value) is int and value > 0 else 0


def whole(text: str) -> str:
    """`text` with surrogate pairs joined and lone surrogates replaced: always valid Unicode."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def tool_call(call_id: str, name: str, raw: Any) -> ToolCall:
    """A tool call from its arguments as they came: an object, or the text of one.

    No text at all means no arguments. What is no JSON object is kept in `malformed`.
    """
    if isinstance(raw, dict):
        return ToolCall(id=call_id, name=name, arguments=raw)
    text = raw if isinstance(raw, str) else encoded(raw).decode()
    if not text.strip():
        return ToolCall(id=call_id, name=name, arguments={})
    try:
        arguments = decoded(text)
    except ValueError:
        arguments = None
    if isinstance(arguments, dict):
        return ToolCall(id=call_id, name=name, arguments=arguments)
    return ToolCall(id=call_id, name=name, arguments={}, malformed=whole(text))


def settled(stop: StopReason | None, has_calls: bool) -> StopReason:
    """The stop reason that fits what the reply holds, where the provider's own doesn't or is new.

    A reply with tool calls that simply ended wants them run; one without calls wants nothing run.
    """
    if stop in (None, "end_turn", "stop_sequence", "tool_use"):
        if has_calls:
            return "tool_use"
        return "stop_sequence" if stop == "stop_sequence" else "end_turn"
    return stop


def usual_messages(
    messages: Sequence[Message], key: str, encode: Callable[[Message], tuple[Ids, bytes]]
) -> list[bytes] | None:
    """Each message on the wire called `key`, encoded once in its life; None if some need mending.

    That is: two of one role in a row, nothing in them, ids that repeat or are empty, results that
    are not those of the calls before. `encode` gives a message's ids, and its bytes (none if ids
    in it are empty, repeated or not legal on the wire).
    """
    # A turn must not cost more the longer the run has become: this loop is all that grows.
    used: set[str] = set()
    asked: Ids = ()
    role = ""
    found = []
    for message in messages:
        known: tuple[Ids, bytes] | None = message.memo.get(key)
        if known is None:
            known = message.memo[key] = encode(message)
        ids, wire = known
        if not wire or message.role == role:
            return None
        role = message.role
        if role == "assistant":
            if ids:
                if not used.isdisjoint(ids):
                    return None
                used.update(ids)
            asked = ids
        elif ids != asked:
            return None
        found.append(wire)
    return found


def own_ids(message: Message) -> Ids:
    """The ids of the message's tool calls and results, as they came."""
    return tuple(
        part.id if isinstance(part, ToolCall) else part.call_id
        for part in message.parts
        if isinstance(part, ToolCall | ToolResult)
    )


def distinct(ids: Ids) -> bool:
    """Whether none of the ids is empty or repeated."""
    return "" not in ids and len(set(ids)) == len(ids)


def wire_ids(messages: Sequence[Message], key: str, legal: Callable[[str], str] = str) -> list[Ids]:
    """For each message the ids of its tool calls, or of the calls that its results answer.

    Providers repeat ids or leave them empty, and refuse a conversation that does. An id keeps its
    name if it is the first of it; a result belongs to the first open call with its `call_id`, or
    else to the first open call. `legal` turns an id into one that the wire called `key` accepts.
    """
    memo = key + ":ids"
    unique = _UniqueIds()
    open_calls: list[tuple[str, str]] = []
    found: list[Ids] = []
    previous = None
    for message in messages:
        own: Ids | None = message.memo.get(memo)
        if own is None:
            own = message.memo[memo] = tuple(map(legal, own_ids(message)))
        if message.role == "assistant":
            if previous != "assistant":
                open_calls = []
            names = tuple(map(unique.name, own)) if own else own
            open_calls += zip(own, names, strict=True)
            found.append(names)
        else:
            found.append(tuple([_answered(call_id, open_calls) for call_id in own]) if own else own)
        previous = message.role
    return found


def once_per_message(
    message: Message, key: str, ids: Ids, encode: Callable[[Message, Ids], E]
) -> E:
    """What `encode` makes of a message with these ids, kept with it while they stay the same."""
    memo = key + ":pieces"
    known: tuple[Ids, E] | None = message.memo.get(memo)
    if known is not None and known[0] == ids:
        return known[1]
    fresh = encode(message, ids)
    message.memo[memo] = (ids, fresh)
    return fresh


def body(members: list[bytes], messages: list[bytes]) -> bytes:
    """The JSON object of `members` and the list of `messages`, copied as seldom as can be."""
    return b"".join((b"{", joined(members), b',"messages":[', joined(messages), b"]}"))


def joined(items: Iterable[bytes]) -> bytes:
    """The items of a JSON list."""
    return b",".join(items)


class _UniqueIds:
    """Gives every tool call of a conversation an id of its own, the same ones every time."""

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._tries: dict[str, int] = {}

    def name(self, call_id: str) -> str:
        name = call_id or "call"
        while name in self._used:
            number = self._tries.get(call_id, 1) + 1
            self._tries[call_id] = number
            name = f"{call_id or 'call'}_{number}"
        self._used.add(name)
        return name


def _answered(call_id: str, open_calls: list[tuple[str, str]]) -> str:
    matching = (place for place, (own, _) in enumerate(open_calls) if own == call_id)
    place = next(matching, 0)
    return open_calls.pop(place)[1] if open_calls else call_id


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is too large a number")
    return number


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
