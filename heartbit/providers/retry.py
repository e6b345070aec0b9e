"""A provider that asks again when a call failed in a way that may pass. The rule is in core."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from heartbit.core.messages import Completion, Usage
from heartbit.core.request import ModelRequest
from heartbit.core.retry import RetryPolicy, Tried
from heartbit.errors import CallPutOff, ProviderError
from heartbit.providers.base import Listener, Provider

LONGEST_PAUSE_SECONDS = 5.0
"""How long a caller is kept waiting who could have the call go on later."""


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
    attempts are known to have used is in the usage of the completion, or of the error. A request
    that may be put off is, if the wait is longer than `LONGEST_PAUSE_SECONDS`; the policy counts
    its attempts before and after as those of one call.
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
        """Ask, and ask again while the policy allows it.

        Raises:
            ProviderError: of the last attempt.
            CallPutOff: the request may be put off, and the next attempt is not due for long.
        """
        ear = _Ear(listener) if listener else None
        before, once = request.tried or Tried(), _once(request)
        lost, attempt = before.usage, before.count + 1
        while True:
            try:
                completion = await self.provider.complete(once, ear)
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
            if request.tried is not None and delay > LONGEST_PAUSE_SECONDS:
                raise CallPutOff(delay, Tried(count=attempt, usage=lost))
            await self.sleep(delay)
            attempt += 1


def _once(request: ModelRequest) -> ModelRequest:
    """The request of one attempt, which nobody else puts off."""
    return request if request.tried is None else replace(request, tried=None)


def _with_lost(completion: Completion, lost: Usage) -> Completion:
    if lost == Usage():
        return completion
    # A cost that came with the reply is that of one attempt, and no longer the whole.
    return replace(completion, usage=completion.usage + lost, cost_usd=None)
