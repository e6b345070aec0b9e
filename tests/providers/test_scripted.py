"""The scripted provider: a public test double that people rely on, so it has promises too."""

from __future__ import annotations

import asyncio

import pytest

import heartbit.testing
from heartbit.core.messages import (
    Completion,
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
from heartbit.core.tools import ToolSpec
from heartbit.errors import InvalidRequest, NetworkFailure
from heartbit.providers.base import Provider
from heartbit.providers.scripted import Reply, ScriptedProvider, call
from tests.support.listening import Recorder

REQUEST = ModelRequest(system="You test.", messages=(user_message("Go on."),))


def ask(reply: Reply, request: ModelRequest = REQUEST) -> Completion:
    """The completion that a script of one reply gives."""
    return asyncio.run(ScriptedProvider([reply]).complete(request))


def after(*ids: str) -> ModelRequest:
    """A request whose conversation has calls with these ids."""
    calls = tuple(ToolCall(id=each, name="search", arguments={}) for each in ids)
    results = tuple(ToolResult(call_id=each, content="found") for each in ids)
    said = Message(role="assistant", parts=calls)
    return ModelRequest(
        system="", messages=(*REQUEST.messages, said, Message(role="user", parts=results))
    )


def test_a_text_ends_the_turn() -> None:
    """The simplest reply."""
    completion = ask("Hello")
    assert ((TextPart(text="Hello"),), "end_turn") == (completion.parts, completion.stop_reason)
    assert "scripted-1" == completion.model


def test_a_call_asks_for_a_tool() -> None:
    """Arguments are keywords, also one that is called name."""
    completion = ask(call("search", query="Rust", name="x"))
    wanted = ToolCall(id="call_1", name="search", arguments={"query": "Rust", "name": "x"})
    assert ((wanted,), "tool_use") == (completion.parts, completion.stop_reason)


def test_a_list_is_one_reply_with_text_and_several_calls() -> None:
    """In the order given, each call with an id of its own."""
    completion = ask(["Let me see.", call("search"), call("read")])
    assert "Let me see." == completion.message.text
    assert ["call_1", "call_2"] == [each.id for each in completion.message.tool_calls]
    assert "tool_use" == completion.stop_reason


def test_replies_come_in_order() -> None:
    """One per request, and every request is kept."""
    provider = ScriptedProvider(["one", "two"])
    texts = [asyncio.run(provider.complete(REQUEST)).message.text for _ in range(2)]
    assert (["one", "two"], [REQUEST, REQUEST]) == (texts, provider.requests)


def test_running_out_of_replies_says_how_many_there_were() -> None:
    """A clear error that nothing retries."""
    provider = ScriptedProvider(["one"])
    asyncio.run(provider.complete(REQUEST))
    with pytest.raises(InvalidRequest, match="no reply left: its list had 1;") as caught:
        asyncio.run(provider.complete(REQUEST))
    assert not caught.value.retryable


def test_a_completion_is_given_as_it_is() -> None:
    """Whoever wants a strange stop reason or usage says so."""
    completion = Completion(
        parts=(ToolCall(id="", name="x", arguments={}),), stop_reason="max_tokens"
    )
    assert completion is ask(completion)


def test_an_exception_is_raised() -> None:
    """Any exception; later replies are still there."""
    provider = ScriptedProvider([NetworkFailure("Cable."), ZeroDivisionError(), "Hello"])
    with pytest.raises(NetworkFailure, match="Cable"):
        asyncio.run(provider.complete(REQUEST))
    with pytest.raises(ZeroDivisionError):
        asyncio.run(provider.complete(REQUEST))
    assert "Hello" == asyncio.run(provider.complete(REQUEST)).message.text


def test_text_before_an_exception_is_heard() -> None:
    """As in a stream that breaks off."""
    listener = Recorder()
    with pytest.raises(NetworkFailure):
        asyncio.run(ScriptedProvider([["Hello ", NetworkFailure()]]).complete(REQUEST, listener))
    assert ["Hello "] == listener.heard


@pytest.mark.parametrize("text", ["Hello big\n\nworld ", "  two  blanks", "\n", "Grüße 🦀!", ""])
def test_the_words_that_are_heard_are_the_text(text: str) -> None:
    """Small deltas, nothing lost between them and none of them empty."""
    listener = Recorder()
    completion = asyncio.run(ScriptedProvider([text]).complete(REQUEST, listener))
    assert text == "".join(map(str, listener.heard)) == completion.message.text
    assert "" not in listener.heard


def test_a_text_comes_in_several_deltas() -> None:
    """So that a test sees what streaming does."""
    listener = Recorder()
    asyncio.run(ScriptedProvider(["one two three"]).complete(REQUEST, listener))
    assert ["one ", "two ", "three"] == listener.heard


def test_the_text_of_a_completion_is_heard_too() -> None:
    """A listener does not care how the reply was written down."""
    listener = Recorder()
    completion = Completion(parts=(TextPart(text="one two"),), stop_reason="end_turn")
    asyncio.run(ScriptedProvider([completion]).complete(REQUEST, listener))
    assert ["one ", "two"] == listener.heard


def test_a_function_decides_from_the_request() -> None:
    """Plain or async; it may say anything a list may hold."""

    def plain(request: ModelRequest) -> Reply:
        return f"You said: {request.messages[-1].text}"

    async def waiting(request: ModelRequest) -> Reply:
        await asyncio.sleep(0)
        return call("search", query=request.messages[-1].text)

    assert "You said: Go on." == asyncio.run(ScriptedProvider(plain).complete(REQUEST)).message.text
    completion = asyncio.run(ScriptedProvider(waiting).complete(REQUEST))
    assert {"query": "Go on."} == completion.message.tool_calls[0].arguments


def test_parallel_agents_are_told_apart_by_their_requests() -> None:
    """A function gives the same replies and ids in whatever order the agents ask."""

    def script(request: ModelRequest) -> Reply:
        return call("search", topic=request.system)

    async def ask_all(systems: list[str]) -> dict[str, Completion]:
        provider = ScriptedProvider(script)
        requests = [ModelRequest(system=each, messages=REQUEST.messages) for each in systems]
        replies = await asyncio.gather(*map(provider.complete, requests))
        return dict(zip(systems, replies, strict=True))

    assert asyncio.run(ask_all(["a", "b", "c"])) == asyncio.run(ask_all(["c", "b", "a"]))


def test_ids_go_on_from_those_in_the_conversation() -> None:
    """Unique in what the model sees, and the same each time it is asked."""
    assert "call_3" == ask(call("read"), after("call_1", "call_2")).message.tool_calls[0].id
    assert "call_8" == ask(call("read"), after("call_7")).message.tool_calls[0].id
    assert "call_1" == ask(call("read"), after("toolu_9", "")).message.tool_calls[0].id


def test_an_id_that_the_script_gives_is_kept() -> None:
    """Repeated and strange ids are what some tests are about."""
    twice = ToolCall(id="same", name="search", arguments={})
    assert ["same", "same"] == [each.id for each in ask([twice, twice]).message.tool_calls]


def test_usage_is_an_estimate_that_never_changes() -> None:
    """A quarter of the bytes, rounded up: of all that is sent, and of the reply."""
    assert Usage(input_tokens=4, output_tokens=2) == ask("Hello").usage
    conversation = after("call_1")
    assert ask("Hello", conversation).usage == ask("Hello", conversation).usage
    tool = ToolSpec(name="search", description="Finds.", input_schema={}, ref="python:m:search")
    with_tools = ModelRequest(system="You test.", messages=REQUEST.messages, tools=(tool,))
    assert ask("Hello", with_tools).usage.input_tokens > 4


def test_usage_grows_with_every_part_of_the_conversation() -> None:
    """Thinking, calls and results are sent as well; broken Unicode does not disturb."""
    parts: list[Part] = [
        TextPart(text="Grüße \ud800"),
        ThinkingPart(provider="anthropic", data={"thinking": "Hm"}),
        ToolCall(id="1", name="search", arguments={"query": "x"}),
    ]
    tokens = []
    for count in range(len(parts) + 1):
        said = Message(role="assistant", parts=tuple(parts[:count]))
        tokens.append(ask("Hi", ModelRequest(system="", messages=(said,))).usage.input_tokens)
    assert sorted(set(tokens)) == tokens


def test_a_call_lets_others_run_meanwhile() -> None:
    """As a real one: two agents in one loop both start before either has its reply."""
    order: list[str] = []

    async def agent(name: str, provider: ScriptedProvider) -> None:
        order.append(f"{name} asks")
        await provider.complete(REQUEST)
        order.append(f"{name} has it")

    async def two_agents() -> None:
        provider = ScriptedProvider(["x", "y"])
        await asyncio.gather(agent("a", provider), agent("b", provider))

    asyncio.run(two_agents())
    assert ["a asks", "b asks", "a has it", "b has it"] == order


@pytest.mark.parametrize("reply", [None, 5, [5], {"text": "x"}, NetworkFailure])
def test_what_is_no_reply_is_named(reply: object) -> None:
    """A mistake in a test's script is told in its own words."""
    with pytest.raises(TypeError, match=r"A scripted reply is .*; not "):
        ask(reply)  # type: ignore[arg-type]


def test_a_single_text_is_not_taken_for_a_list_of_letters() -> None:
    """The most likely slip."""
    with pytest.raises(TypeError, match="put a single reply into a list"):
        ScriptedProvider("Hello")


def test_it_is_a_provider() -> None:
    """With any name and model, for what depends on them."""
    provider = ScriptedProvider([], name="anthropic", model="claude")
    assert isinstance(provider, Provider)
    assert ("anthropic", "claude") == (provider.name, provider.model)


def test_the_testing_module_has_what_a_test_needs() -> None:
    """One import, names sorted, and they are the same things."""
    names = heartbit.testing.__all__
    assert sorted(set(names)) == names
    assert [] == [name for name in names if not hasattr(heartbit.testing, name)]
    assert heartbit.testing.ScriptedProvider is ScriptedProvider
    assert heartbit.testing.call is call
