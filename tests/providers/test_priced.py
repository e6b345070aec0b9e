"""A provider whose completions say what they cost."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import pytest

from heartbit.core.messages import Completion, TextPart, Usage, user_message
from heartbit.core.pricing import Price
from heartbit.core.request import ModelRequest
from heartbit.core.retry import RetryPolicy
from heartbit.errors import Overloaded, TruncatedStream
from heartbit.providers.base import Provider
from heartbit.providers.cascade import CascadingProvider
from heartbit.providers.priced import PricedProvider
from heartbit.providers.retry import RetryingProvider
from heartbit.providers.scripted import ScriptedProvider
from tests.support.listening import Recorder

REQUEST = ModelRequest(system="You test.", messages=(user_message("Go on."),))
REPLY = Completion(
    parts=(TextPart(text="Paris is the capital."),),
    stop_reason="end_turn",
    usage=Usage(input_tokens=1_000_000, output_tokens=1_000_000),
)
PRICES = {
    "gpt-4o": Price(input_per_million=2.5, output_per_million=10),
    "gpt-4o-mini": Price(input_per_million=0.15, output_per_million=0.6),
}


def cost(completion: Completion, prices: Mapping[str, Price] = PRICES) -> float | None:
    """What the reply costs when gpt-4o was asked."""
    provider = PricedProvider(ScriptedProvider([completion], model="gpt-4o"), prices)
    return asyncio.run(provider.complete(REQUEST)).cost_usd


@pytest.mark.parametrize(
    ("answered", "dollars"),
    [
        ("gpt-4o", 12.5),
        ("gpt-4o-mini", 0.75),
        ("gpt-4o-2024-08-06", 12.5),
        (None, 12.5),
        ("gpt-4o-mini-2024-07-18", None),
        ("gpt-5", None),
    ],
)
def test_a_reply_has_the_price_of_the_model_that_answered(
    answered: str | None, dollars: float | None
) -> None:
    """An unknown model has none; it is never a similar one's."""
    assert dollars == cost(replace(REPLY, model=answered))


def test_a_reply_without_a_name_has_the_price_of_the_model_that_the_request_names() -> None:
    """And not that of the provider's own model, which was not asked."""
    provider = PricedProvider(ScriptedProvider([REPLY], model="gpt-4o"), PRICES)
    completion = asyncio.run(provider.complete(replace(REQUEST, model="gpt-4o-mini")))
    assert 0.75 == completion.cost_usd


def test_a_price_for_the_very_snapshot_comes_first() -> None:
    """Who lists it under its date means it."""
    prices = {**PRICES, "gpt-4o-2024-05-13": Price(input_per_million=5, output_per_million=15)}
    assert 20 == cost(replace(REPLY, model="gpt-4o-2024-05-13"), prices)


def test_what_the_provider_says_stays_where_no_price_is_known() -> None:
    """Some providers report what they bill."""
    assert 0.07 == cost(replace(REPLY, model="gpt-5", cost_usd=0.07))
    assert 12.5 == cost(replace(REPLY, model="gpt-4o", cost_usd=0.07))


def test_without_prices_there_is_no_cost() -> None:
    """No table is built in."""
    assert None is cost(replace(REPLY, model="gpt-4o"), {})


def test_a_cascade_is_priced_tier_by_tier() -> None:
    """The rejected reply at the cheap price, the accepted one at the dear one."""
    short = replace(REPLY, stop_reason="max_tokens", model="gpt-4o-mini-2024-07-18")
    tiers = [
        ScriptedProvider([short], model="gpt-4o-mini"),
        ScriptedProvider([REPLY], model="gpt-4o"),
    ]
    completion = asyncio.run(PricedProvider(CascadingProvider(tiers), PRICES).complete(REQUEST))
    assert 0.75 + 12.5 == completion.cost_usd


def test_failed_attempts_are_priced_too() -> None:
    """The provider around the retries sees what they add to the usage."""
    broken = TruncatedStream(usage=Usage(input_tokens=1_000_000))
    inner = ScriptedProvider([broken, REPLY], model="gpt-4o")
    policy = RetryPolicy(base_delay_ms=0, max_delay_ms=0)
    provider = PricedProvider(RetryingProvider(inner, policy), PRICES)
    assert 15 == asyncio.run(provider.complete(REQUEST)).cost_usd


def test_a_call_that_failed_for_good_says_what_it_cost() -> None:
    """Each tier of a cascade at its own price; a tier that nobody has a price for leaves no sum."""
    broken = TruncatedStream(usage=Usage(input_tokens=1_000_000))
    short = replace(REPLY, stop_reason="max_tokens")
    for first, dollars in (("gpt-4o-mini", 0.75 + 2.5), ("gpt-5", None)):
        tiers = [
            ScriptedProvider([short], model=first),
            ScriptedProvider([broken], model="gpt-4o"),
        ]
        provider = PricedProvider(CascadingProvider(tiers), PRICES)
        with pytest.raises(TruncatedStream) as failed:
            asyncio.run(provider.complete(REQUEST))
        assert dollars == failed.value.cost_usd
        broken = TruncatedStream(usage=Usage(input_tokens=1_000_000))


def test_errors_and_text_pass_through() -> None:
    """Nothing but the cost is its business."""
    provider = PricedProvider(ScriptedProvider([Overloaded(), "Hello world"]), PRICES)
    listener = Recorder()
    with pytest.raises(Overloaded):
        asyncio.run(provider.complete(REQUEST, listener))
    asyncio.run(provider.complete(REQUEST, listener))
    assert ["Hello ", "world"] == listener.heard


def test_it_looks_like_the_provider_it_asks() -> None:
    """Wrappers can be put into each other in any order."""
    provider = PricedProvider(ScriptedProvider([], name="openai", model="gpt-4o"), {})
    assert isinstance(provider, Provider)
    assert ("openai", "gpt-4o") == (provider.name, provider.model)
