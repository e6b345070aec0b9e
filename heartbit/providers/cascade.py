"""A provider that asks a cheap model first, a dearer one only if needed. The rules are in core."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from heartbit.core.cascade import Gate, accepted_usage, another_model_may_help
from heartbit.core.messages import Completion, RejectedTier, Usage
from heartbit.core.pricing import asked_name
from heartbit.core.request import ModelRequest
from heartbit.core.retry import Tried
from heartbit.errors import CallPutOff, ConfigError, ProviderError
from heartbit.providers.base import Listener, Provider


@dataclass(frozen=True, slots=True)
class CascadingProvider:
    """Asks its tiers, cheapest first, until `gate` accepts a reply; the last one's always counts.

    Any providers can be tiers. Rejected replies and failed calls are in `Completion.rejected`, and
    in its usage and cost. Before the last tier a listener hears nothing that may be taken back: an
    accepted reply comes as one piece, and only the last tier streams. A request for another model
    than the last tier's goes to that tier alone: whoever names a model wants no cheaper one. A call
    that a tier puts off goes on with that tier.

    Raises:
        ConfigError: no tiers.
    """

    tiers: Sequence[Provider]
    gate: Gate = Gate()

    def __post_init__(self) -> None:
        if not self.tiers:
            raise ConfigError("A cascade needs at least one tier; add one to cascade.tiers.")

    @property
    def name(self) -> str:
        """Who serves the last tier, the one that is always there."""
        return self.tiers[-1].name

    @property
    def model(self) -> str:
        """The model of the last tier; who answered is in the completion."""
        return self.tiers[-1].model

    async def complete(self, request: ModelRequest, listener: Listener | None = None) -> Completion:
        """Ask the tiers in turn.

        Raises:
            ProviderError: of the last tier, or of one whose failure no other model can mend; its
                usage includes that of the tiers before.
            CallPutOff: a tier has put the call off.
        """
        if request.model not in ("", self.model):
            return await self.tiers[-1].complete(request, listener)
        own = replace(request, model="") if request.model else request
        before = request.tried or Tried()
        spent = _Spent(rejected=before.rejected, usage=before.usage, cost_usd=before.cost_usd)
        last = len(self.tiers) - 1
        for place in range(min(before.count, last), last):
            tier = self.tiers[place]
            with _put_off(place, spent):
                completion = await self._try(tier, _for_tier(own, place), spent)
            if completion is not None:
                _tell(listener, completion)
                return spent.accept(tier, completion)
        with _put_off(last, spent):
            return await _last(self.tiers[last], _for_tier(own, last), listener, spent)

    async def _try(self, tier: Provider, request: ModelRequest, spent: _Spent) -> Completion | None:
        try:
            completion = await tier.complete(request)
        except ProviderError as error:
            if not another_model_may_help(error):
                spent.charge(tier, error)
                raise
            spent.fail(tier, error)
            return None
        reason = self.gate.verdict(completion)
        if reason is None:
            return completion
        spent.reject(tier, completion, reason)
        return None


def _for_tier(request: ModelRequest, place: int) -> ModelRequest:
    """The request for the tier at `place`: only the one that had put it off goes on with it."""
    if request.tried is None:
        return request
    inner = request.tried.inner if request.tried.count == place else None
    return replace(request, tried=inner or Tried())


@contextmanager
def _put_off(place: int, spent: _Spent) -> Iterator[None]:
    """Have a call that is put off know of the tiers before."""
    try:
        yield
    except CallPutOff as later:
        later.tried = Tried(
            count=place,
            usage=spent.usage,
            cost_usd=spent.cost_usd,
            rejected=spent.rejected,
            inner=later.tried,
        )
        raise


async def _last(
    tier: Provider, request: ModelRequest, listener: Listener | None, spent: _Spent
) -> Completion:
    try:
        completion = await tier.complete(request, listener)
    except ProviderError as error:
        spent.charge(tier, error)
        raise
    return spent.accept(tier, completion)


def _tell(listener: Listener | None, completion: Completion) -> None:
    text = completion.message.text
    if listener and text:
        listener.text(text)


@dataclass(slots=True)
class _Spent:
    """What one call has cost in tiers that did not answer it."""

    rejected: tuple[RejectedTier, ...] = ()
    usage: Usage = Usage()
    cost_usd: float | None = 0.0

    def reject(self, tier: Provider, completion: Completion, reason: str) -> None:
        """Count a reply that was not good enough (its own rejected tiers first)."""
        self.rejected += (
            *completion.rejected,
            RejectedTier(
                model=asked_name(completion.model, tier.model),
                reason=reason,
                usage=accepted_usage(completion),
            ),
        )
        self.usage += completion.usage
        self.cost_usd = _sum(self.cost_usd, completion.cost_usd)

    def fail(self, tier: Provider, error: ProviderError) -> None:
        """Count a call that failed."""
        usage = error.usage or Usage()
        reason = f"{type(error).__name__}: {error.message}"
        self.rejected += (RejectedTier(model=tier.model, reason=reason, usage=usage),)
        self.usage += usage
        if usage != Usage():
            self.cost_usd = None

    def accept(self, tier: Provider, completion: Completion) -> Completion:
        """The completion with everything that was spent on the way to it."""
        return replace(
            completion,
            model=asked_name(completion.model, tier.model),
            usage=self.usage + completion.usage,
            cost_usd=_sum(self.cost_usd, completion.cost_usd),
            rejected=self.rejected + completion.rejected,
        )

    def charge(self, tier: Provider, error: ProviderError) -> None:
        """Let the error that ends the call carry what was spent, and on whom."""
        error.usage = self.usage + (error.usage or Usage())
        error.model = error.model or tier.model
        error.rejected = self.rejected + error.rejected


def _sum(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first + second
