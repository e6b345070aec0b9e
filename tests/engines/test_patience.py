"""An outcome that the database cannot take is kept, and offered again while that makes sense."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from heartbit.engines.patience import LIMIT_SECONDS, Patience
from heartbit.errors import JournalUnavailable, LeaseLost
from tests.support.bench import Clock

AWAY = JournalUnavailable("The database's disk is full; nothing was written.")


class Waiting:
    """Patience whose pauses only move a clock."""

    def __init__(self, jitter: float = 1.0) -> None:
        self.clock = Clock()
        self.pauses: list[float] = []
        self.ending = False
        self.patience = Patience(
            clock=self.clock, sleep=self._sleep, jitter=lambda: jitter, ending=lambda: self.ending
        )

    def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock.now += seconds


def failing(times: int, error: Exception = AWAY) -> Callable[[], str]:
    """A store that fails so often, and then takes it."""
    left = [error] * times

    def store() -> str:
        if left:
            raise left.pop()
        return "stored"

    return store


def test_what_is_stored_at_once_waits_for_nothing_and_says_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As always."""
    waiting = Waiting()
    assert "stored" == waiting.patience.offer("The outcome", failing(0))
    assert ([], []) == (waiting.pauses, caplog.records)


def test_an_outcome_is_offered_until_it_is_stored(caplog: pytest.LogCaptureFixture) -> None:
    """One line when that begins and one when it is over, however often it was tried."""
    waiting = Waiting()
    assert "stored" == waiting.patience.offer("The outcome of run 1 step 1/model", failing(9))
    assert [0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0, 2.0, 2.0] == waiting.pauses
    assert [
        "The outcome of run 1 step 1/model is kept, it cannot be stored yet: "
        "The database's disk is full; nothing was written.",
        "The outcome of run 1 step 1/model has reached the database, after 13.0 s.",
    ] == [record.getMessage() for record in caplog.records]


def test_those_who_wait_together_come_back_one_by_one() -> None:
    """A part of each pause is drawn."""
    waiting = Waiting(jitter=0.5)
    waiting.patience.offer("The outcome", failing(2))
    assert pytest.approx([0.15, 0.3]) == waiting.pauses


def test_an_outage_without_end_is_given_up_and_told(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever looks after the step then treats it as lost."""
    waiting = Waiting()
    with pytest.raises(JournalUnavailable):
        waiting.patience.offer("The outcome", failing(10_000))
    assert LIMIT_SECONDS <= sum(waiting.pauses) < LIMIT_SECONDS + 10
    last = caplog.records[-1]
    assert logging.ERROR == last.levelno
    assert last.getMessage().startswith("The outcome is lost after 60")


def test_a_process_that_ends_offers_it_once_more() -> None:
    """It is asked to go, and the database may be back at this moment."""
    waiting = Waiting()
    waiting.ending = True
    assert "stored" == waiting.patience.offer("The outcome", failing(1))
    with pytest.raises(JournalUnavailable):
        waiting.patience.offer("The outcome", failing(2))
    assert [0.2, 0.2] == waiting.pauses


def test_whatever_else_goes_wrong_is_not_tried_again() -> None:
    """Neither at first nor later: somebody else has the step."""
    waiting = Waiting()
    with pytest.raises(LeaseLost):
        waiting.patience.offer("The outcome", failing(1, LeaseLost()))
    assert [] == waiting.pauses
