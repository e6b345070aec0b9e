"""A cascade: who is asked, who answers, what is heard, and that nothing spent is forgotten."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from heartbit.core.cascade import Gate
from heartbit.core.messages import Completion, RejectedTier, TextPart, Usage, user_message
from heartbit.core.request import ModelRequest
from heartbit.core.retry import RetryPolicy, Tried
from heartbit.errors import (
    AuthenticationFailed,
    CallPutOff,
    ConfigError,
    ContextTooLong,
    InvalidRequest,
    Overloaded,
    RateLimited,
    ServerFailure,
)
from heartbit.providers.base import Provider
from heartbit.providers.cascade import CascadingProvider
from heartbit.providers.retry import RetryingProvider
from heartbit.providers.scripted import Reply, ScriptedProvider, call
from tests.support.listening import Recorder

REQUEST = ModelRequest(system="You test.", messages=(user_message("Go on."),))
GOOD = "Paris is the capital of France."
REFUSAL = "I'm sorry, but I can't help with that."


def tier(model: str, *replies: Reply, name: str = "scripted") -> ScriptedProvider:
    """A provider of that model."""
    return ScriptedProvider(replies, name=name, model=model)


def reply(
    text: str = GOOD, *, tokens: int = 10, cost: float | None = None, model: str | None = None
) -> Completion:
    """A completion with as many tokens of input as of output."""
    usage = Usage(input_tokens=tokens, output_tokens=tokens)
    parts = (TextPart(text=text),)
    return Completion(parts=parts, stop_reason="end_turn", usage=usage, cost_usd=cost, model=model)


def ask(*tiers: Provider, gate: Gate | None = None) -> Completion:
    """The completion of a cascade of these tiers."""
    return asyncio.run(CascadingProvider(tiers, gate or Gate()).complete(REQUEST))


def test_a_good_reply_of_the_cheapest_is_the_answer() -> None:
    """Nobody else is asked."""
    cheap, dear = tier("cheap", GOOD), tier("dear")
    completion = ask(cheap, dear)
    assert (GOOD, "cheap", ()) == (
        completion.message.text,
        completion.model,
        completion.rejected,
    )
    assert ([REQUEST], []) == (cheap.requests, dear.requests)


def test_a_rejected_reply_is_counted_and_the_next_tier_answers() -> None:
    """The usage is accepted plus rejected, each in it once."""
    completion = ask(
        tier("small", reply("Hm", tokens=1)),
        tier("middle", reply(REFUSAL, tokens=10)),
        tier("large", reply(GOOD, tokens=100)),
    )
    assert (GOOD, "large") == (completion.message.text, completion.model)
    assert Usage(input_tokens=111, output_tokens=111) == completion.usage
    assert (
        RejectedTier(
            model="small",
            reason="fewer than 5 tokens of text",
            usage=Usage(input_tokens=1, output_tokens=1),
        ),
        RejectedTier(
            model="middle",
            reason="the text is a refusal",
            usage=Usage(input_tokens=10, output_tokens=10),
        ),
    ) == completion.rejected


def test_each_tier_asks_its_own_model_when_the_request_names_the_last_one() -> None:
    """A definition names the model of its cascade, which is that of the last tier."""
    cheap, dear = tier("cheap", "Hm"), tier("dear", GOOD)
    request = replace(REQUEST, model="dear")
    asyncio.run(CascadingProvider([cheap, dear]).complete(request))
    assert ([REQUEST], [REQUEST]) == (cheap.requests, dear.requests)


def test_another_model_than_the_last_one_is_asked_alone() -> None:
    """Who names a model does not want the reply of a cheaper one."""
    cheap, dear = tier("cheap", GOOD), tier("dear", GOOD)
    request = replace(REQUEST, model="dearest")
    completion = asyncio.run(CascadingProvider([cheap, dear]).complete(request))
    assert ([], [request], "dearest") == (cheap.requests, dear.requests, completion.model)


def test_the_last_tier_is_never_gated() -> None:
    """There is nobody left to ask."""
    assert REFUSAL == ask(tier("cheap", "Hm"), tier("dear", REFUSAL)).message.text
    assert REFUSAL == ask(tier("only", REFUSAL)).message.text


def test_accept_tool_calls_false_sends_a_tool_call_to_the_next_tier() -> None:
    """The cheap model's call is never executed."""
    dear = tier("dear", call("search", query="Paris"))
    completion = ask(tier("cheap", call("search")), dear, gate=Gate(accept_tool_calls=False))
    assert ({"query": "Paris"}, "dear") == (
        completion.message.tool_calls[0].arguments,
        completion.model,
    )


@pytest.mark.parametrize(
    "error", [Overloaded("Busy."), ContextTooLong("Long."), InvalidRequest("None.", status=404)]
)
def test_a_failing_tier_escalates_where_another_model_may_help(error: Exception) -> None:
    """It is listed with what happened."""
    completion = ask(tier("cheap", error), tier("dear", GOOD))
    rejected = RejectedTier(model="cheap", reason=f"{type(error).__name__}: {error}")
    assert (GOOD, (rejected,)) == (completion.message.text, completion.rejected)


def test_a_refused_key_does_not_escalate() -> None:
    """The mistake is shown instead of paid for."""
    dear = tier("dear", GOOD)
    with pytest.raises(AuthenticationFailed):
        ask(tier("cheap", AuthenticationFailed(status=401)), dear)
    assert [] == dear.requests


def test_a_defect_does_not_escalate() -> None:
    """Only provider errors say something about a model."""
    with pytest.raises(ZeroDivisionError):
        ask(tier("cheap", ZeroDivisionError()), tier("dear", GOOD))


def test_the_error_of_the_last_tier_is_raised_when_all_fail() -> None:
    """With what is known to be used by all of them."""
    used = Usage(input_tokens=1000)
    with pytest.raises(ServerFailure, match="Down") as caught:
        ask(
            tier("small", Overloaded(usage=used)),
            tier("middle", reply("Hm", tokens=3)),
            tier("large", ServerFailure("Down.", usage=Usage(input_tokens=7))),
        )
    assert Usage(input_tokens=1010, output_tokens=3) == caught.value.usage


def test_an_error_that_ends_the_cascade_carries_the_tokens_of_the_tiers_before() -> None:
    """Tokens are paid for whatever comes after them."""
    with pytest.raises(AuthenticationFailed) as caught:
        ask(tier("a", reply("Hm", tokens=3)), tier("b", AuthenticationFailed()), tier("c"))
    assert Usage(input_tokens=3, output_tokens=3) == caught.value.usage


def test_an_accepted_reply_before_the_last_tier_is_heard_as_one_piece() -> None:
    """Rejected text is never heard, so nothing has to be taken back."""
    cascade = CascadingProvider([tier("a", REFUSAL), tier("b", GOOD), tier("c")])
    listener = Recorder()
    asyncio.run(cascade.complete(REQUEST, listener))
    assert [GOOD] == listener.heard


def test_the_last_tier_streams() -> None:
    """Its reply counts whatever it says, so it can be heard at once."""
    cascade = CascadingProvider([tier("a", REFUSAL), tier("b", "Hello big world")])
    listener = Recorder()
    asyncio.run(cascade.complete(REQUEST, listener))
    assert ["Hello ", "big ", "world"] == listener.heard


def test_an_accepted_tool_call_without_text_is_not_heard() -> None:
    """No empty text."""
    cascade = CascadingProvider([tier("a", call("search")), tier("b")])
    listener = Recorder()
    asyncio.run(cascade.complete(REQUEST, listener))
    assert [] == listener.heard


def test_tiers_may_be_of_different_providers() -> None:
    """The cascade serves in the name of its last tier, and the completion names who answered."""
    cheap, dear = tier("mini", GOOD, name="openai"), tier("opus", name="anthropic")
    cascade = CascadingProvider([cheap, dear])
    assert isinstance(cascade, Provider)
    assert ("anthropic", "opus") == (cascade.name, cascade.model)
    assert "mini" == asyncio.run(cascade.complete(REQUEST)).model


def test_a_tier_may_retry_by_itself_before_the_next_is_asked() -> None:
    """Wrappers go around tiers as around any provider."""
    cheap = tier("cheap", Overloaded(), GOOD)
    policy = RetryPolicy(base_delay_ms=0, max_delay_ms=0)
    completion = ask(RetryingProvider(cheap, policy), tier("dear"))
    assert ("cheap", ()) == (completion.model, completion.rejected)


def test_a_call_that_a_tier_puts_off_goes_on_with_that_tier() -> None:
    """The tiers before are not asked again, and what they have used is counted once."""
    cheap = tier("cheap", reply("Hm", tokens=1, cost=0.25))
    used = Usage(input_tokens=3)
    dear = tier("dear", RateLimited(retry_after=60, usage=used), reply(tokens=10, cost=1.0))
    cascade = CascadingProvider([RetryingProvider(each, RetryPolicy()) for each in (cheap, dear)])
    with pytest.raises(CallPutOff) as caught:
        asyncio.run(cascade.complete(replace(REQUEST, tried=Tried())))
    tried = caught.value.tried
    assert (60, 1, Tried(count=1, usage=used)) == (caught.value.seconds, tried.count, tried.inner)

    completion = asyncio.run(cascade.complete(replace(REQUEST, tried=tried)))
    assert (1, 2) == (len(cheap.requests), len(dear.requests))
    assert Usage(input_tokens=14, output_tokens=11) == completion.usage
    assert (["cheap"], None) == ([each.model for each in completion.rejected], completion.cost_usd)


def test_each_tier_of_a_call_that_was_put_off_has_its_own_attempts() -> None:
    """What was tried of a cheap model is no attempt of the dear one."""
    cheap = tier("cheap", *[RateLimited(retry_after=60) for _ in "12"])
    dear = tier("dear", *[RateLimited(retry_after=60) for _ in "12"])
    policy, tried = RetryPolicy(max_retries=1), Tried()
    cascade = CascadingProvider([RetryingProvider(each, policy) for each in (cheap, dear)])
    for _ in range(2):
        with pytest.raises(CallPutOff) as put_off:
            asyncio.run(cascade.complete(replace(REQUEST, tried=tried)))
        tried = put_off.value.tried
    with pytest.raises(RateLimited) as caught:
        asyncio.run(cascade.complete(replace(REQUEST, tried=tried)))
    assert (2, 2) == (len(cheap.requests), len(dear.requests))
    assert ["cheap"] == [each.model for each in caught.value.rejected]


def test_a_cascade_as_a_tier_counts_every_model_once() -> None:
    """Whether its reply is accepted or not."""
    inner = CascadingProvider([tier("a", reply("Hm", tokens=1)), tier("b", reply(tokens=10))])
    completion = ask(inner, tier("c"))
    assert ("b", ["a"]) == (completion.model, [each.model for each in completion.rejected])
    assert 11 == completion.usage.output_tokens

    inner = CascadingProvider(
        [tier("a", reply("Hm", tokens=1)), tier("b", reply(REFUSAL, tokens=10))]
    )
    completion = ask(inner, tier("c", reply(tokens=100)))
    shares = [(each.model, each.usage.output_tokens) for each in completion.rejected]
    assert [("a", 1), ("b", 10)] == shares
    assert 111 == completion.usage.output_tokens


def test_a_dated_snapshot_goes_by_the_name_of_its_tier() -> None:
    """So that prices and reports know it; another model keeps its own name."""
    cheap = tier("gpt-4o-mini", reply("Hm", tokens=1, model="gpt-4o-mini-2024-07-18"))
    completion = ask(cheap, tier("auto", reply(model="qwen-3")))
    assert ("qwen-3", "gpt-4o-mini") == (completion.model, completion.rejected[0].model)


@pytest.mark.parametrize(
    ("cheap", "dear", "total"), [(0.25, 1.0, 1.25), (None, 1.0, None), (0.25, None, None)]
)
def test_costs_that_the_tiers_report_are_added(
    cheap: float | None, dear: float | None, total: float | None
) -> None:
    """Or unknown as a whole, as soon as one of them is."""
    first, second = tier("a", reply("Hm", tokens=1, cost=cheap)), tier("b", reply(cost=dear))
    assert total == ask(first, second).cost_usd


def test_a_failure_leaves_the_cost_known_unless_it_used_tokens() -> None:
    """A rate limit costs nothing; a stream that broke off does, and nobody says how much."""
    assert 1 == ask(tier("a", Overloaded()), tier("b", reply(cost=1))).cost_usd
    used = Overloaded(usage=Usage(input_tokens=1))
    assert None is ask(tier("a", used), tier("b", reply(cost=1))).cost_usd


def test_a_reply_keeps_everything_else() -> None:
    """Parts and stop reason are the accepted tier's."""
    original = replace(reply(), stop_reason="stop_sequence")
    assert replace(original, model="a") == replace(ask(tier("a", original), tier("b")), rejected=())


def test_cancelling_a_tier_asks_no_other() -> None:
    """A cancelled run is over."""
    started = asyncio.Event()

    async def hang(request: ModelRequest) -> Reply:
        started.set()
        await asyncio.Event().wait()
        return "Never"

    dear = tier("dear", GOOD)
    cascade = CascadingProvider([ScriptedProvider(hang), dear])

    async def cancel_while_it_asks() -> None:
        asked = asyncio.create_task(cascade.complete(REQUEST))
        await started.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    asyncio.run(cancel_while_it_asks())
    assert [] == dear.requests


def test_a_cascade_without_tiers_is_a_mistake() -> None:
    """Said when it is built, not when it is asked."""
    with pytest.raises(ConfigError, match="at least one tier"):
        CascadingProvider([])
