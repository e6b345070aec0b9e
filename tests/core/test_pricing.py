"""What tokens cost, and when nobody can say."""

from __future__ import annotations

import math

import pytest

from heartbit.core.messages import Completion, RejectedTier, Usage
from heartbit.core.pricing import Price, asked_name, completion_cost_usd, cost_usd
from heartbit.errors import ConfigError

PRICE = Price(
    input_per_million=3,
    output_per_million=15,
    cache_read_per_million=0.3,
    cache_write_per_million=3.75,
)
CHEAP = Price(input_per_million=1, output_per_million=2)
PRICES: dict[str | None, Price] = {"main": PRICE, "cheap": CHEAP}
MILLION = 1_000_000


@pytest.mark.parametrize(
    ("usage", "dollars"),
    [
        (Usage(), 0),
        (Usage(input_tokens=MILLION), 3),
        (Usage(output_tokens=MILLION), 15),
        (Usage(cache_read_tokens=MILLION), 0.3),
        (Usage(cache_write_tokens=MILLION), 3.75),
        (Usage(input_tokens=1000, output_tokens=200, cache_read_tokens=10_000), 0.009),
    ],
)
def test_each_kind_of_token_has_its_price(usage: Usage, dollars: float) -> None:
    """In USD per million."""
    assert dollars == pytest.approx(cost_usd(usage, PRICE))


def test_reasoning_tokens_are_never_counted_twice() -> None:
    """They are a part of the output tokens."""
    usage = Usage(output_tokens=MILLION, reasoning_tokens=900_000)
    assert 15 == cost_usd(usage, PRICE)


def test_cached_input_without_a_price_of_its_own_is_input() -> None:
    """Free input would be an invention."""
    usage = Usage(cache_read_tokens=MILLION, cache_write_tokens=MILLION)
    assert 2 == cost_usd(usage, CHEAP)


def test_a_price_of_zero_is_a_price() -> None:
    """Free is not the same as unknown, nor does it fall back to another price."""
    partly_free = Price(input_per_million=9, output_per_million=0, cache_read_per_million=0)
    assert 0 == cost_usd(Usage(output_tokens=5, cache_read_tokens=5), partly_free)


@pytest.mark.parametrize("value", [-1, math.inf, math.nan])
@pytest.mark.parametrize(
    "name",
    [
        "input_per_million",
        "output_per_million",
        "cache_read_per_million",
        "cache_write_per_million",
    ],
)
def test_a_price_is_a_number_from_zero_up(name: str, value: float) -> None:
    """The error names the one that is not."""
    fields = {"input_per_million": 1.0, "output_per_million": 1.0, name: value}
    with pytest.raises(ConfigError, match=name):
        Price(**fields)


def reply(model: str | None, usage: Usage, *rejected: RejectedTier) -> Completion:
    """A completion whose usage includes that of its rejected tiers."""
    whole = sum((tier.usage for tier in rejected), usage)
    return Completion(parts=(), stop_reason="end_turn", model=model, usage=whole, rejected=rejected)


def test_rejected_tiers_are_priced_as_what_they_are() -> None:
    """Each at its own price, nothing twice: 3 for main, 1 for cheap."""
    tier = RejectedTier(model="cheap", reason="short", usage=Usage(input_tokens=MILLION))
    completion = reply("main", Usage(input_tokens=MILLION), tier)
    assert 4 == completion_cost_usd(completion, PRICES.get)


@pytest.mark.parametrize(("model", "tier"), [("new", "cheap"), ("main", "new"), ("new", "new")])
def test_part_of_a_sum_is_no_sum(model: str, tier: str) -> None:
    """One unknown price makes the cost unknown."""
    used = Usage(output_tokens=1)
    rejected = RejectedTier(model=tier, reason="short", usage=used)
    assert None is completion_cost_usd(reply(model, used, rejected), PRICES.get)


def test_a_tier_that_used_nothing_needs_no_price() -> None:
    """A call that failed before it cost anything."""
    rejected = RejectedTier(model="new", reason="Overloaded")
    completion = reply("main", Usage(output_tokens=MILLION), rejected)
    assert 15 == completion_cost_usd(completion, PRICES.get)


@pytest.mark.parametrize(
    ("answered", "asked", "name"),
    [
        (None, "gpt-4o", "gpt-4o"),
        ("gpt-4o", "gpt-4o", "gpt-4o"),
        ("gpt-4o-2024-08-06", "gpt-4o", "gpt-4o"),
        ("claude-sonnet-4-20250514", "claude-sonnet-4", "claude-sonnet-4"),
        ("gpt-4o-mini", "gpt-4o", "gpt-4o-mini"),
        ("gpt-4o-mini-2024-07-18", "gpt-4o", "gpt-4o-mini-2024-07-18"),
        ("gpt-4o-2024-05-13", "gpt-4o-2024-08-06", "gpt-4o-2024-05-13"),
    ],
)
def test_only_a_dated_snapshot_goes_by_the_name_that_was_asked_for(
    answered: str | None, asked: str, name: str
) -> None:
    """Every other name is another model with another price."""
    assert name == asked_name(answered, asked)
