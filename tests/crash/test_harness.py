"""How often a boundary is gone for, when nobody comes there: lanes of the test's own."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from heartbit.chaos.harness import TRIES, Harness, Result
from heartbit.chaos.lane import EMPTY, Case, Lane, Played
from heartbit.chaos.saboteur import Spot
from heartbit.chaos.verdict import Seen

SPOTS = [Spot(role="worker", place="solo", what="complete", edge="after")]


class UnluckyLane:
    """Nobody comes to the boundary before the play with this number."""

    def __init__(self, lucky: int) -> None:
        self.plays = 0
        self._lucky = lucky

    def play(self, case: Case) -> Played:
        """One more."""
        self.plays += case.fault is not None
        return Played(
            case=case,
            seconds=0.0,
            struck=case.fault is not None and self.plays >= self._lucky,
            trouble=None,
            seen=Seen(record=EMPTY, requests=[], calls=[]),
            spots=SPOTS,
        )

    def close(self) -> None:
        """Nothing to end."""


def disturbed(lane: UnluckyLane) -> Result:
    """What comes of the one fault there is."""
    harness = Harness([cast(Lane, cast(Any, lane))], threading.Event())
    try:
        [result] = harness.results(harness.faults())
    finally:
        harness.close()
    return result


@pytest.mark.parametrize("lucky", [1, TRIES])
def test_a_boundary_that_another_process_took_is_gone_for_again(lucky: int) -> None:
    """On a busy machine the sweep may be quicker than the caller; that breaks no promise."""
    lane = UnluckyLane(lucky)
    assert [] == disturbed(lane).problems
    assert lucky == lane.plays


def test_a_boundary_to_which_nobody_ever_comes_is_told() -> None:
    """What was not disturbed has proved nothing."""
    lane = UnluckyLane(TRIES + 1)
    assert ["no process came to this boundary"] == disturbed(lane).problems
    assert TRIES == lane.plays
