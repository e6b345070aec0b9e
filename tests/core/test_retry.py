"""When a failed model call is tried again, and how long that waits."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbit.core.retry import RETRY_AFTER_STRETCH, RetryPolicy
from heartbit.errors import (
    AuthenticationFailed,
    CallTimedOut,
    ConfigError,
    ContentRefused,
    ContextTooLong,
    InvalidRequest,
    MalformedReply,
    NetworkFailure,
    Overloaded,
    ProviderError,
    RateLimited,
    ServerFailure,
    TruncatedStream,
)

ALMOST_ONE = math.nextafter(1.0, 0.0)
PASSING = [RateLimited, Overloaded, ServerFailure, NetworkFailure, CallTimedOut, TruncatedStream]
LASTING = [AuthenticationFailed, ContextTooLong, InvalidRequest, MalformedReply, ContentRefused]


@pytest.mark.parametrize("kind", PASSING)
def test_a_failure_that_may_pass_is_tried_again(kind: type[ProviderError]) -> None:
    """Rate limits, load, server and network failures, timeouts and broken streams."""
    assert 0.25 == RetryPolicy().delay_seconds(1, kind(), 0.5)


@pytest.mark.parametrize("kind", LASTING)
def test_a_failure_that_lasts_is_not_tried_again(kind: type[ProviderError]) -> None:
    """Not even when it carries a Retry-After; a reply nobody can read is no network failure."""
    assert None is RetryPolicy().delay_seconds(1, kind(retry_after=1), 0.5)


def test_every_provider_error_is_in_one_of_the_two_lists() -> None:
    """A new class must be sorted in here."""
    assert set(ProviderError.__subclasses__()) == {*PASSING, *LASTING}


def test_the_wait_doubles_up_to_the_maximum() -> None:
    """The upper end of what is drawn from: 0.5, 1, 2 ... seconds and never above 30."""
    policy = RetryPolicy(max_retries=10)
    waits = [policy.delay_seconds(attempt, Overloaded(), ALMOST_ONE) for attempt in range(1, 9)]
    assert [0.5, 1, 2, 4, 8, 16, 30, 30] == pytest.approx(waits)


def test_callers_that_failed_together_do_not_come_back_together() -> None:
    """Full jitter: the wait is drawn from all of zero to the backoff."""
    waits = [RetryPolicy().delay_seconds(3, Overloaded(), jitter) for jitter in (0.0, 0.25, 0.75)]
    assert [0.0, 0.5, 1.5] == waits


def test_the_retries_end_after_max_retries() -> None:
    """Three retries are four attempts."""
    policy = RetryPolicy(max_retries=3)
    tried_again = [policy.delay_seconds(n, Overloaded(), 0.5) is not None for n in range(1, 6)]
    assert [True, True, True, False, False] == tried_again


def test_no_retries_means_one_attempt() -> None:
    """max_retries = 0 is allowed and switches retries off."""
    assert None is RetryPolicy(max_retries=0).delay_seconds(1, Overloaded(), 0.5)


@pytest.mark.parametrize("asked", [0.001, 1.5, 30.0, 31.0, 120.0])
def test_retry_after_is_waited_for_exactly(asked: float) -> None:
    """It wins over backoff, jitter and max_delay_ms."""
    assert asked == RetryPolicy().delay_seconds(1, RateLimited(retry_after=asked), 0.9)


@pytest.mark.parametrize("asked", [120.001, 86_400.0, math.inf])
def test_a_retry_after_of_more_than_four_maximal_waits_ends_the_retries(asked: float) -> None:
    """A process neither sits still for hours nor comes back before it is welcome."""
    assert 4 == RETRY_AFTER_STRETCH
    assert None is RetryPolicy().delay_seconds(1, RateLimited(retry_after=asked), 0.9)


@pytest.mark.parametrize("asked", [None, 0.0, -5.0, math.nan])
def test_a_retry_after_that_asks_for_nothing_leaves_the_backoff(asked: float | None) -> None:
    """ "At once" from a server that just failed is no advice to hammer it."""
    assert 0.25 == RetryPolicy().delay_seconds(1, RateLimited(retry_after=asked), 0.5)


def test_a_retry_after_does_not_give_more_retries() -> None:
    """Politeness of the server doesn't lift the limit."""
    assert None is RetryPolicy(max_retries=1).delay_seconds(2, RateLimited(retry_after=1), 0.5)


@given(
    attempt=st.integers(1, 10**30),
    base=st.integers(0, 10**6),
    spread=st.integers(0, 10**9),
    jitter=st.floats(0, 1, exclude_max=True),
)
def test_no_attempt_is_too_many_for_the_arithmetic(
    attempt: int, base: int, spread: int, jitter: float
) -> None:
    """However often it failed, the wait is a number between zero and the maximum."""
    policy = RetryPolicy(max_retries=10**30, base_delay_ms=base, max_delay_ms=base + spread)
    delay = policy.delay_seconds(attempt, Overloaded(), jitter)
    assert delay is not None
    assert 0 <= delay <= (base + spread) / 1000


def test_the_base_may_equal_the_maximum_but_not_exceed_it() -> None:
    """Equal is a constant backoff; more is a mistake that names both settings."""
    policy = RetryPolicy(base_delay_ms=700, max_delay_ms=700)
    assert 0.35 == policy.delay_seconds(2, Overloaded(), 0.5)
    with pytest.raises(ConfigError, match=r"base_delay_ms \(701\).*max_delay_ms \(700\)"):
        RetryPolicy(base_delay_ms=701, max_delay_ms=700)


@pytest.mark.parametrize("name", ["max_retries", "base_delay_ms", "max_delay_ms"])
def test_no_setting_may_be_negative(name: str) -> None:
    """The error names the setting and its value."""
    with pytest.raises(ConfigError, match=f"{name} is -1"):
        RetryPolicy(**{name: -1})
