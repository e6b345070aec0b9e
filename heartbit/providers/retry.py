"""A provider that asks again when a call failed in a way that may pass. The rule is in core."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from heartbit.core.messages import Completion, Usage
from heartbit.core.request import ModelRequest
from heartbit.core.retry import RetryPolicy
from heartbit.errors import ProviderError
from heartbit.providers.base import Listener, Provider


class _Ear:
    """Passes on what is heard, and knows whether there is anything to take back."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._heard = False

    def text(self, delta: str) -> None:
        self._heard = True
        self._listener.text(delta)

    def restarted(self, reason: str) -> None:
        self._heard = False
        self._listener.restarted(reason)

    def take_back(self, reason: str) -> None:
        if self._heard:
            self.restarted(reason)


@dataclass(frozen=True, slots=True)
class RetryingProvider:
    """Asks `provider` until it replies or `policy` gives up; then the last error is raised.

    A listener that had heard text of a failed attempt is told so before the next one. What failed
    attempts are known to have used is in the usage of the completion, or of the error.
    """

    provider: Provider
    policy: RetryPolicy
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    jitter: Callable[[], float] = random.random

    @property
    def name(self) -> str:
        """Who serves."""
        return self.provider.name

    @property
    def model(self) -> str:
        """The model that is asked, again and again."""
        return self.provider.model

    async def complete(self, request: ModelRequest, listener: Listener | None = None) -> Completion:
        """Ask, and ask again while the policy allows it."""
        ear = _Ear(listener) if listener else None
        lost = Usage()
        attempt = 1
        while True:
            try:
                completion = await self.provider.complete(request, ear)
                return _with_lost(completion, lost)
            except ProviderError as error:
                lost += error.usage or Usage()
                delay = self.policy.delay_seconds(attempt, error, self.jitter())
                if delay is None:
                    error.usage = lost
                    raise
                reason = error.message
            if ear:
                ear.take_back(reason)
            await self.sleep(delay)
            attempt += 1


def _with_lost(completion: Completion, lost: Usage) -> Completion:
    if lost == Usage():
        return completion
    # A cost that came with the reply is that of one attempt, and no longer the whole.
    return replace(completion, usage=completion.usage + lost, cost_usd=None)
