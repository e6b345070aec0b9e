"""What a provider's refusal means on either wire, and that no message gives a key away."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from heartbit.core.messages import Usage, user_message
from heartbit.core.request import ModelRequest
from heartbit.errors import (
    AuthenticationFailed,
    CallTimedOut,
    ConfigError,
    ContentRefused,
    ContextTooLong,
    InvalidRequest,
    MalformedReply,
    NetworkFailure,
    Overloaded,
    ProviderError,
    RateLimited,
    ServerFailure,
    TruncatedStream,
)
from heartbit.providers.anthropic import AnthropicProvider
from heartbit.providers.base import Provider
from heartbit.providers.failures import BY_STATUS, BY_WORD, CONTEXT_PHRASES, MAX_DETAIL, failure
from heartbit.providers.http import HttpClient
from heartbit.providers.openai import OpenAIProvider, OpenRouterProvider
from tests.support.listening import Recorder
from tests.support.model_server import Answer, ModelServer, Raw, json_answer

KEY = "sk-test-8d7f6a5b4c"
REQUEST = ModelRequest(system="", messages=(user_message("hello"),))
Kind = type[AnthropicProvider] | type[OpenAIProvider]
ADAPTERS = [AnthropicProvider, OpenAIProvider, OpenRouterProvider]
EVENTS = {"content-type": "text/event-stream"}


def ask(kind: Kind, answer: Answer, *, key: str | None = KEY, stream: bool = False) -> Any:
    with ModelServer([answer]) as server:
        provider = kind(model="m", api_key=key, base_url=server.url)
        return asyncio.run(provider.complete(REQUEST, Recorder() if stream else None))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize(
    ("status", "error", "retryable"),
    [
        (400, InvalidRequest, False),
        (401, AuthenticationFailed, False),
        (402, InvalidRequest, False),
        (403, AuthenticationFailed, False),
        (404, InvalidRequest, False),
        (408, CallTimedOut, True),
        (413, InvalidRequest, False),
        (422, InvalidRequest, False),
        (429, RateLimited, True),
        (500, ServerFailure, True),
        (502, ServerFailure, True),
        (503, ServerFailure, True),
        (504, CallTimedOut, True),
        (520, ServerFailure, True),
        (529, Overloaded, True),
    ],
)
def test_every_status_has_its_class_on_both_wires(
    kind: Kind, stream: bool, status: int, error: type[ProviderError], retryable: bool
) -> None:
    with pytest.raises(ProviderError) as caught:
        ask(kind, Raw(status=status), stream=stream)
    assert (error, status) == (type(caught.value), caught.value.status)
    assert retryable is caught.value.retryable


def test_the_retryable_statuses_are_all_in_the_table() -> None:
    assert {401, 403, 408, 429, 500, 502, 503, 504, 529} == set(BY_STATUS)


@pytest.mark.parametrize("word", BY_WORD)
def test_an_error_type_means_the_same_with_a_status_and_inside_a_stream(word: str) -> None:
    payload = {"type": "error", "error": {"type": word, "message": "so it is"}}
    assert BY_WORD[word] is type(failure(payload))
    assert BY_WORD[word] is type(failure(payload, status=400))
    assert BY_WORD[word] is type(failure({"error": {"code": word}}, status=429))


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        ({"error": {"type": "invalid_request_error", "message": "no"}}, InvalidRequest),
        ({"error": {"type": "not_found_error", "message": "no"}}, InvalidRequest),
        ({"error": {"code": 429, "message": "slow down"}}, RateLimited),
        ({"error": {"code": "502", "message": "upstream"}}, ServerFailure),
        ({"error": {"code": 400, "message": "maximum context length is 8192"}}, ContextTooLong),
        ({"error": {"type": "brand_new_error"}}, ServerFailure),
        ({"error": "out of memory"}, ServerFailure),
        ({"object": "error", "message": "bad", "type": "invalid_request_error"}, InvalidRequest),
        ({"message": "plain"}, ServerFailure),
        ([{"error": {"code": 503}}], ServerFailure),
        ("text", ServerFailure),
        (None, ServerFailure),
        ([], ServerFailure),
        ({"error": {"code": True, "type": 5, "message": ["?"]}}, ServerFailure),
    ],
)
def test_an_error_inside_a_stream_is_its_class_by_what_it_says(
    payload: Any, error: type[ProviderError]
) -> None:
    assert error is type(failure(payload))


@pytest.mark.parametrize("phrase", CONTEXT_PHRASES)
@pytest.mark.parametrize("status", [400, 413, None])
def test_a_context_that_is_too_long_is_recognised_by_its_phrase(
    phrase: str, status: int | None
) -> None:
    said = {"error": {"type": "invalid_request_error", "message": f"Sorry: {phrase.title()} (9)"}}
    assert ContextTooLong is type(failure(said, status=status))


@pytest.mark.parametrize(
    "message", ["prompt is empty", "max_tokens is too large", "tokens", "unknown window"]
)
def test_a_near_miss_of_those_phrases_is_an_invalid_request(message: str) -> None:
    assert InvalidRequest is type(failure({"error": {"message": message}}, status=400))


def test_a_rate_limit_is_never_taken_for_a_context_that_is_too_long() -> None:
    said = {"error": {"type": "tokens", "message": "Too many tokens per minute"}}
    assert RateLimited is type(failure(said, status=429))


def test_a_refused_content_and_a_used_up_quota_are_not_worth_repeating() -> None:
    quota = {"error": {"type": "insufficient_quota", "message": "You exceeded your quota"}}
    assert InvalidRequest is type(failure(quota, status=429))
    filtered = {"error": {"code": "content_filter", "message": "policy"}}
    assert ContentRefused is type(failure(filtered, status=400))


def test_the_provider_s_own_words_are_in_the_message_on_one_line_and_cut() -> None:
    said = {"error": {"message": "max_tokens: 5 is\n  too small."}}
    expected = "The provider refused the request (HTTP 400: max_tokens: 5 is too small)."
    assert expected == failure(said, status=400).message
    long = failure({"detail": "x" * 5000}, status=400).message
    assert MAX_DETAIL < len(long) < MAX_DETAIL + 80


def test_a_model_nobody_has_says_what_to_check() -> None:
    said = failure({"error": {"message": "model `m` not found."}}, status=404)
    hint = "model `m` not found; check base_url and the model's name"
    assert f"The provider refused the request (HTTP 404: {hint})." == said.message


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_web_page_in_place_of_a_stream_says_what_to_check(kind: Kind) -> None:
    page = Raw(headers={"content-type": "text/html"}, body=b"<html>Welcome</html>")
    with pytest.raises(MalformedReply, match=r"text/html.*; check base_url"):
        ask(kind, page, stream=True)


def test_a_wrong_address_says_what_to_check() -> None:
    with pytest.raises(InvalidRequest, match="HTTP 404: check base_url and the model's name"):
        ask(OpenAIProvider, Raw(status=404, body=b"404 page not found"))


@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 429, 500, 529])
@pytest.mark.parametrize("stream", [False, True])
def test_the_key_is_never_in_a_message(kind: Kind, status: int, stream: bool) -> None:
    said = {"error": {"message": f"Incorrect API key provided: {KEY}", "type": "some_error"}}
    with pytest.raises(ProviderError) as caught:
        ask(kind, json_answer(said, status=status), stream=stream)
    assert KEY not in str(caught.value)
    if status in (401, 403):
        assert "Incorrect" not in str(caught.value)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_the_key_is_not_in_an_error_event_either(kind: Kind) -> None:
    said = json.dumps({"type": "error", "error": {"type": "api_error", "message": f"key {KEY}"}})
    with pytest.raises(ServerFailure) as caught:
        ask(kind, Raw(headers=EVENTS, body=f"data: {said}\n\n".encode()), stream=True)
    assert "key ***" in caught.value.message


@pytest.mark.parametrize("key", ["sk-\nnewline", "sk-\u00fc", "a\0b"])
def test_a_key_that_no_header_can_hold_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(AuthenticationFailed, match="characters") as caught:
        ask(AnthropicProvider, "hi", key=key)
    assert key not in caught.value.message


@pytest.mark.parametrize(
    ("kind", "variable"),
    [
        (AnthropicProvider, "ANTHROPIC_API_KEY"),
        (OpenAIProvider, "OPENAI_API_KEY"),
        (OpenRouterProvider, "OPENROUTER_API_KEY"),
    ],
)
def test_without_a_key_the_sentence_names_the_variable(kind: Kind, variable: str) -> None:
    with pytest.raises(AuthenticationFailed, match=variable):
        asyncio.run(kind(model="m").complete(REQUEST))


def sent_headers(kind: Kind, key: str | None) -> dict[str, str]:
    with ModelServer(["hi"]) as server:
        asyncio.run(kind(model="m", api_key=key, base_url=server.url + "/").complete(REQUEST))
        return server.requests[0].headers


def test_each_wire_shows_the_key_in_its_own_way() -> None:
    anthropic = sent_headers(AnthropicProvider, f" {KEY}\n")
    assert (KEY, "2023-06-01") == (anthropic["x-api-key"], anthropic["anthropic-version"])
    assert f"Bearer {KEY}" == sent_headers(OpenAIProvider, KEY)["authorization"]
    assert sent_headers(OpenRouterProvider, KEY)["user-agent"].startswith("heartbit/")


@pytest.mark.parametrize("kind", ADAPTERS)
def test_the_environment_s_key_is_sent_to_nobody_but_its_own_provider(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(kind.key_variable, KEY)
    assert KEY not in str(sent_headers(kind, None))
    assert {"authorization", "x-api-key"}.isdisjoint(sent_headers(kind, None))


def test_the_environment_s_key_is_used_for_the_provider_s_own_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ModelServer(["hi"]) as server:
        monkeypatch.setattr(AnthropicProvider, "default_base_url", server.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
        asyncio.run(AnthropicProvider(model="m").complete(REQUEST))
        assert server.requests[0].headers["x-api-key"] == KEY


def test_a_server_that_wants_a_key_and_got_none_says_so() -> None:
    with pytest.raises(AuthenticationFailed, match=r"none was given; set api_key in \[provider\]"):
        ask(OpenAIProvider, Raw(status=401), key=None)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_wrong_base_url_is_found_at_construction(kind: Kind) -> None:
    with pytest.raises(ConfigError, match="base_url"):
        kind(model="m", base_url="localhost:8000")


@pytest.mark.parametrize("kind", ADAPTERS)
def test_an_adapter_is_a_provider_and_shows_no_key(kind: Kind) -> None:
    provider = kind(model="m", api_key=KEY)
    assert isinstance(provider, Provider)
    assert "m" == provider.model
    assert KEY not in repr(provider)


@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize("slash", ["", "/", "//"])
def test_a_base_url_may_end_with_a_slash(kind: Kind, slash: str) -> None:
    with ModelServer(["hi"]) as server:
        asyncio.run(kind(model="m", base_url=f"{server.url}/at{slash}").complete(REQUEST))
        assert "/at" + kind.path == server.requests[0].path


def connections_of_two_calls(*, shared: bool) -> int:
    """How many connections two calls need whose provider is closed in between."""

    async def ask(server: ModelServer) -> None:
        http = HttpClient() if shared else None
        provider = OpenAIProvider(model="m", base_url=server.url, http=http)
        await provider.complete(REQUEST)
        await provider.aclose()
        await provider.complete(REQUEST)

    with ModelServer(["a", "b"]) as server:
        asyncio.run(ask(server))
        return server.connections


def test_closing_a_provider_closes_its_own_connections_and_nobody_else_s() -> None:
    assert 2 == connections_of_two_calls(shared=False)
    assert 1 == connections_of_two_calls(shared=True)


def test_the_usage_known_when_a_stream_fails_goes_with_the_error() -> None:
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 70}}}
    events = f"data: {json.dumps(start)}\n\n".encode()
    with pytest.raises(TruncatedStream) as caught:
        ask(AnthropicProvider, Raw(headers=EVENTS, body=events), stream=True)
    assert Usage(input_tokens=70) == caught.value.usage
    with pytest.raises(NetworkFailure) as lost:
        ask(AnthropicProvider, Raw(headers=EVENTS, chunks=(events,), ending="cut"), stream=True)
    assert Usage(input_tokens=70) == lost.value.usage
    with pytest.raises(Overloaded) as refused:
        ask(AnthropicProvider, Raw(status=529), stream=True)
    assert refused.value.usage is None
