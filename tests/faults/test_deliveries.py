"""Messages that are delivered again and again, while their steps are under way and afterwards."""

from __future__ import annotations

import time

import pytest

from tests.faults.conftest import MakeFleet
from tests.faults.test_network import STEPS, calls_under_way, clear, once, outcomes
from tests.support.fleet import Fleet, prompt

VISIBLE = 1
"""The visibility timeout of these workers, in seconds: far below the length of a step."""
IMPATIENT = {
    "broker_transport_options": {
        "visibility_timeout": VISIBLE,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "max_connections": 100,
    }
}


@pytest.mark.parametrize("steps", STEPS)
def test_a_step_longer_than_the_visibility_timeout_is_done_once(
    make_fleet: MakeFleet, postgres: str, steps: str
) -> None:
    """kombu hands its message to another worker; the journal knows better."""
    fleet = make_fleet(lease=3, steps=steps)
    for _ in range(2):
        fleet.start_worker(postgres, settings=IMPATIENT)
    [run_id] = fleet.send(prompt("r", ["pay a go", "look b go"], ["book c"]))
    fleet.until(lambda: fleet.begun() == {"a": 1, "b": 1}, "both calls were begun")
    until = time.monotonic() + 5 * VISIBLE
    fleet.until(lambda: time.monotonic() > until, "its message was visible again and again")
    fleet.open("go")
    assert "pay-a look-b book-c" == fleet.result_of(run_id)
    once(fleet, "a b c")
    assert {"1/tool/0": 1, "1/tool/1": 1, "2/tool/0": 1} == outcomes(fleet, run_id)
    clear(fleet)


@pytest.mark.parametrize("steps", STEPS)
def test_every_message_may_come_twice_while_its_step_is_done_and_after(
    make_fleet: MakeFleet, postgres: str, steps: str
) -> None:
    """Copies find the step held, or its outcome, or the end of the run."""
    fleet = make_fleet(lease=5, steps=steps)
    run_id = calls_under_way(fleet, postgres)
    copies(fleet, run_id, ["1/model", "1/tool/0", "1/tool/1"])
    fleet.open("go")
    assert "pay-a look-b book-c" == fleet.result_of(run_id)
    events = fleet.journal.events(run_id)
    copies(fleet, run_id, ["1/model", "1/tool/0", "2/tool/0", "3/model"])
    once(fleet, "a b c")
    assert events == fleet.journal.events(run_id)
    clear(fleet)


def copies(fleet: Fleet, run_id: str, steps: list[str]) -> None:
    """Deliver the messages of these steps twice more, and wait until the worker is through."""
    before = done(fleet)
    for step in [*steps, *steps]:
        fleet.send_step(run_id, step)
    fleet.until(lambda: done(fleet) >= before + 2 * len(steps), "the copies are dealt with")


def done(fleet: Fleet) -> int:
    """How many tool_call messages the workers have dealt with."""
    lines = [line for line in fleet.log().splitlines() if "Task heartbit.tool_call[" in line]
    return sum("succeeded" in line for line in lines)
