"""The Messages wire: what is sent for a request, and what is read from a reply."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

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
from heartbit.errors import MalformedReply
from heartbit.providers.anthropic import AnthropicProvider
from heartbit.providers.anthropic_reply import AnthropicStream, parse_response
from tests.support.conversations import any_text, assistant, calls, conversations, results
from tests.support.listening import Recorder
from tests.support.model_server import Call, ModelServer, Reply, json_answer

ADD = ToolSpec(name="add", description="Adds.", input_schema={"type": "object"}, ref="x")
SUB = ToolSpec(name="sub", description="", input_schema={"type": "object"}, ref="x")
MARK = {"type": "ephemeral"}
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}


def request(*messages: Message, **fields: Any) -> ModelRequest:
    fields = {"system": "", **fields}
    return ModelRequest(messages=messages or (user_message("hello"),), **fields)


def sent(asked: ModelRequest, *, stream: bool = False, caching: bool = False) -> Json:
    provider = AnthropicProvider(model="claude", prompt_caching=caching)
    body: Json = json.loads(provider.build_request(asked, stream=stream))
    return body


def contents(*messages: Message) -> list[tuple[str, list[Json]]]:
    return [(m["role"], m["content"]) for m in sent(request(*messages))["messages"]]


def reply(*blocks: Json, stop: str | None = "end_turn", **more: Any) -> Completion:
    return parse_response({"content": list(blocks), "stop_reason": stop, **more})


def text(words: str) -> Json:
    return {"type": "text", "text": words}


def message(role: Any, *parts: Part) -> Message:
    return Message(role=role, parts=parts)


def thought(**data: Any) -> ThinkingPart:
    return ThinkingPart(provider="anthropic", data={**THOUGHT, **data})


def test_the_smallest_request_has_no_empty_field() -> None:
    expected = {
        "model": "claude",
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": [text("hello")]}],
    }
    assert expected == sent(request())
    assert {**expected, "stream": True} == sent(request(), stream=True)


def test_a_model_that_the_request_names_is_asked_in_place_of_the_own_one() -> None:
    assert "other" == sent(request(model="other"))["model"]


def test_system_and_tools_are_sent() -> None:
    body = sent(request(system='Say "hi" 😀\n', tools=(ADD, SUB), max_tokens=7))
    assert ('Say "hi" 😀\n', 7) == (body["system"], body["max_tokens"])
    shown = {"name": "add", "description": "Adds.", "input_schema": {"type": "object"}}
    assert shown == body["tools"][0]
    assert ["add", "sub"] == [tool["name"] for tool in body["tools"]]
    assert "tool_choice" not in body


@pytest.mark.parametrize(
    ("choice", "wire"),
    [
        (ToolChoice(type="auto"), {"type": "auto"}),
        (ToolChoice(type="any"), {"type": "any"}),
        (ToolChoice(type="tool", name="add"), {"type": "tool", "name": "add"}),
    ],
)
def test_a_tool_choice_is_sent_with_tools_only(choice: ToolChoice, wire: Json) -> None:
    assert wire == sent(request(tools=(ADD,), tool_choice=choice))["tool_choice"]
    assert "tool_choice" not in sent(request(tool_choice=choice))


def test_a_round_of_tools_goes_out_as_calls_and_results() -> None:
    asked = message(
        "assistant", TextPart(text="Let me."), ToolCall(id="a", name="add", arguments={"x": 1})
    )
    answered = message(
        "user",
        ToolResult(call_id="a", content="2"),
    )
    assert [
        ("user", [text("hello")]),
        (
            "assistant",
            [text("Let me."), {"type": "tool_use", "id": "a", "name": "add", "input": {"x": 1}}],
        ),
        ("user", [{"type": "tool_result", "tool_use_id": "a", "content": "2"}]),
    ] == contents(user_message("hello"), asked, answered)


def test_a_failed_result_is_marked_as_an_error() -> None:
    failed = message("user", ToolResult(call_id="a", content="no", is_error=True))
    block = contents(user_message("x"), calls("a"), failed)[-1][1][0]
    assert block["is_error"] is True


@pytest.mark.parametrize("empty", ["", " ", "\n\t"])
def test_empty_text_is_never_sent(empty: str) -> None:
    hollow = message("assistant", TextPart(text=empty))
    both = message("user", TextPart(text=empty), TextPart(text="real"))
    assert [("user", [text("a"), text("real")])] == contents(user_message("a"), hollow, both)
    assert "system" not in sent(request(system=empty))


def test_consecutive_messages_of_one_role_become_one_with_the_results_first() -> None:
    got = contents(
        user_message("a"),
        user_message("b"),
        calls("c"),
        user_message("by the way"),
        results("c"),
    )
    assert ["user", "assistant", "user"] == [role for role, _ in got]
    assert [text("a"), text("b")] == got[0][1]
    assert ["tool_result", "text"] == [block["type"] for block in got[2][1]]
    assert [("user", [text("a"), text("b")])] == contents(user_message("a"), user_message("b"))


def test_malformed_arguments_go_back_as_valid_json_never_raw() -> None:
    broken = ToolCall(id="a", name="add", arguments={}, malformed='{"x": ')
    got = contents(user_message("x"), message("assistant", broken), results("a"))
    assert {} == got[1][1][0]["input"]


def wire_pairs(*messages: Message) -> tuple[list[str], list[str]]:
    """The ids of the calls and of the results on the wire, in order."""
    blocks = [block for _, content in contents(*messages) for block in content]
    asked = [block["id"] for block in blocks if block["type"] == "tool_use"]
    return asked, [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]


def test_repeated_and_empty_ids_are_unique_on_the_wire_and_meet_their_results() -> None:
    history = (
        user_message("x"),
        calls("same", "same", "", ""),
        results("same", "same", "", ""),
        calls("same"),
        results("same"),
    )
    asked, answered = wire_pairs(*history)
    assert asked == answered
    assert ["same", "same_2", "call", "call_2", "same_3"] == asked
    assert (asked, answered) == wire_pairs(*history)


def test_an_id_that_a_later_turn_repeats_is_unique_too() -> None:
    rounds = (calls("a"), results("a"), calls("a"), results("a"))
    assert (["a", "a_2"],) * 2 == wire_pairs(user_message("x"), *rounds)


def test_a_message_gets_its_id_back_when_the_first_of_that_name_has_left_the_window() -> None:
    first, again = (calls("a"), results("a")), (calls("a"), results("a"))
    task = (user_message("x"), user_message("y"))
    assert (["a", "a_2"],) * 2 == wire_pairs(*task, *first, *again)
    assert (["a"],) * 2 == wire_pairs(*task, *again)


def test_a_made_up_id_never_meets_a_real_one() -> None:
    asked, answered = wire_pairs(
        user_message("x"), calls("a", "a_2", "a", "call", ""), results("a", "a_2", "a", "call", "")
    )
    assert asked == answered
    assert 5 == len(set(asked))


def test_results_meet_their_calls_by_id_even_out_of_order() -> None:
    swapped = message(
        "user", ToolResult(call_id="b", content="B"), ToolResult(call_id="a", content="A")
    )
    assert (["a", "b"], ["b", "a"]) == wire_pairs(user_message("x"), calls("a", "b"), swapped)


def test_an_id_of_another_provider_is_made_legal_on_this_wire() -> None:
    asked, answered = wire_pairs(
        user_message("x"), calls("functions.add:0", "functions_add_0"), results("", "")
    )
    assert ["functions_add_0", "functions_add_0_2"] == asked == answered
    foreign = (user_message("x"), calls("add:0"), results("add:0"))
    assert (["add_0"], ["add_0"]) == wire_pairs(*foreign)


def test_a_call_without_a_name_can_be_sent_back() -> None:
    nameless = message("assistant", ToolCall(id="a", name="", arguments={}))
    assert "unnamed" == contents(user_message("x"), nameless, results("a"))[1][1][0]["name"]


@given(conversations(), st.booleans())
def test_every_conversation_alternates_and_answers_each_call(
    messages: tuple[Message, ...], caching: bool
) -> None:
    wire = sent(request(*messages), caching=caching)["messages"]
    roles = [entry["role"] for entry in wire]
    assert all(before != after for before, after in pairwise(roles))
    assert all(entry["content"] for entry in wire)
    asked, answered = wire_pairs(*messages)
    assert asked == answered


@given(any_text, any_text)
@example("\ud800", "\udfff\ud83d\ude00")
def test_any_text_at_all_makes_a_valid_body(system: str, words: str) -> None:
    body = AnthropicProvider(model="m").build_request(request(user_message(words), system=system))
    json.loads(body.decode("utf-8", "strict"))


def test_thinking_goes_back_exactly_and_only_to_where_it_came_from() -> None:
    redacted = {"type": "redacted_thinking", "data": "x=="}
    foreign = ThinkingPart(provider="openrouter", data={"reasoning_content": "secret"})
    mine = ThinkingPart(provider="anthropic", data=redacted)
    got = contents(user_message("a"), message("assistant", thought(), foreign, mine), results())
    assert [THOUGHT, redacted] == got[1][1]


@pytest.mark.parametrize(("effort", "budget"), [("low", 1024), ("medium", 2048), ("high", 3072)])
def test_reasoning_effort_is_a_share_of_max_tokens_with_room_for_the_answer(
    effort: Any, budget: int
) -> None:
    thinking = sent(request(reasoning_effort=effort, max_tokens=4096))["thinking"]
    assert {"type": "enabled", "budget_tokens": budget} == thinking


@pytest.mark.parametrize(("effort", "max_tokens"), [("low", 4095), ("high", 1365), ("none", 9999)])
def test_too_little_room_or_no_effort_leaves_thinking_off(effort: Any, max_tokens: int) -> None:
    assert "thinking" not in sent(request(reasoning_effort=effort, max_tokens=max_tokens))
    assert "thinking" not in sent(request(max_tokens=max_tokens))


def test_a_forced_call_is_not_sent_together_with_thinking() -> None:
    asked = {"tools": (ADD,), "tool_choice": ToolChoice(type="any"), "max_tokens": 4096}
    assert {"type": "auto"} == sent(request(reasoning_effort="low", **asked))["tool_choice"]
    assert {"type": "any"} == sent(request(reasoning_effort="none", **asked))["tool_choice"]


def test_thinking_is_not_begun_in_the_middle_of_a_turn_that_began_without() -> None:
    history = (user_message("x"), calls("a"), results("a"))
    assert "thinking" not in sent(request(*history, reasoning_effort="high"))
    began = message("assistant", thought(), *calls("a").parts)
    thinking = (user_message("x"), began, results("a"))
    assert "thinking" in sent(request(*thinking, reasoning_effort="high"))
    done = (*history, assistant("done"), user_message("next"))
    assert "thinking" in sent(request(*done, reasoning_effort="high"))


def test_prompt_caching_marks_system_last_tool_and_the_second_to_last_user_message() -> None:
    first = (user_message("a"), calls("1", "2"), results("1", "2"))
    body = sent(
        request(*first, calls("3"), results("3"), system="be", tools=(ADD, SUB)), caching=True
    )
    assert [{**text("be"), "cache_control": MARK}] == body["system"]
    assert ["cache_control" in tool for tool in body["tools"]] == [False, True]
    marked = [
        (place, block["tool_use_id"])
        for place, entry in enumerate(body["messages"])
        for block in entry["content"]
        if "cache_control" in block
    ]
    assert [(2, "2")] == marked
    assert 3 == json.dumps(body).count("cache_control")


def test_without_a_second_user_message_or_without_caching_none_is_marked() -> None:
    alone = sent(request(user_message("a")), caching=True)
    assert "cache_control" not in json.dumps(alone)
    plain = sent(request(user_message("a"), calls("1"), results("1"), system="s", tools=(ADD,)))
    assert "cache_control" not in json.dumps(plain)


def test_the_breakpoint_moves_on_without_a_trace() -> None:
    provider = AnthropicProvider(model="m", prompt_caching=True)
    history = (user_message("a"), calls("1"), results("1"))
    provider.build_request(request(*history))
    body = json.loads(provider.build_request(request(*history, calls("2"), results("2"))))
    marks = [json.dumps(entry).count("cache_control") for entry in body["messages"]]
    assert [0, 0, 1, 0, 0] == marks


def test_a_message_is_encoded_once_and_not_once_per_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    encodings: list[object] = []
    real = json.dumps

    def counted(value: object, **options: Any) -> str:
        encodings.append(value)
        return real(value, **options)

    provider = AnthropicProvider(model="m", prompt_caching=True)
    monkeypatch.setattr(json, "dumps", counted)
    for ids in (("1", "2"), ("same", "same")):
        history = [user_message("a"), calls(*ids), results(*ids)]
        provider.build_request(request(*history, tools=(ADD,)))
        encodings.clear()
        history += [calls("3"), results("3")]
        provider.build_request(request(*history, tools=(ADD,)))
        blocks = [value for value in encodings if isinstance(value, dict)]
        assert {"3"} == {block.get("id", block.get("tool_use_id")) for block in blocks}


def test_text_thinking_and_calls_are_read_in_order() -> None:
    got = reply(
        THOUGHT,
        text("Let me."),
        {"type": "tool_use", "id": "a", "name": "add", "input": {"x": 1}},
        {"type": "redacted_thinking", "data": "=="},
        stop="tool_use",
        model="claude-x",
    )
    assert (
        thought(),
        TextPart(text="Let me."),
        ToolCall(id="a", name="add", arguments={"x": 1}),
        ThinkingPart(provider="anthropic", data={"type": "redacted_thinking", "data": "=="}),
    ) == got.parts
    assert ("tool_use", "claude-x") == (got.stop_reason, got.model)


def test_unknown_and_empty_blocks_are_left_out() -> None:
    got = reply({"type": "server_tool_use", "id": "s"}, text(""), {"no": "type"}, text("x"))
    assert (TextPart(text="x"),) == got.parts


@pytest.mark.parametrize(
    ("wire", "ours"),
    [
        ("end_turn", "end_turn"),
        ("max_tokens", "max_tokens"),
        ("stop_sequence", "stop_sequence"),
        ("pause_turn", "pause_turn"),
        ("refusal", "refusal"),
        ("model_context_window_exceeded", "context_too_long"),
        ("tool_use", "end_turn"),  # without a call there is nothing to run
        ("something_new", "end_turn"),
        (None, "end_turn"),
    ],
)
def test_every_stop_reason_has_its_meaning(wire: str | None, ours: str) -> None:
    assert ours == reply(text("x"), stop=wire).stop_reason


@pytest.mark.parametrize(
    ("wire", "ours"),
    [
        ("tool_use", "tool_use"),
        ("end_turn", "tool_use"),
        (None, "tool_use"),
        ("max_tokens", "max_tokens"),
        ("refusal", "refusal"),
    ],
)
def test_calls_are_to_be_run_unless_the_reply_was_cut(wire: str | None, ours: str) -> None:
    assert ours == reply({"type": "tool_use", "id": "a", "name": "b"}, stop=wire).stop_reason


@pytest.mark.parametrize(
    ("given_input", "arguments", "malformed"),
    [
        ({}, {}, None),
        ({"a": 1}, {"a": 1}, None),
        ('{"a": 1}', {"a": 1}, None),
        ("", {}, None),
        (None, {}, "null"),
        ([1], {}, "[1]"),
        ("{", {}, "{"),
        (7, {}, "7"),
    ],
)
def test_arguments_that_are_no_object_are_malformed_and_never_guessed(
    given_input: Any, arguments: Json, malformed: str | None
) -> None:
    block = {"type": "tool_use", "id": "a", "name": "b", "input": given_input}
    expected = ToolCall(id="a", name="b", arguments=arguments, malformed=malformed)
    assert (expected,) == reply(block, stop="tool_use").parts


def test_usage_tells_cached_tokens_apart() -> None:
    usage = {
        "input_tokens": 10,
        "output_tokens": 5,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 20,
        "output_tokens_details": {"thinking_tokens": 3},
    }
    assert (
        Usage(
            input_tokens=10,
            output_tokens=5,
            cache_read_tokens=100,
            cache_write_tokens=20,
            reasoning_tokens=3,
        )
        == reply(text("x"), usage=usage).usage
    )
    assert Usage() == reply(text("x"), usage={"input_tokens": "many", "output_tokens": None}).usage


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"content": "text"},
        {"content": [1]},
        {"content": [{"type": "text", "text": 5}]},
        {"content": [{"type": "tool_use", "id": 5}]},
        {"content": [], "stop_reason": []},
    ],
)
def test_a_body_that_is_no_message_is_malformed(data: Json) -> None:
    with pytest.raises(MalformedReply):
        parse_response(data)


@pytest.mark.parametrize("body", [[], "x", None, {"type": "message"}])
def test_a_json_answer_that_is_no_message_is_malformed(body: Any) -> None:
    with ModelServer([json_answer(body), json_answer(body)]) as server:
        provider = AnthropicProvider(model="m", base_url=server.url)
        for listener in (None, Recorder()):
            with pytest.raises(MalformedReply):
                asyncio.run(provider.complete(request(), listener))


def test_a_call_over_a_socket_is_the_same_streamed_and_not() -> None:
    said = Reply(
        text="Grüße 😀",
        thinking="hm",
        calls=(Call(name="add", arguments={"a": 1}, id="c1"),),
        cache_read_tokens=7,
        cache_write_tokens=3,
        reasoning_tokens=2,
        piece=1,
    )
    recorder = Recorder()
    with ModelServer([said, said]) as server:
        provider = AnthropicProvider(model="claude", base_url=server.url)
        plain = asyncio.run(provider.complete(request()))
        streamed = asyncio.run(provider.complete(request(), recorder))
        asked = [each.json for each in server.requests]
        assert {"/v1/messages"} == {each.path for each in server.requests}
    assert plain == streamed
    assert list("Grüße 😀") == recorder.heard
    assert "stream" not in asked[0]
    assert {**asked[0], "stream": True} == asked[1]
    assert Usage(
        input_tokens=10,
        output_tokens=5,
        cache_read_tokens=7,
        cache_write_tokens=3,
        reasoning_tokens=2,
    ) == (plain.usage)


def test_a_server_that_answers_a_stream_with_a_whole_message_is_understood() -> None:
    recorder = Recorder()
    whole = json_answer({"content": [text("all at once")], "stop_reason": "end_turn"})
    with ModelServer([whole]) as server:
        provider = AnthropicProvider(model="m", base_url=server.url)
        got = asyncio.run(provider.complete(request(), recorder))
    assert (TextPart(text="all at once"),) == got.parts
    assert ["all at once"] == recorder.heard


def test_a_stream_adds_its_usage_up_by_the_last_word_on_each_count() -> None:
    stream = AnthropicStream()
    start = {"input_tokens": 9, "cache_read_input_tokens": 4, "output_tokens": 1}
    stream.feed("", json.dumps({"type": "message_start", "message": {"usage": start}}))
    assert Usage(input_tokens=9, cache_read_tokens=4, output_tokens=1) == stream.usage
    later = {"input_tokens": None, "output_tokens": 30}
    stream.feed("", json.dumps({"type": "message_delta", "delta": {}, "usage": later}))
    assert Usage(input_tokens=9, cache_read_tokens=4, output_tokens=30) == stream.usage
