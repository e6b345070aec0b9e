"""The chat completions wire: what is sent for a request, and what is read from a reply."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given

from heartbit.core.messages import (
    Completion,
    Json,
    Message,
    Part,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResult,
    Usage,
    user_message,
)
from heartbit.core.request import ModelRequest
from heartbit.core.tools import ToolChoice, ToolSpec
from heartbit.errors import MalformedReply, Overloaded, RateLimited, ServerFailure
from heartbit.providers.openai import OpenAIProvider, OpenRouterProvider
from heartbit.providers.openai_reply import OpenAIStream, parse_response
from tests.support.conversations import any_text, assistant, calls, conversations, results
from tests.support.listening import Recorder
from tests.support.model_server import Call, ModelServer, Reply, json_answer

ADD = ToolSpec(name="add", description="Adds.", input_schema={"type": "object"}, ref="x")
LOCAL = "http://localhost:11434/v1"


def request(*messages: Message, **fields: Any) -> ModelRequest:
    fields = {"system": "", **fields}
    return ModelRequest(messages=messages or (user_message("hello"),), **fields)


def sent(
    asked: ModelRequest, *, stream: bool = False, provider: OpenAIProvider | None = None
) -> Json:
    provider = provider or OpenAIProvider(model="gpt", base_url=LOCAL)
    body: Json = json.loads(provider.build_request(asked, stream=stream))
    return body


def wire(*messages: Message, **fields: Any) -> list[Json]:
    found: list[Json] = sent(request(*messages, **fields))["messages"]
    return found


def reply(stop: str | None = "stop", provider: str = "openai", **message: Any) -> Completion:
    return parse_response({"choices": [{"message": message, "finish_reason": stop}]}, provider)


def wire_call(name: str = "add", arguments: Any = "{}", call_id: Any = "a") -> Json:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def message(role: Any, *parts: Part) -> Message:
    return Message(role=role, parts=parts)


def test_the_smallest_request_has_no_empty_field() -> None:
    expected = {
        "model": "gpt",
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": "hello"}],
    }
    assert expected == sent(request())
    streaming = {"stream": True, "stream_options": {"include_usage": True}}
    assert {**expected, **streaming} == sent(request(), stream=True)


def test_openai_itself_gets_the_new_name_of_the_limit_and_all_others_the_old_one() -> None:
    official = sent(request(max_tokens=7), provider=OpenAIProvider(model="gpt"))
    assert (7, False) == (official["max_completion_tokens"], "max_tokens" in official)
    router = sent(request(max_tokens=7), provider=OpenRouterProvider(model="a/b"))
    assert (7, False) == (router["max_tokens"], "max_completion_tokens" in router)
    assert 7 == sent(request(max_tokens=7))["max_tokens"]


def test_a_model_that_the_request_names_is_asked_in_place_of_the_own_one() -> None:
    assert "other" == sent(request(model="other"))["model"]


def test_system_comes_first_and_tools_are_functions() -> None:
    body = sent(request(system='Say "hi" 😀\n', tools=(ADD,)))
    assert {"role": "system", "content": 'Say "hi" 😀\n'} == body["messages"][0]
    shown = {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}
    assert [{"type": "function", "function": shown}] == body["tools"]
    assert "tool_choice" not in body


@pytest.mark.parametrize(
    ("choice", "shown"),
    [
        (ToolChoice(type="auto"), "auto"),
        (ToolChoice(type="any"), "required"),
        (ToolChoice(type="tool", name="add"), {"type": "function", "function": {"name": "add"}}),
    ],
)
def test_a_tool_choice_is_sent_with_tools_only(choice: ToolChoice, shown: Any) -> None:
    assert shown == sent(request(tools=(ADD,), tool_choice=choice))["tool_choice"]
    assert "tool_choice" not in sent(request(tool_choice=choice))


@pytest.mark.parametrize("effort", ["low", "medium", "high"])
def test_each_house_has_its_own_word_for_reasoning_effort(effort: Any) -> None:
    body = sent(request(reasoning_effort=effort))
    assert (effort, False) == (body["reasoning_effort"], "reasoning" in body)
    router = sent(request(reasoning_effort=effort), provider=OpenRouterProvider(model="a/b"))
    assert ({"effort": effort}, False) == (router["reasoning"], "reasoning_effort" in router)


def test_no_reasoning_is_a_word_at_openrouter_and_silence_elsewhere() -> None:
    assert "reasoning_effort" not in sent(request(reasoning_effort="none"))
    router = sent(request(reasoning_effort="none"), provider=OpenRouterProvider(model="a/b"))
    assert {"effort": "none"} == router["reasoning"]


def test_a_round_of_tools_goes_out_as_calls_and_tool_messages() -> None:
    asked = message(
        "assistant", TextPart(text="Let me."), ToolCall(id="a", name="add", arguments={"x": "ü"})
    )
    answered = message(
        "user",
        ToolResult(call_id="a", content="2"),
        TextPart(text="and now?"),
    )
    expected_call = wire_call("add", '{"x":"ü"}')
    assert [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "Let me.", "tool_calls": [expected_call]},
        {"role": "tool", "tool_call_id": "a", "content": "2"},
        {"role": "user", "content": "and now?"},
    ] == wire(user_message("hello"), asked, answered)


def test_a_reply_of_calls_only_has_no_content() -> None:
    assert wire(user_message("x"), calls("a"), results("a"))[1]["content"] is None


def test_a_failed_result_says_so_in_its_text() -> None:
    failed = message("user", ToolResult(call_id="a", content="no", is_error=True))
    assert "[ERROR] no" == wire(user_message("x"), calls("a"), failed)[-1]["content"]


@pytest.mark.parametrize("empty", ["", " ", "\n\t"])
def test_empty_text_is_never_sent(empty: str) -> None:
    hollow = message("assistant", TextPart(text=empty))
    both = message("user", TextPart(text=empty), TextPart(text="b"))
    got = wire(user_message("a"), hollow, both, system=empty)
    assert [{"role": "user", "content": "a\n\nb"}] == got


def test_consecutive_messages_of_one_role_become_one() -> None:
    pair = message("user", TextPart(text='b"'), TextPart(text="c"))
    got = wire(user_message("a"), pair, assistant("1"), calls("x"), calls("y"), results("x", "y"))
    assert ["user", "assistant", "tool", "tool"] == [entry["role"] for entry in got]
    assert 'a\n\nb"\n\nc' == got[0]["content"]
    assert ("1", ["x", "y"]) == (got[1]["content"], [call["id"] for call in got[1]["tool_calls"]])
    assert ["x", "y"] == [entry["tool_call_id"] for entry in got[2:]]
    assert [{"role": "user", "content": "a\n\nb"}] == wire(user_message("a"), user_message("b"))


def test_texts_of_one_reply_are_one_text() -> None:
    reply_in_two = message("assistant", TextPart(text="a "), TextPart(text="b"))
    assert "a b" == wire(user_message("x"), reply_in_two)[1]["content"]


def test_a_call_without_a_name_can_be_sent_back() -> None:
    nameless = message("assistant", ToolCall(id="a", name="", arguments={}))
    sent_back = wire(user_message("x"), nameless, results("a"))[1]["tool_calls"][0]
    assert "unnamed" == sent_back["function"]["name"]


def test_malformed_arguments_go_back_as_valid_json_never_raw() -> None:
    broken = ToolCall(id="a", name="add", arguments={}, malformed='{"x": ')
    got = wire(user_message("x"), message("assistant", broken), results("a"))
    assert "{}" == got[1]["tool_calls"][0]["function"]["arguments"]


def wire_pairs(*messages: Message) -> tuple[list[str], list[str]]:
    """The ids of the calls and of the results on the wire, in order."""
    entries = wire(*messages)
    asked = [call["id"] for entry in entries for call in entry.get("tool_calls", ())]
    return asked, [entry["tool_call_id"] for entry in entries if entry["role"] == "tool"]


def test_repeated_and_empty_ids_are_unique_on_the_wire_and_meet_their_results() -> None:
    history = (user_message("x"), calls("s", "s", ""), results("s", "s", ""), calls("s"))
    asked, answered = wire_pairs(*history, results("s"))
    assert ["s", "s_2", "call", "s_3"] == asked == answered
    rounds = (calls("a"), results("a"), calls("a"), results("a"))
    assert (["a", "a_2"],) * 2 == wire_pairs(user_message("x"), *rounds)


def test_an_id_is_kept_as_the_server_chose_it() -> None:
    asked, answered = wire_pairs(user_message("x"), calls("functions.add:0"), results("-"))
    assert ["functions.add:0"] == asked == answered


@given(conversations())
def test_every_conversation_alternates_and_answers_each_call(messages: tuple[Message, ...]) -> None:
    asked, answered = wire_pairs(*messages)
    assert asked == answered
    roles = [entry["role"] for entry in wire(*messages)]
    assert all(a != b for a, b in pairwise(roles) if a != "tool")


@given(any_text, any_text)
@example("\ud800", "\udfff\ud83d\ude00")
def test_any_text_at_all_makes_a_valid_body(system: str, words: str) -> None:
    body = OpenAIProvider(model="m").build_request(request(user_message(words), system=system))
    json.loads(body.decode("utf-8", "strict"))


@pytest.mark.parametrize(
    "data",
    [
        {"reasoning_details": [{"type": "reasoning.text", "text": "hm", "signature": "s"}]},
        {"reasoning_content": "hm"},
        {"reasoning": "hm"},
    ],
)
def test_reasoning_goes_back_as_it_came_and_only_to_where_it_came_from(data: Json) -> None:
    got = reply(provider="openrouter", content="hi", **data)
    thought = ThinkingPart(provider="openrouter", data=data)
    assert (thought, TextPart(text="hi")) == got.parts
    asked = request(user_message("x"), got.message, user_message("y"))
    back = sent(asked, provider=OpenRouterProvider(model="a/b"))["messages"][1]
    assert {"role": "assistant", "content": "hi", **data} == back
    assert {"role": "assistant", "content": "hi"} == sent(asked)["messages"][1]


def test_details_are_preferred_to_the_plain_text_of_the_same_reasoning() -> None:
    details = [{"type": "reasoning.encrypted", "data": "x="}]
    got = reply(reasoning="hm", reasoning_details=details)
    assert (ThinkingPart(provider="openai", data={"reasoning_details": details}),) == got.parts


def test_text_and_calls_are_read() -> None:
    got = reply("tool_calls", content="Let me.", tool_calls=[wire_call(arguments='{"x": 1}')])
    expected_call = ToolCall(id="a", name="add", arguments={"x": 1})
    assert (TextPart(text="Let me."), expected_call) == got.parts
    assert "tool_use" == got.stop_reason


def test_content_in_typed_pieces_is_read() -> None:
    pieces = [{"type": "thinking"}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert (TextPart(text="ab"),) == reply(content=pieces).parts


@pytest.mark.parametrize(
    ("word", "ours"),
    [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("content_filter", "refusal"),
        ("tool_calls", "end_turn"),  # without a call there is nothing to run
        ("function_call", "end_turn"),
        ("something_new", "end_turn"),
        (None, "end_turn"),
    ],
)
def test_every_finish_reason_has_its_meaning(word: str | None, ours: str) -> None:
    assert ours == reply(word, content="x").stop_reason


@pytest.mark.parametrize(
    ("word", "ours"),
    [
        ("tool_calls", "tool_use"),
        ("function_call", "tool_use"),
        ("stop", "tool_use"),
        (None, "tool_use"),
        ("length", "max_tokens"),
        ("content_filter", "refusal"),
    ],
)
def test_calls_are_to_be_run_unless_the_reply_was_cut(word: str | None, ours: str) -> None:
    assert ours == reply(word, tool_calls=[wire_call()]).stop_reason


def test_a_refusal_is_one_whatever_the_finish_reason_says() -> None:
    got = reply(content=None, refusal="I won't.")
    assert ("refusal", (TextPart(text="I won't."),)) == (got.stop_reason, got.parts)


@pytest.mark.parametrize(
    ("raw", "arguments", "malformed"),
    [
        ("{}", {}, None),
        ("", {}, None),
        (" \n", {}, None),
        (None, {}, None),
        ({"a": 1}, {"a": 1}, None),
        ('{"a": 1', {}, '{"a": 1'),
        ("[1]", {}, "[1]"),
        ("null", {}, "null"),
        ('{"a": NaN}', {}, '{"a": NaN}'),
        ('{"a": 1e999}', {}, '{"a": 1e999}'),
        ("[" * 100_000, {}, "[" * 100_000),
    ],
)
def test_arguments_that_are_no_object_are_malformed_and_never_guessed(
    raw: Any, arguments: Json, malformed: str | None
) -> None:
    expected = ToolCall(id="a", name="add", arguments=arguments, malformed=malformed)
    assert (expected,) == reply("tool_calls", tool_calls=[wire_call(arguments=raw)]).parts


def usage_of(usage: Any) -> Usage:
    data = {"choices": [{"message": {"content": "x"}}], "usage": usage}
    return parse_response(data, "openai").usage


def test_cached_and_reasoning_tokens_are_found_in_the_details() -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 30,
        "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10},
        "completion_tokens_details": {"reasoning_tokens": 20},
    }
    assert Usage(
        input_tokens=30,
        output_tokens=30,
        cache_read_tokens=60,
        cache_write_tokens=10,
        reasoning_tokens=20,
    ) == usage_of(usage)


@pytest.mark.parametrize("usage", [None, [], {}, {"prompt_tokens": -5}, {"prompt_tokens": "9"}])
def test_usage_that_makes_no_sense_counts_nothing(usage: Any) -> None:
    assert Usage() == usage_of(usage)


def test_more_cached_than_prompt_tokens_never_count_below_zero() -> None:
    usage = {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 9}}
    assert Usage(cache_read_tokens=9) == usage_of(usage)


@pytest.mark.parametrize(
    ("cost", "ours"), [(0.25, 0.25), (0, 0.0), (True, None), (-1, None), ("1", None)]
)
def test_openrouter_tells_the_cost_and_nobody_else_is_believed(
    cost: Any, ours: float | None
) -> None:
    data = {"choices": [{"message": {"content": "x"}}], "usage": {"cost": cost}}
    assert ours == parse_response(data, "openrouter").cost_usd
    assert parse_response(data, "openai").cost_usd is None


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"choices": "x"},
        {"choices": [1]},
        {"choices": [{"message": "x"}]},
        {"choices": [{"message": {"content": {}}}]},
        {"choices": [{"message": {"tool_calls": {}}}]},
        {"choices": [{"message": {"tool_calls": [{"id": 5}]}}]},
    ],
)
def test_a_body_that_is_no_completion_is_malformed(data: Json) -> None:
    with pytest.raises(MalformedReply):
        parse_response(data, "openai")


def test_a_reply_without_choices_is_the_server_s_failure_and_worth_another_try() -> None:
    with pytest.raises(ServerFailure):
        parse_response({"choices": []}, "openrouter")


def test_an_error_in_a_200_answer_is_its_class() -> None:
    whole = json_answer({"error": {"code": 429, "message": "slow down"}})
    choice = {"error": {"type": "overloaded_error"}, "finish_reason": "error"}
    with ModelServer([whole, whole, json_answer({"choices": [choice]})]) as server:
        provider = OpenRouterProvider(model="m", base_url=server.url)
        for listener in (None, Recorder()):
            with pytest.raises(RateLimited, match="slow down"):
                asyncio.run(provider.complete(request(), listener))
        with pytest.raises(Overloaded):
            asyncio.run(provider.complete(request()))


def test_a_call_over_a_socket_is_the_same_streamed_and_not() -> None:
    said = Reply(
        text="Grüße 😀",
        thinking="hm",
        calls=(Call(name="add", arguments={"a": 1}, id="c1"), Call(name="now", id="c2")),
        cache_read_tokens=7,
        cache_write_tokens=3,
        reasoning_tokens=2,
        piece=1,
    )
    recorder = Recorder()
    with ModelServer([said, said]) as server:
        provider = OpenAIProvider(model="gpt", base_url=server.url + "/v1")
        plain = asyncio.run(provider.complete(request()))
        streamed = asyncio.run(provider.complete(request(), recorder))
        assert {"/v1/chat/completions"} == {each.path for each in server.requests}
    assert plain == streamed
    assert list("Grüße 😀") == recorder.heard
    assert (10, 7, 3, 2) == (
        plain.usage.input_tokens,
        plain.usage.cache_read_tokens,
        plain.usage.cache_write_tokens,
        plain.usage.reasoning_tokens,
    )


def fed(*deltas: Json, finish: str | None = "tool_calls") -> Completion:
    """What a stream of these deltas makes."""
    stream = OpenAIStream("openrouter")
    for delta in deltas:
        stream.feed("message", json.dumps({"choices": [{"delta": delta}]}))
    stream.feed("message", json.dumps({"choices": [{"delta": {}, "finish_reason": finish}]}))
    return stream.finish()


def call_delta(index: int | None = None, call_id: str | None = None, **function: str) -> Json:
    entry = {"index": index, "id": call_id, "function": function}
    return {"tool_calls": [{key: value for key, value in entry.items() if value is not None}]}


def seen(completion: Completion) -> list[tuple[str, str, Json]]:
    return [(c.id, c.name, c.arguments) for c in completion.message.tool_calls]


def test_parallel_calls_may_be_interleaved() -> None:
    got = fed(
        call_delta(0, "a", name="add", arguments=""),
        call_delta(1, "b", name="sub", arguments=""),
        call_delta(1, arguments='{"x"'),
        call_delta(0, arguments='{"y": 2}'),
        call_delta(1, arguments=": 1}"),
    )
    assert [("a", "add", {"y": 2}), ("b", "sub", {"x": 1})] == seen(got)


def test_calls_under_one_index_are_told_apart_by_their_ids() -> None:
    got = fed(
        call_delta(0, "a", name="add", arguments='{"x": 1}'),
        call_delta(0, "b", name="add", arguments='{"x": 2}'),
    )
    assert [("a", "add", {"x": 1}), ("b", "add", {"x": 2})] == seen(got)


def test_calls_without_an_index_are_told_apart_by_id_or_name() -> None:
    got = fed(
        call_delta(None, "a", name="add", arguments='{"x"'),
        call_delta(None, arguments=": 1}"),
        call_delta(None, "b", name="add", arguments="{}"),
        call_delta(None, name="sub", arguments="{}"),
    )
    assert [("a", "add", {"x": 1}), ("b", "add", {}), ("", "sub", {})] == seen(got)


def test_arguments_that_stream_as_an_object_are_taken_as_one() -> None:
    whole = {"index": 0, "id": "a", "function": {"name": "add", "arguments": {"x": 1}}}
    assert [("a", "add", {"x": 1})] == seen(fed({"tool_calls": [whole]}))


def test_an_id_and_a_name_that_every_delta_repeats_are_taken_once() -> None:
    got = fed(
        call_delta(0, "a", name="add", arguments='{"x"'),
        call_delta(0, "a", name="add", arguments=": 1}"),
    )
    assert [("a", "add", {"x": 1})] == seen(got)


def test_equal_ids_under_two_indices_are_two_calls() -> None:
    got = fed(
        call_delta(0, "a", name="add", arguments="{}"),
        call_delta(1, "a", name="sub", arguments="{}"),
    )
    assert [("a", "add", {}), ("a", "sub", {})] == seen(got)


def test_streamed_reasoning_details_are_joined_piece_by_piece() -> None:
    pieces = [
        {"type": "reasoning.text", "index": 0, "text": "Let ", "signature": None},
        {"type": "reasoning.text", "index": 0, "text": "me.", "signature": None},
        {"type": "reasoning.text", "index": 0, "signature": "c2ln"},
        {"type": "reasoning.text", "index": 0, "signature": None},
        {"type": "reasoning.encrypted", "index": 1, "data": "x="},
    ]
    got = fed(*({"reasoning_details": [piece]} for piece in pieces), {"content": "hi"})
    joined = {"type": "reasoning.text", "index": 0, "text": "Let me.", "signature": "c2ln"}
    expected = {"reasoning_details": [joined, pieces[-1]]}
    assert (ThinkingPart(provider="openrouter", data=expected), TextPart(text="hi")) == got.parts


def test_a_streamed_refusal_is_heard_and_is_one() -> None:
    got = fed({"refusal": "I "}, {"refusal": "won't."}, finish="stop")
    assert ("refusal", (TextPart(text="I won't."),)) == (got.stop_reason, got.parts)


def test_other_choices_than_the_first_are_not_heard() -> None:
    stream = OpenAIStream("openai")
    other = {"index": 1, "delta": {"content": "no"}, "finish_reason": "length"}
    mine = {"index": 0, "delta": {"content": "yes"}, "finish_reason": "stop"}
    assert ["yes"] == stream.feed("message", json.dumps({"choices": [other, mine]}))
    assert ("yes", "end_turn") == (stream.finish().message.text, stream.finish().stop_reason)


def test_what_a_chunk_told_is_not_lost_by_a_later_one_without_it() -> None:
    stream = OpenAIStream("openai")
    usage = {"prompt_tokens": 7, "completion_tokens": 1}
    told = {"choices": [{"delta": {"content": "x"}, "finish_reason": "length"}], "usage": usage}
    empty = {"choices": [{"delta": {}, "finish_reason": None}], "usage": None}
    for chunk in (told, empty):
        stream.feed("message", json.dumps(chunk))
    assert Usage(input_tokens=7, output_tokens=1) == stream.usage == stream.finish().usage
    assert "max_tokens" == stream.finish().stop_reason
