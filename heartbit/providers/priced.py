"""A provider whose completions, and whose failed calls, say what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from heartbit.core.messages import Completion, Usage
from heartbit.core.pricing import Price, asked_name, completion_cost_usd
from heartbit.core.request import ModelRequest
from heartbit.errors import ProviderError
from heartbit.providers.base import Listener, Provider


@dataclass(frozen=True, slots=True)
class PricedProvider:
    """Sets `cost_usd` of every completion from `prices`, by the name of the model that answered.

    If that (or a rejected tier's) has no price, the cost stays what the provider said, mostly
    None. Put it around retries and cascades, so that what they add to the usage is priced too.
    """

    provider: Provider
    prices: Mapping[str, Price]

    @property
    def name(self) -> str:
        """Who serves."""
        return self.provider.name

    @property
    def model(self) -> str:
        """The model that is asked."""
        return self.provider.model

    async def complete(self, request: ModelRequest, listener: Listener | None = None) -> Completion:
        """Ask once, and price the reply, or the error."""
        asked = request.model or self.model
        try:
            completion = await self.provider.complete(request, listener)
        except ProviderError as error:
            if error.usage is not None:
                error.cost_usd = self._cost(_like_a_reply(error, error.usage), asked)
            raise
        cost = self._cost(completion, asked)
        return completion if cost is None else replace(completion, cost_usd=cost)

    def _cost(self, completion: Completion, asked: str) -> float | None:
        return completion_cost_usd(completion, lambda model: self._price_of(model, asked))

    def _price_of(self, model: str | None, asked: str) -> Price | None:
        exact = None if model is None else self.prices.get(model)
        return exact or self.prices.get(asked_name(model, asked))


def _like_a_reply(error: ProviderError, usage: Usage) -> Completion:
    """What a failed call has used, as a reply that used as much."""
    return Completion(
        parts=(), stop_reason="end_turn", usage=usage, model=error.model, rejected=error.rejected
    )
