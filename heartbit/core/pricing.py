"""What tokens cost. Prices come from the configuration: a table in here would go stale."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from heartbit.core.cascade import accepted_usage
from heartbit.core.messages import Completion, Usage
from heartbit.errors import ConfigError

_PER_MILLION = 1_000_000
_DATE = re.compile(r"-(\d{8}|\d{4}-\d{2}-\d{2})\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """What a model costs, in USD per million tokens.

    Cached input without a price of its own costs what other input costs.

    Raises:
        ConfigError: a negative or infinite price.
    """

    input_per_million: float
    output_per_million: float
    cache_read_per_million: float | None = None
    cache_write_per_million: float | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ConfigError(f"The price {name} is {value}; it must be a number from zero up.")


def cost_usd(usage: Usage, price: Price) -> float:
    """What `usage` costs. Reasoning tokens are output tokens and are not counted again."""
    read, write = price.cache_read_per_million, price.cache_write_per_million
    return (
        usage.input_tokens * price.input_per_million
        + usage.output_tokens * price.output_per_million
        + usage.cache_read_tokens * (price.input_per_million if read is None else read)
        + usage.cache_write_tokens * (price.input_per_million if write is None else write)
    ) / _PER_MILLION


def completion_cost_usd(
    completion: Completion, price_of: Callable[[str | None], Price | None]
) -> float | None:
    """The cost of a reply with its rejected tiers, each at its own model's price.

    None as soon as one of them used tokens at an unknown price: part of a sum is no sum.
    """
    shares = [(completion.model, accepted_usage(completion))]
    shares += [(tier.model, tier.usage) for tier in completion.rejected]
    total = 0.0
    for model, usage in shares:
        if usage == Usage():
            continue
        price = price_of(model)
        if price is None:
            return None
        total += cost_usd(usage, price)
    return total


def asked_name(answered: str | None, asked: str) -> str:
    """The name prices are known by, of the model that answered when `asked` was asked for.

    A provider may answer under the name of a dated snapshot ("gpt-4o-2024-08-06" for "gpt-4o") or
    under none: both are the model that was asked for. Any other name is another model's.
    """
    if answered is None or _DATE.sub("", answered) == asked:
        return asked
    return answered
