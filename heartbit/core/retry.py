"""When a failed model call is tried again, and after how long: the rule, without clock or dice."""

from __future__ import annotations

from dataclasses import dataclass

from heartbit.core.messages import RejectedTier, Usage
from heartbit.errors import ConfigError, ProviderError

RETRY_AFTER_STRETCH = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """What a model call has come to when it goes on later, so that it does not begin anew.

    `count` is how often a model was tried; of a cascade, how many tiers are done with. `usage`,
    `cost_usd` and `rejected` are what that has used. `inner` is the same of the tier that is next.
    """

    count: int = 0
    usage: Usage = Usage()
    cost_usd: float | None = 0.0
    rejected: tuple[RejectedTier, ...] = ()
    inner: Tried | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter, unless the provider says how long to wait.

    A call is tried at most `max_retries + 1` times. Without a Retry-After the wait after attempt n
    is drawn evenly from zero to `base_delay_ms * 2**(n - 1)`, capped at `max_delay_ms`: callers
    that failed together do not come back together.

    A Retry-After above zero is waited for exactly. One of more than `RETRY_AFTER_STRETCH` times
    `max_delay_ms` (2 minutes by default) ends the retries instead: coming back earlier would fail
    again, and a caller in a process should not sit still for that long.

    Raises:
        ConfigError: a negative number, or a base above the maximum.
    """

    max_retries: int = 3
    base_delay_ms: int = 500
    max_delay_ms: int = 30_000

    def __post_init__(self) -> None:
        for name in ("max_retries", "base_delay_ms", "max_delay_ms"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"retry.{name} is {getattr(self, name)}; it must not be negative."
                )
        if self.base_delay_ms > self.max_delay_ms:
            raise ConfigError(
                f"retry.base_delay_ms ({self.base_delay_ms}) is above retry.max_delay_ms "
                f"({self.max_delay_ms}); lower the one or raise the other."
            )

    def delay_seconds(self, attempt: int, error: ProviderError, jitter: float) -> float | None:
        """How long to wait after the failure of `attempt` (from 1); None: do not try again.

        `jitter` is a random number from 0 to below 1.
        """
        if not error.retryable or attempt > self.max_retries:
            return None
        asked = error.retry_after
        if asked is not None and asked > 0:
            return asked if asked <= self._longest_retry_after else None
        return jitter * self._backoff_ms(attempt) / 1000

    @property
    def _longest_retry_after(self) -> float:
        return RETRY_AFTER_STRETCH * self.max_delay_ms / 1000

    def _backoff_ms(self, attempt: int) -> int:
        # Doubling more often than the maximum has bits changes nothing but the size of the number.
        doublings = min(attempt - 1, self.max_delay_ms.bit_length())
        return min(self.base_delay_ms << doublings, self.max_delay_ms)
