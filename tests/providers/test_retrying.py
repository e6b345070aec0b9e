"""A provider that asks again: how often, after which waits, and what its listener hears."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from heartbit.core.messages import Completion, TextPart, Usage, user_message
from heartbit.core.request import ModelRequest
from heartbit.core.retry import RetryPolicy, Tried
from heartbit.errors import (
    AuthenticationFailed,
    CallPutOff,
    Overloaded,
    RateLimited,
    TruncatedStream,
)
from heartbit.providers.base import Provider
from heartbit.providers.retry import RetryingProvider
from heartbit.providers.scripted import Reply, ScriptedProvider
from tests.support.listening import Recorder

REQUEST = ModelRequest(system="You test.", messages=(user_message("Go on."),))
POLICY = RetryPolicy(max_retries=2, base_delay_ms=1000, max_delay_ms=8000)


class Waits(list[float]):
    """A sleep that takes no time and notes what it was asked for."""

    async def __call__(self, seconds: float) -> None:
        """Note the wait."""
        self.append(seconds)


def retrying(replies: Sequence[Reply]) -> tuple[RetryingProvider, ScriptedProvider, Waits]:
    """The provider under test, the one it asks, and its waits; the dice always show 0.5."""
    inner, waits = ScriptedProvider(replies), Waits()
    return RetryingProvider(inner, POLICY, sleep=waits, jitter=lambda: 0.5), inner, waits


def test_a_reply_at_once_needs_no_wait() -> None:
    """The completion is passed on as it is."""
    reply = Completion(parts=(TextPart(text="Hi"),), stop_reason="end_turn", cost_usd=0.5)
    provider, _, waits = retrying([reply])
    assert reply is asyncio.run(provider.complete(REQUEST))
    assert [] == waits


def test_a_call_that_failed_is_made_again_with_the_same_request() -> None:
    """Backoff between the attempts, and then the reply."""
    provider, inner, waits = retrying([Overloaded(), RateLimited(retry_after=3), "Done."])
    assert "Done." == asyncio.run(provider.complete(REQUEST)).message.text
    assert [0.5, 3] == waits
    assert [REQUEST] * 3 == inner.requests


def test_the_last_error_is_raised_when_the_retries_are_used_up() -> None:
    """And no wait follows the last attempt."""
    provider, inner, waits = retrying([Overloaded("1"), Overloaded("2"), Overloaded("3"), "Late"])
    with pytest.raises(Overloaded, match="3"):
        asyncio.run(provider.complete(REQUEST))
    assert [0.5, 1.0] == waits
    assert 3 == len(inner.requests)


def test_an_error_that_lasts_is_raised_at_once() -> None:
    """A refused key is asked about once."""
    provider, inner, waits = retrying([AuthenticationFailed(), "Never"])
    with pytest.raises(AuthenticationFailed):
        asyncio.run(provider.complete(REQUEST))
    assert ([], 1) == (waits, len(inner.requests))


def test_what_is_no_provider_error_is_not_retried() -> None:
    """A defect is not asked again until it goes away."""
    provider, inner, _ = retrying([ZeroDivisionError(), "Never"])
    with pytest.raises(ZeroDivisionError):
        asyncio.run(provider.complete(REQUEST))
    assert 1 == len(inner.requests)


def test_text_heard_of_a_failed_attempt_is_taken_back() -> None:
    """The listener is told before it hears anything of the next attempt: no text comes twice."""
    provider, _, _ = retrying([["Hello ", TruncatedStream("Broke off.")], "Hello world"])
    listener = Recorder()
    asyncio.run(provider.complete(REQUEST, listener))
    assert ["Hello ", ("restarted", "Broke off."), "Hello ", "world"] == listener.heard


def test_nothing_is_taken_back_where_nothing_was_heard() -> None:
    """A failure before the first text is no news for a listener."""
    provider, _, _ = retrying([Overloaded(), "Hi"])
    listener = Recorder()
    asyncio.run(provider.complete(REQUEST, listener))
    assert ["Hi"] == listener.heard


def test_only_the_attempts_that_were_heard_are_taken_back() -> None:
    """One restart per text that became void, none for the silent failure after it."""
    provider, _, _ = retrying([["A", TruncatedStream("cut")], Overloaded("busy"), "B"])
    listener = Recorder()
    asyncio.run(provider.complete(REQUEST, listener))
    assert ["A", ("restarted", "cut"), "B"] == listener.heard


def test_nothing_is_taken_back_when_no_attempt_follows() -> None:
    """The error says it; the text that was heard is all there is."""
    provider, _, _ = retrying([["A", AuthenticationFailed()]])
    listener = Recorder()
    with pytest.raises(AuthenticationFailed):
        asyncio.run(provider.complete(REQUEST, listener))
    assert ["A"] == listener.heard


def test_a_restart_told_by_the_provider_inside_is_not_told_twice() -> None:
    """Retries around retries: each void text is taken back once."""
    inner, _, waits = retrying([["A", TruncatedStream("cut")], Overloaded(), Overloaded(), "B"])
    provider = RetryingProvider(inner, POLICY, sleep=waits, jitter=lambda: 0.5)
    listener = Recorder()
    asyncio.run(provider.complete(REQUEST, listener))
    assert ["A", ("restarted", "cut"), "B"] == listener.heard


def test_cancelling_ends_the_wait_and_the_retries() -> None:
    """A cancelled run asks nothing more."""
    waiting = asyncio.Event()

    async def wait_for_ever(seconds: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    inner = ScriptedProvider([Overloaded(), "Never"])
    provider = RetryingProvider(inner, POLICY, sleep=wait_for_ever)

    async def cancel_while_it_waits() -> None:
        call = asyncio.create_task(provider.complete(REQUEST))
        await waiting.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(cancel_while_it_waits())
    assert 1 == len(inner.requests)


def test_a_cancelled_attempt_is_not_tried_again() -> None:
    """Cancelling is not a failure of the provider."""
    started = asyncio.Event()

    async def hang(request: ModelRequest) -> Reply:
        started.set()
        await asyncio.Event().wait()
        return "Never"

    inner, waits = ScriptedProvider(hang), Waits()

    async def cancel_while_it_asks() -> None:
        call = asyncio.create_task(RetryingProvider(inner, POLICY, waits).complete(REQUEST))
        await started.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(cancel_while_it_asks())
    assert ([], 1) == (waits, len(inner.requests))


def test_tokens_of_failed_attempts_are_counted_where_they_are_known() -> None:
    """And a cost that came with the last attempt is not passed off as the whole."""
    broken = TruncatedStream(usage=Usage(input_tokens=100))
    reply = Completion(
        parts=(TextPart(text="Hi"),),
        stop_reason="end_turn",
        usage=Usage(input_tokens=100, output_tokens=2),
        cost_usd=0.01,
    )
    provider, _, _ = retrying([broken, Overloaded(), reply])
    completion = asyncio.run(provider.complete(REQUEST))
    assert Usage(input_tokens=200, output_tokens=2) == completion.usage
    assert None is completion.cost_usd


def test_the_error_of_the_last_attempt_carries_the_tokens_of_all() -> None:
    """A run that fails can still say what it used."""
    replies = [TruncatedStream(usage=Usage(input_tokens=n)) for n in (1, 10, 100)]
    provider, _, _ = retrying(replies)
    with pytest.raises(TruncatedStream) as caught:
        asyncio.run(provider.complete(REQUEST))
    assert Usage(input_tokens=111) == caught.value.usage


def test_usage_that_nobody_knows_is_not_invented() -> None:
    """Failed attempts without a figure add nothing."""
    provider, _, _ = retrying([Overloaded(), "Hi"])
    plain = asyncio.run(ScriptedProvider(["Hi"]).complete(REQUEST))
    assert plain.usage == asyncio.run(provider.complete(REQUEST)).usage


def put_off(provider: Provider, tried: Tried) -> CallPutOff:
    """How the call of a request that may be put off is put off."""
    with pytest.raises(CallPutOff) as caught:
        asyncio.run(provider.complete(replace(REQUEST, tried=tried)))
    return caught.value


def test_a_call_that_may_be_put_off_is_not_waited_for_long() -> None:
    """It says when it goes on, and what it has used by then."""
    used = Usage(input_tokens=5)
    replies = [Overloaded(), RateLimited(retry_after=6, usage=used)]
    provider, inner, waits = retrying(replies)
    later = put_off(provider, Tried())
    assert (6, Tried(count=2, usage=used)) == (later.seconds, later.tried)
    assert ([0.5], [None, None]) == (waits, [request.tried for request in inner.requests])


def test_a_call_that_may_be_put_off_waits_for_short_pauses_itself() -> None:
    """Five seconds are nothing that is worth another message."""
    provider, _, waits = retrying([RateLimited(retry_after=5), "Done."])
    completion = asyncio.run(provider.complete(replace(REQUEST, tried=Tried())))
    assert ("Done.", [5]) == (completion.message.text, waits)


def test_a_call_that_goes_on_has_no_more_attempts_than_any_other() -> None:
    """What was tried before counts, and so does what that has used."""
    provider, inner, _ = retrying(
        [RateLimited(retry_after=30, usage=Usage(input_tokens=1)) for _ in "12345"]
    )
    tried = Tried()
    for _ in range(POLICY.max_retries):
        tried = put_off(provider, tried).tried
    with pytest.raises(RateLimited) as caught:
        asyncio.run(provider.complete(replace(REQUEST, tried=tried)))
    assert POLICY.max_retries + 1 == len(inner.requests)
    assert Usage(input_tokens=POLICY.max_retries + 1) == caught.value.usage


def test_a_listener_is_told_before_a_call_is_put_off() -> None:
    """Its text is void from then on, not only after the wait."""
    listener = Recorder()
    provider, _, _ = retrying([["A", TruncatedStream("cut", retry_after=30)]])
    with pytest.raises(CallPutOff):
        asyncio.run(provider.complete(replace(REQUEST, tried=Tried()), listener))
    assert ["A", ("restarted", "cut")] == listener.heard


def test_it_looks_like_the_provider_it_asks() -> None:
    """Wrappers can be put into each other in any order."""
    provider, _, _ = retrying([])
    assert isinstance(provider, Provider)
    assert ("scripted", "scripted-1") == (provider.name, provider.model)


def test_it_waits_in_real_time_unless_told_otherwise() -> None:
    """The default sleep is asyncio's, and the default dice stay below one."""
    policy = RetryPolicy(base_delay_ms=1, max_delay_ms=1)
    provider = RetryingProvider(ScriptedProvider([Overloaded(), "Hi"]), policy)
    assert "Hi" == asyncio.run(provider.complete(REQUEST)).message.text
    assert asyncio.sleep is provider.sleep
    assert 0 <= provider.jitter() < 1
