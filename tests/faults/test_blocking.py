"""A tool that blocks the loop of its process, beside many steps that others could take over."""

from __future__ import annotations

import time

import pytest

from tests.faults.conftest import MakeFleet
from tests.faults.test_network import STEPS, clear
from tests.support.fleet import prompt

LEASE = 3
RUNS = 100


@pytest.mark.parametrize("steps", STEPS)
def test_a_blocking_tool_costs_no_other_step_its_lease(
    make_fleet: MakeFleet, postgres: str, steps: str
) -> None:
    """Leases are renewed by a thread of their own, however long the loop stands still."""
    fleet = make_fleet(lease=LEASE, steps=steps)
    fleet.start_worker(postgres, concurrency=RUNS + 8)
    run_ids = fleet.send(*(prompt(f"r{n}", [f"pay {n} go"]) for n in range(RUNS)))
    fleet.until(lambda: len(fleet.begun("pay")) == RUNS, "all payments are under way")
    [blocker] = fleet.send(prompt("b", ["block b end"]))
    fleet.until(lambda: fleet.begun("block"), "the loop stands still")
    fleet.start_worker(postgres)
    until = time.monotonic() + 2 * LEASE
    fleet.until(lambda: time.monotonic() > until, "every lease would have run out by now")
    fleet.open("go")
    fleet.open("end")
    for n, run_id in enumerate(run_ids):
        assert f"pay-{n}" == fleet.result_of(run_id)
    assert "block-b" == fleet.result_of(blocker)
    assert {1} == set(fleet.begun().values())
    clear(fleet)
