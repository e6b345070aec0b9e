"""The official SDKs as oracles: they can read our model server, and they read a stream as we do.

Each recorded stream is served once to the official package and once to our adapter. What they make
of it must agree field by field; where we differ on purpose, a test of its own names the difference.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import anthropic
import openai
import pytest

from heartbit.core.agent import ReasoningEffort
from heartbit.core.messages import Completion, ThinkingPart, ToolCall, Usage, user_message
from heartbit.core.request import ModelRequest
from heartbit.core.tools import ToolChoice, ToolSpec
from heartbit.errors import ProviderError, TruncatedStream
from heartbit.providers.anthropic import AnthropicProvider
from heartbit.providers.openai import OpenAIProvider
from tests.support.conversations import calls, results
from tests.support.listening import Recorder
from tests.support.model_server import Answer, Call, ModelServer, Raw, Reply
from tests.support.model_wires import stream_events

EVENTS = {"content-type": "text/event-stream"}
REQUEST = ModelRequest(system="", messages=(user_message("hello"),))
ASKED: list[Any] = [{"role": "user", "content": "hello"}]

REPLIES = {
    "text": Reply(text="Grüße an 😀 alle\u2028Zeile"),
    "one call": Reply(calls=(Call(name="add", arguments={"x": 1, "y": [None, "ü"]}),)),
    "text and parallel calls": Reply(
        text="Let me.",
        calls=(Call(name="add", arguments={"x": 1}), Call(name="now"), Call(name="add")),
        piece=2,
    ),
    "thinking": Reply(thinking="so, hm", text="Aha.", calls=(Call(name="now"),)),
    "nothing": Reply(),
    "usage": Reply(
        text="x",
        input_tokens=11,
        output_tokens=22,
        cache_read_tokens=33,
        cache_write_tokens=44,
        reasoning_tokens=5,
    ),
}


def raw_stream(events: Iterable[bytes]) -> Raw:
    return Raw(headers=EVENTS, chunks=tuple(events))


def sse(*data: Any) -> list[bytes]:
    return [
        f"event: {item['type']}\ndata: {json.dumps(item)}\n\n".encode()
        if "type" in item
        else f"data: {json.dumps(item)}\n\n".encode()
        for item in data
    ]


def recorded(wire: str) -> dict[str, Raw]:
    """The streams of this wire, by what they show."""
    streams = {name: raw_stream(stream_events(wire, reply)) for name, reply in REPLIES.items()}
    return {**streams, **(ANTHROPIC if wire == "anthropic" else OPENAI)}


def anthropic_stream(*blocks: list[dict[str, Any]], stop: str = "end_turn", **usage: int) -> Raw:
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 9, "output_tokens": 1, "cache_read_input_tokens": 4},
    }
    end = {"stop_reason": stop, "stop_sequence": None}
    return raw_stream(
        sse(
            {"type": "message_start", "message": message},
            *(event for block in blocks for event in block),
            {"type": "message_delta", "delta": end, "usage": {"output_tokens": 30, **usage}},
            {"type": "message_stop"},
        )
    )


def start(index: int, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def grow(index: int, kind: str, **delta: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **delta}}


def use(index: int, call_id: str = "toolu_1", **more: Any) -> dict[str, Any]:
    return start(index, type="tool_use", **{"id": call_id, "name": "add", "input": {}, **more})


ANTHROPIC = {
    "redacted thinking": anthropic_stream(
        [start(0, type="redacted_thinking", data="x==")],
        [start(1, type="text", text=""), grow(1, "text_delta", text="ok")],
    ),
    "thinking with a signature only": anthropic_stream(
        [
            start(0, type="thinking", thinking="", signature=""),
            grow(0, "signature_delta", signature="c2ln"),
        ]
    ),
    "interleaved calls": anthropic_stream(
        [use(0), use(1, "toolu_2")],
        [
            grow(1, "input_json_delta", partial_json='{"y":'),
            grow(0, "input_json_delta", partial_json='{"x": '),
            grow(1, "input_json_delta", partial_json=" 2}"),
            grow(0, "input_json_delta", partial_json="1}"),
        ],
        stop="tool_use",
    ),
    "repeated ids": anthropic_stream([use(0, "same")], [use(1, "same")], stop="tool_use"),
    "arguments at the start": anthropic_stream([use(0, input={"x": 1})], stop="tool_use"),
    "usage told again at the end": anthropic_stream(
        [start(0, type="text", text="x")],
        input_tokens=100,
        cache_read_input_tokens=50,
        cache_creation_input_tokens=25,
    ),
    "cut by max_tokens": anthropic_stream([start(0, type="text", text="ha")], stop="max_tokens"),
    "pause": anthropic_stream([start(0, type="text", text="x")], stop="pause_turn"),
    "refusal": anthropic_stream([start(0, type="text", text="x")], stop="refusal"),
    "stop sequence": anthropic_stream([start(0, type="text", text="x")], stop="stop_sequence"),
}


def chunk(delta: Any = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    frame = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt"}
    choices = [{"index": 0, "delta": delta or {}, "finish_reason": finish}]
    return {**frame, "choices": choices, **more}


def call_chunk(index: int, call_id: str | None = None, **function: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"index": index, "function": function}
    if call_id is not None:
        entry = {**entry, "id": call_id, "type": "function"}
    return chunk({"tool_calls": [entry]})


def openai_stream(*chunks: dict[str, Any]) -> Raw:
    return raw_stream([*sse(*chunks), b"data: [DONE]\n\n"])


OPENAI = {
    "interleaved calls": openai_stream(
        call_chunk(0, "a", name="add", arguments=""),
        call_chunk(1, "b", name="sub", arguments=""),
        call_chunk(1, arguments='{"y":'),
        call_chunk(0, arguments='{"x": 1}'),
        call_chunk(1, arguments=" 2}"),
        chunk(finish="tool_calls"),
    ),
    "equal ids": openai_stream(
        call_chunk(0, "a", name="add", arguments="{}"),
        call_chunk(1, "a", name="sub", arguments="{}"),
        chunk(finish="tool_calls"),
    ),
    "refusal": openai_stream(
        chunk({"role": "assistant", "content": None, "refusal": "I "}),
        chunk({"refusal": "won't."}),
        chunk(finish="stop"),
    ),
    "usage in the last chunk": openai_stream(
        chunk({"content": "x"}),
        chunk(
            finish="stop", usage={"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
        ),
    ),
}


def ours(wire: str, answer: Answer, *, stream: bool = True) -> Completion:
    with ModelServer([answer]) as server:
        kind: Any = AnthropicProvider if wire == "anthropic" else OpenAIProvider
        provider = kind(model="m", base_url=server.url)
        return asyncio.run(provider.complete(REQUEST, Recorder() if stream else None))


def of_anthropic(answer: Answer, *, stream: bool = True) -> anthropic.types.Message:
    asked: Any = {"model": "m", "max_tokens": 99, "messages": ASKED}
    with (
        ModelServer([answer]) as server,
        anthropic.Anthropic(api_key="k", base_url=server.url, max_retries=0) as client,
    ):
        if not stream:
            return client.messages.create(**asked)
        with client.messages.stream(**asked) as events:
            return events.get_final_message()


def of_openai(answer: Answer, *, stream: bool = True) -> openai.types.chat.ChatCompletion:
    asked: Any = {"model": "m", "messages": ASKED}
    with (
        ModelServer([answer]) as server,
        openai.OpenAI(api_key="k", base_url=server.url, max_retries=0) as client,
    ):
        if not stream:
            return client.chat.completions.create(**asked)
        asked["stream_options"] = {"include_usage": True}
        with client.chat.completions.stream(**asked) as events:
            return events.get_final_completion()


def fields(completion: Completion) -> dict[str, Any]:
    """What a caller sees of our completion, in words that both wires have."""
    return {
        "text": completion.message.text,
        "calls": [(c.id, c.name, c.arguments) for c in completion.message.tool_calls],
        "thinking": [p.data for p in completion.parts if isinstance(p, ThinkingPart)],
        "stop": completion.stop_reason,
        "usage": completion.usage,
        "model": completion.model,
    }


def anthropic_fields(message: anthropic.types.Message) -> dict[str, Any]:
    blocks: list[Any] = message.content
    usage: Any = message.usage
    details = usage.output_tokens_details
    return {
        "text": "".join(block.text for block in blocks if block.type == "text"),
        "calls": [(b.id, b.name, b.input) for b in blocks if b.type == "tool_use"],
        "thinking": [b.to_dict() for b in blocks if b.type.endswith("thinking")],
        "stop": message.stop_reason,
        "usage": Usage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cache_read_input_tokens or 0,
            cache_write_tokens=usage.cache_creation_input_tokens or 0,
            reasoning_tokens=details.thinking_tokens if details else 0,
        ),
        "model": message.model,
    }


FINISH = {
    "stop": "end_turn",
    "tool_calls": "tool_use",
    "length": "max_tokens",
    "content_filter": "refusal",
}


def openai_fields(completion: openai.types.chat.ChatCompletion) -> dict[str, Any]:
    message: Any = completion.choices[0].message
    usage: Any = completion.usage
    prompt = getattr(usage, "prompt_tokens_details", None)
    output = getattr(usage, "completion_tokens_details", None)
    read, write = getattr(prompt, "cached_tokens", 0), getattr(prompt, "cache_write_tokens", 0)
    reasoning = getattr(message, "reasoning_content", None)
    return {
        "text": (message.content or "") + (message.refusal or ""),
        "calls": [
            (call.id, call.function.name, json.loads(call.function.arguments))
            for call in message.tool_calls or ()
        ],
        "thinking": [{"reasoning_content": reasoning}] if reasoning else [],
        "stop": "refusal" if message.refusal else FINISH[completion.choices[0].finish_reason],
        "usage": Usage(
            input_tokens=usage.prompt_tokens - read - write,
            output_tokens=usage.completion_tokens,
            cache_read_tokens=read,
            cache_write_tokens=write,
            reasoning_tokens=getattr(output, "reasoning_tokens", 0),
        )
        if usage
        else Usage(),
        "model": completion.model,
    }


@pytest.mark.parametrize("name", recorded("anthropic"))
def test_the_anthropic_package_reads_every_recorded_stream_as_we_do(name: str) -> None:
    stream = recorded("anthropic")[name]
    assert anthropic_fields(of_anthropic(stream)) == fields(ours("anthropic", stream))


@pytest.mark.parametrize("name", recorded("openai"))
def test_the_openai_package_reads_every_recorded_stream_as_we_do(name: str) -> None:
    stream = recorded("openai")[name]
    assert openai_fields(of_openai(stream)) == fields(ours("openai", stream))


@pytest.mark.parametrize("name", REPLIES)
def test_both_packages_read_the_server_s_whole_replies_as_we_do(name: str) -> None:
    reply = REPLIES[name]
    whole = anthropic_fields(of_anthropic(reply, stream=False))
    assert whole == fields(ours("anthropic", reply, stream=False))
    whole = openai_fields(of_openai(reply, stream=False))
    assert whole == fields(ours("openai", reply, stream=False))


def test_the_requests_that_we_send_are_those_that_the_packages_send() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    tool = ToolSpec(name="look", description="Looks.", input_schema=schema, ref="x")
    request = ModelRequest(
        system="be brief",
        messages=(user_message("hello"), calls("a", arguments={"x": 1}), results("a")),
        tools=(tool,),
        tool_choice=ToolChoice(type="tool", name="look"),
        max_tokens=99,
    )
    with ModelServer(["x"] * 4) as server:
        ask_both_packages(server.url, schema)
        for kind in (AnthropicProvider, OpenAIProvider):
            asyncio.run(kind(model="m", base_url=server.url).complete(request))
        theirs, mine = server.requests[:2], server.requests[2:]
    assert [each.json for each in theirs] == [each.json for each in mine]


def ask_both_packages(url: str, schema: dict[str, Any]) -> None:
    """The same request through both packages, in their own words."""
    named: dict[str, Any] = {"name": "look", "description": "Looks."}
    messages_tools: list[Any] = [{**named, "input_schema": schema}]
    chat_tools: list[Any] = [{"type": "function", "function": {**named, "parameters": schema}}]
    arguments = json.dumps({"x": 1}, separators=(",", ":"))
    blocks: list[Any] = [
        {"role": "user", "content": [{"type": "text", "text": "hello"}]},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "a", "name": "look", "input": {"x": 1}}],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "a", "content": "seen"}],
        },
    ]
    function: Any = {"name": "look", "arguments": arguments}
    chat: list[Any] = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hello"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "a", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "a", "content": "seen"},
    ]
    with anthropic.Anthropic(api_key="k", base_url=url) as client:
        client.messages.create(
            model="m",
            max_tokens=99,
            system="be brief",
            messages=blocks,
            tools=messages_tools,
            tool_choice={"type": "tool", "name": "look"},
        )
    with openai.OpenAI(api_key="k", base_url=url) as chat_client:
        chat_client.chat.completions.create(
            model="m",
            max_tokens=99,
            messages=chat,
            tools=chat_tools,
            tool_choice={"type": "function", "function": {"name": "look"}},
        )


@pytest.mark.parametrize("effort", ["low", "medium", "high"])
def test_the_anthropic_package_accepts_our_thinking_and_caching_fields(
    effort: ReasoningEffort,
) -> None:
    provider = AnthropicProvider(model="m", prompt_caching=True)
    request = ModelRequest(
        system="s",
        messages=(user_message("a"), calls(), user_message("b")),
        max_tokens=8192,
        reasoning_effort=effort,
    )
    body = json.loads(provider.build_request(request))
    with ModelServer(["x"]) as server:
        with anthropic.Anthropic(api_key="k", base_url=server.url) as client:
            client.messages.create(**body)
        assert body == server.requests[0].json


# The differences, each on purpose.


def test_difference_broken_tool_json_is_malformed_where_the_package_guesses() -> None:
    broken = anthropic_stream(
        [use(0), grow(0, "input_json_delta", partial_json='{"path": "/tm')], stop="max_tokens"
    )
    guessed: Any = of_anthropic(broken).content[0]
    assert {"path": "/tm"} == guessed.input or {} == guessed.input
    expected = ToolCall(id="toolu_1", name="add", arguments={}, malformed='{"path": "/tm')
    assert (expected,) == ours("anthropic", broken).parts


def test_difference_a_stream_without_its_final_event_is_truncated_not_a_message() -> None:
    cut = raw_stream(stream_events("anthropic", REPLIES["text"])[:-2])
    assert of_anthropic(cut).stop_reason is None
    with pytest.raises(TruncatedStream):
        ours("anthropic", cut)


@pytest.mark.parametrize(
    ("word", "error"),
    [
        ("length", openai.LengthFinishReasonError),
        ("content_filter", openai.ContentFilterFinishReasonError),
    ],
)
def test_difference_a_reply_cut_by_length_or_filter_is_a_completion_not_an_error(
    word: str, error: Any
) -> None:
    cut = openai_stream(chunk({"content": "half a"}), chunk(finish=word))
    with pytest.raises(error) as caught:
        of_openai(cut)
    assert openai_fields(caught.value.completion) == fields(ours("openai", cut))


def test_difference_a_full_context_window_has_our_word() -> None:
    full = anthropic_stream([start(0, type="text", text="x")], stop="model_context_window_exceeded")
    assert "model_context_window_exceeded" == of_anthropic(full).stop_reason
    assert "context_too_long" == ours("anthropic", full).stop_reason


def test_difference_a_stop_with_calls_means_to_run_them() -> None:
    stopped = openai_stream(call_chunk(0, "a", name="add", arguments="{}"), chunk(finish="stop"))
    assert "stop" == of_openai(stopped).choices[0].finish_reason
    assert "tool_use" == ours("openai", stopped).stop_reason


def test_difference_an_id_that_every_delta_repeats_is_taken_once() -> None:
    repeated = openai_stream(
        call_chunk(0, "a", name="add", arguments='{"x"'),
        call_chunk(0, "a", name="add", arguments=": 1}"),
        chunk(finish="tool_calls"),
    )
    theirs: Any = of_openai(repeated).choices[0].message.tool_calls
    assert ("aa", "addadd") == (theirs[0].id, theirs[0].function.name)
    assert [("a", "add", {"x": 1})] == fields(ours("openai", repeated))["calls"]


def test_difference_calls_that_share_an_index_are_two() -> None:
    shared = openai_stream(
        call_chunk(0, "a", name="add", arguments="{}"),
        call_chunk(0, "b", name="add", arguments="{}"),
        chunk(finish="tool_calls"),
    )
    theirs: Any = of_openai(shared).choices[0].message.tool_calls
    assert 1 == len(theirs)
    assert ["a", "b"] == [call.id for call in ours("openai", shared).message.tool_calls]


def test_difference_blocks_that_are_not_ours_to_run_are_left_out() -> None:
    searched = anthropic_stream(
        [start(0, type="server_tool_use", id="s", name="web_search", input={})],
        [start(1, type="text", text="found")],
    )
    assert ["server_tool_use", "text"] == [b.type for b in of_anthropic(searched).content]
    assert ("found",) == tuple(p.text for p in ours("anthropic", searched).parts)  # type: ignore[union-attr]


def test_both_packages_and_we_refuse_an_error_in_the_stream() -> None:
    error = sse({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}})
    begun = raw_stream([*stream_events("anthropic", REPLIES["text"])[:4], *error])
    with pytest.raises(anthropic.APIStatusError):
        of_anthropic(begun)
    with pytest.raises(ProviderError):
        ours("anthropic", begun)
    failed = openai_stream(chunk({"content": "x"}), {"error": {"message": "busy", "code": 529}})
    with pytest.raises(openai.APIError):
        of_openai(failed)
    with pytest.raises(ProviderError):
        ours("openai", failed)
