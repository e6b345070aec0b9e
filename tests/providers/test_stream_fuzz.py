"""Streams as they come in real life: cut anywhere, garbled, ended too early. The verdicts are ours.

A stream is complete once message_stop (Anthropic) or a finish_reason (chat completions) has come;
one that ends before is a TruncatedStream, and what is no event of the wire a MalformedReply.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbit.core.messages import Completion, TextPart, ToolCall, user_message
from heartbit.core.request import ModelRequest
from heartbit.errors import (
    ContextTooLong,
    MalformedReply,
    NetworkFailure,
    Overloaded,
    ProviderError,
    RateLimited,
    ServerFailure,
    TruncatedStream,
)
from heartbit.providers.adapter import Adapter, StreamParser
from heartbit.providers.anthropic import AnthropicProvider
from heartbit.providers.anthropic_reply import AnthropicStream
from heartbit.providers.http import read_events
from heartbit.providers.openai import OpenAIProvider
from heartbit.providers.openai_reply import OpenAIStream
from tests.support.listening import Recorder
from tests.support.model_server import Call, ModelServer, Raw, Reply
from tests.support.model_wires import stream_events

EVENTS = {"content-type": "text/event-stream"}
WIRES = ["anthropic", "openai"]
PARSERS: dict[str, Callable[[], StreamParser]] = {
    "anthropic": AnthropicStream,
    "openai": lambda: OpenAIStream("openai"),
}
ADAPTERS: dict[str, Any] = {"anthropic": AnthropicProvider, "openai": OpenAIProvider}
REPLY = Reply(
    text="Grüße an 😀 alle\u2028Zeile",
    thinking="so \u0085 hm",
    calls=(Call(name="add", arguments={"x": "ü😀"}, id="a"), Call(name="now", id="a")),
    piece=3,
)


class Chunks(httpx2.AsyncByteStream):
    """A response's body that arrives in these chunks."""

    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


def read(
    wire: str,
    chunks: list[bytes],
    runner: asyncio.Runner | None = None,
    headers: dict[str, str] = EVENTS,
) -> Completion:
    """What a body in these chunks is on this wire."""
    parser = PARSERS[wire]()

    async def drive() -> None:
        response = httpx2.Response(
            200,
            headers=headers,
            stream=Chunks(chunks),
            request=httpx2.Request("POST", "http://localhost/"),
        )

        def feed(event: str, data: str) -> bool:
            assert all(type(delta) is str for delta in parser.feed(event, data))
            return parser.done

        await read_events(response, feed)

    (runner.run if runner else asyncio.run)(drive())
    return parser.finish()


def whole(wire: str, reply: Reply = REPLY) -> bytes:
    return b"".join(stream_events(wire, reply))


def cut_at(body: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in pairwise(edges)]


@pytest.mark.parametrize("wire", WIRES)
def test_the_stream_says_what_the_reply_says(wire: str) -> None:
    got = read(wire, [whole(wire)])
    assert "Grüße an 😀 alle\u2028Zeile" == got.message.text
    assert (
        ToolCall(id="a", name="add", arguments={"x": "ü😀"}),
        ToolCall(id="a", name="now", arguments={}),
    ) == got.message.tool_calls
    assert (10, 5) == (got.usage.input_tokens, got.usage.output_tokens)


@pytest.mark.parametrize("wire", WIRES)
def test_a_stream_may_come_byte_by_byte(wire: str) -> None:
    body = whole(wire)
    assert read(wire, [body]) == read(wire, [body[n : n + 1] for n in range(len(body))])


@given(wire=st.sampled_from(WIRES), places=st.lists(st.integers(0, 10_000), max_size=30))
def test_any_chunking_gives_the_same_completion(
    runner: asyncio.Runner, wire: str, places: list[int]
) -> None:
    body = whole(wire)
    assert read(wire, [body], runner) == read(wire, cut_at(body, places), runner)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("ending", [b"\r\n", b"\r"])
def test_lines_may_end_as_they_like_and_be_cut_there(wire: str, ending: bytes) -> None:
    body = whole(wire).replace(b"\n", ending)
    assert read(wire, [whole(wire)]) == read(wire, [body])
    assert read(wire, [body]) == read(wire, [body[n : n + 1] for n in range(len(body))])


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    "before",
    [b"\xef\xbb\xbf", b": comment\n\n", b"\n\n\n", b"retry: 10\n\n", b"id: 7\n\n", b"x: y\n\n"],
)
def test_what_is_no_event_changes_nothing(wire: str, before: bytes) -> None:
    assert read(wire, [whole(wire)]) == read(wire, [before + whole(wire)])


@pytest.mark.parametrize("wire", WIRES)
def test_a_byte_order_mark_does_not_cost_the_first_event(wire: str) -> None:
    start, *rest = stream_events(wire, REPLY)
    start = start.removeprefix(b"event: message_start\n").replace(b'""', b'"first"')
    assert read(wire, [start, *rest]) == read(wire, [b"\xef\xbb", b"\xbf", start, *rest])
    assert wire == "anthropic" or read(wire, [start, *rest]).message.text.startswith("first")


@pytest.mark.parametrize("wire", WIRES)
def test_a_stream_is_utf_8_whatever_its_header_says(wire: str) -> None:
    latin = {"content-type": "text/event-stream; charset=iso-8859-1"}
    assert read(wire, [whole(wire)]) == read(wire, [whole(wire)], headers=latin)


@pytest.mark.parametrize("wire", WIRES)
def test_comments_between_events_are_ignored(wire: str) -> None:
    events = [b": keep-alive\n\n" + event for event in stream_events(wire, REPLY)]
    assert read(wire, [whole(wire)]) == read(wire, events)


@pytest.mark.parametrize("wire", WIRES)
def test_the_data_of_one_event_may_fill_several_lines_with_or_without_a_blank(wire: str) -> None:
    body = whole(wire).replace(b"data: {", b"data:{\ndata:")
    assert read(wire, [whole(wire)]) == read(wire, [body])


@pytest.mark.parametrize("wire", WIRES)
def test_bytes_that_are_no_utf_8_are_replaced_and_the_stream_goes_on(wire: str) -> None:
    body = whole(wire, Reply(text="aXb", piece=9)).replace(b"aXb", b"a\xff\xfeb")
    assert "a\ufffd\ufffdb" == read(wire, [body]).message.text


def sse(*data: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(item).encode() + b"\n\n" for item in data)


@pytest.mark.parametrize("wire", WIRES)
def test_unknown_events_are_ignored(wire: str) -> None:
    strange = b"event: news\ndata: {}\n\n" + sse({"type": "news"}, {"id": 1}) + b"data:\n\n"
    first, *rest = stream_events(wire, REPLY)
    assert read(wire, [whole(wire)]) == read(wire, [strange, first, strange, *rest, strange])


def every_cut(wire: str) -> list[tuple[int, list[bytes]]]:
    events = stream_events(wire, REPLY)
    return [(count, events[:count]) for count in range(len(events))]


def test_an_anthropic_stream_without_message_stop_is_truncated_wherever_it_ends() -> None:
    for _, events in every_cut("anthropic"):
        with pytest.raises(TruncatedStream):
            read("anthropic", events)


def test_a_chat_stream_is_complete_with_its_finish_reason_even_if_usage_and_done_are_missing() -> (
    None
):
    complete = read("openai", [whole("openai")])
    cuts = every_cut("openai")
    for _, events in cuts[:-2]:
        with pytest.raises(TruncatedStream):
            read("openai", events)
    without_usage = read("openai", cuts[-2][1])
    assert complete.parts == without_usage.parts
    assert 0 == without_usage.usage.total_tokens
    assert complete == read("openai", cuts[-1][1])


def test_done_without_a_finish_reason_is_truncated() -> None:
    delta = sse({"choices": [{"delta": {"content": "half a"}}]})
    with pytest.raises(TruncatedStream):
        read("openai", [delta, b"data: [DONE]\n\n"])


@pytest.mark.parametrize("wire", WIRES)
def test_an_empty_stream_is_truncated(wire: str) -> None:
    for body in (b"", b"\n", b": hello\n\n", b"data: "):
        with pytest.raises(TruncatedStream):
            read(wire, [body])


def test_a_final_event_that_was_never_terminated_has_not_come() -> None:
    with pytest.raises(TruncatedStream):
        read("anthropic", [whole("anthropic").removesuffix(b"\n")])


def test_a_message_that_ends_without_having_begun_is_malformed() -> None:
    with pytest.raises(MalformedReply):
        read("anthropic", [sse({"type": "message_stop"})])


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("data", [b"{", b"[]", b"7", b"null", b"<html>", b'{"a": NaN}'])
def test_an_event_that_is_no_json_object_is_malformed_and_never_skipped(
    wire: str, data: bytes
) -> None:
    first, *rest = stream_events(wire, REPLY)
    with pytest.raises(MalformedReply):
        read(wire, [first, b"data: " + data + b"\n\n", *rest])


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"type": "overloaded_error", "message": "Overloaded"}, Overloaded),
        ({"type": "rate_limit_error", "message": "slow"}, RateLimited),
        ({"type": "api_error", "message": "oops"}, ServerFailure),
        (
            {"type": "invalid_request_error", "message": "prompt is too long: 9 > 8"},
            ContextTooLong,
        ),
        ({"code": 429, "message": "slow"}, RateLimited),
        ("out of memory", ServerFailure),
    ],
)
@pytest.mark.parametrize("after", [0, 1, 5])
def test_an_error_event_in_a_200_stream_is_its_class_by_type(
    wire: str, error: Any, kind: type[ProviderError], after: int
) -> None:
    events = stream_events(wire, REPLY)
    event = sse({"type": "error", "error": error})
    for name in (b"", b"event: error\n"):
        with pytest.raises(kind):
            read(wire, [*events[:after], name + event, *events[after:]])


@pytest.mark.parametrize("wire", WIRES)
def test_an_error_event_may_be_plain_text(wire: str) -> None:
    with pytest.raises(ServerFailure, match="upstream died"):
        read(wire, [b"event: error\ndata: upstream died\n\n"])


@pytest.mark.parametrize("wire", WIRES)
def test_nothing_after_the_final_event_counts(wire: str) -> None:
    late = sse({"type": "error", "error": {"type": "overloaded_error"}}) + b"data: {\n\n"
    assert read(wire, [whole(wire)]) == read(wire, [whole(wire), late])


def block(index: int, start: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    opening = {"type": "content_block_start", "index": index, "content_block": start}
    grown = [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
    return [opening, *grown]


def anthropic(*events: dict[str, Any]) -> Completion:
    """A message made of these events."""
    start = {"type": "message_start", "message": {"id": "m", "usage": {}}}
    end = {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {}}
    return read("anthropic", [sse(start, *events, end, {"type": "message_stop"})])


def use(call_id: str, name: str = "add", **more: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": name, "input": {}, **more}


def more_json(text: str) -> dict[str, Any]:
    return {"type": "input_json_delta", "partial_json": text}


def test_interleaved_parallel_calls_are_put_together_by_index() -> None:
    first = block(0, use("a"), more_json('{"x"'), more_json(": 1}"))
    second = block(1, use("a", "sub"), more_json('{"y": '), more_json("2}"))
    got = anthropic(*(event for pair in zip(first, second, strict=True) for event in pair))
    assert (
        ToolCall(id="a", name="add", arguments={"x": 1}),
        ToolCall(id="a", name="sub", arguments={"y": 2}),
    ) == got.parts


@pytest.mark.parametrize(
    ("pieces", "arguments", "malformed"),
    [
        ([], {}, None),
        ([""], {}, None),
        ([" "], {}, None),
        (['{"x": 1', "}"], {"x": 1}, None),
        (['{"x": 1'], {}, '{"x": 1'),
        (["[1, 2]"], {}, "[1, 2]"),
        (["null"], {}, "null"),
        (["{}{}"], {}, "{}{}"),
    ],
)
def test_empty_tool_json_is_no_arguments_and_broken_is_kept_as_malformed(
    pieces: list[str], arguments: dict[str, Any], malformed: str | None
) -> None:
    got = anthropic(*block(0, use("a"), *map(more_json, pieces)))
    expected = ToolCall(id="a", name="add", arguments=arguments, malformed=malformed)
    assert (expected,) == got.parts


def test_arguments_that_came_with_the_start_of_the_call_are_kept() -> None:
    got = anthropic(*block(0, use("a", input={"x": 1})))
    assert (ToolCall(id="a", name="add", arguments={"x": 1}),) == got.parts


def test_unknown_blocks_and_deltas_and_those_of_no_block_are_ignored() -> None:
    got = anthropic(
        *block(0, {"type": "server_tool_use", "id": "s"}, more_json("{}")),
        *block(1, {"type": "text", "text": "a"}, {"type": "citations_delta", "citation": {}}),
        {"type": "content_block_delta", "index": 9, "delta": {"type": "text_delta", "text": "?"}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "b"}},
        {"type": "content_block_stop", "index": 44},
    )
    assert (TextPart(text="ab"),) == got.parts


def test_a_second_block_under_the_same_index_is_another_block() -> None:
    got = anthropic(
        *block(0, use("a"), more_json('{"x": 1}')), *block(0, use("b"), more_json('{"x": 2}'))
    )
    assert [{"x": 1}, {"x": 2}] == [call.arguments for call in got.message.tool_calls]


def test_a_surrogate_pair_cut_between_two_deltas_is_heard_as_one_character() -> None:
    deltas = ["a\ud83d", "\ude00b", "\udc00!"]
    events = [{"choices": [{"delta": {"content": delta}}]} for delta in deltas]
    end = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
    recorder = Recorder()
    with ModelServer([Raw(headers=EVENTS, chunks=(sse(*events, end),))]) as server:
        provider = OpenAIProvider(model="m", base_url=server.url)
        request = ModelRequest(system="", messages=(user_message("x"),))
        got = asyncio.run(provider.complete(request, recorder))
    assert "a😀b\ufffd!" == got.message.text
    assert ["a", "😀b", "\ufffd!"] == recorder.heard


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("ending", ["cut", "abort"])
def test_a_stream_whose_connection_is_lost_is_a_network_failure_and_no_completion(
    wire: str, ending: Any
) -> None:
    recorder = Recorder()
    events = tuple(stream_events(wire, REPLY)[:8])
    with ModelServer([Raw(headers=EVENTS, chunks=events, ending=ending)]) as server:
        provider = ADAPTERS[wire](model="m", base_url=server.url)
        request = ModelRequest(system="", messages=(user_message("x"),))
        with pytest.raises(NetworkFailure):
            asyncio.run(provider.complete(request, recorder))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    children: Iterable[tuple[Any, Any]] = value.items() if isinstance(value, dict) else ()
    children = enumerate(value) if isinstance(value, list) else children
    for key, child in children:
        yield from paths(child, (*at, key))


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = list(value) if isinstance(value, list) else dict(value)
    copy[path[0]] = put(value[path[0]], path[1:], new)
    return copy


@st.composite
def bent_streams(draw: st.DrawFn) -> tuple[str, list[bytes]]:
    """A valid stream with some values replaced by something else, events dropped or doubled."""
    wire = draw(st.sampled_from(WIRES))
    events = []
    for event in stream_events(wire, REPLY):
        head, _, data = event.partition(b"data: ")
        fate = draw(st.integers(0, 19))
        if fate == 0 and data.startswith(b"{"):
            value = json.loads(data)
            path = draw(st.sampled_from(list(paths(value))))
            bent = put(value, path, draw(json_values))
            event = head + b"data: " + json.dumps(bent).encode() + b"\n\n"
        events += [event] * (0 if fate == 1 else 2 if fate == 2 else 1)
    return wire, events


def assert_sound(completion: Completion) -> None:
    """Everything in the completion has the type that it says."""
    json.dumps([part.arguments for part in completion.message.tool_calls], allow_nan=False)
    for part in completion.parts:
        if isinstance(part, TextPart):
            part.text.encode()
        if isinstance(part, ToolCall):
            assert (str, str, dict) == (type(part.id), type(part.name), type(part.arguments))
    assert type(completion.usage.total_tokens) is int
    assert completion.usage.total_tokens >= 0


@given(bent_streams())
def test_a_bent_stream_gives_a_sound_completion_or_a_provider_error(
    runner: asyncio.Runner, stream: tuple[str, list[bytes]]
) -> None:
    wire, events = stream
    try:
        completion = read(wire, events, runner)
    except ProviderError:
        return
    assert_sound(completion)


@given(wire=st.sampled_from(WIRES), body=st.binary(max_size=200), places=st.lists(st.integers(0)))
def test_garbage_gives_nothing_but_a_provider_error(
    runner: asyncio.Runner, wire: str, body: bytes, places: list[int]
) -> None:
    with pytest.raises(ProviderError):
        read(wire, cut_at(b"data: " + body, places), runner)


@given(wire=st.sampled_from(WIRES), value=json_values)
def test_any_json_as_a_whole_reply_is_sound_or_a_provider_error(wire: str, value: Any) -> None:
    provider = ADAPTERS[wire](model="m")
    key = "content" if wire == "anthropic" else "choices"
    for data in (value if isinstance(value, dict) else {}, {key: value}, {key: [value]}):
        try:
            completion = provider.parse_response(data)
        except ProviderError:
            continue
        assert_sound(completion)


class Parrot:
    """Providers of both wires whose server says whatever it is told to."""

    def __init__(self) -> None:
        self.says = Raw()
        self.server = ModelServer(lambda _: self.says)
        self.providers: dict[str, Adapter] = {}


@pytest.fixture(scope="module")
def parrot() -> Iterator[Parrot]:
    parrot = Parrot()
    with parrot.server as server:
        parrot.providers = {w: kind(model="m", base_url=server.url) for w, kind in ADAPTERS.items()}
        yield parrot


@given(
    wire=st.sampled_from(WIRES),
    kind=st.sampled_from([*EVENTS.values(), "application/json", "text/html", ""]),
    body=st.binary(max_size=100),
    stream=st.booleans(),
)
def test_garbage_over_a_socket_gives_nothing_but_a_provider_error(
    runner: asyncio.Runner, parrot: Parrot, wire: str, kind: str, body: bytes, stream: bool
) -> None:
    parrot.says = Raw(headers={"content-type": kind}, body=body)
    request = ModelRequest(system="", messages=(user_message("x"),))
    call = parrot.providers[wire].complete(request, Recorder() if stream else None)
    with pytest.raises(ProviderError):
        runner.run(call)
