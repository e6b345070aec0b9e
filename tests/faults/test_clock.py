"""The clock of the database leaps by an hour, in both directions, while steps are under way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import psycopg
import pytest

from tests.faults.conftest import MakeFleet
from tests.faults.test_network import STEPS, calls_under_way, clear, outcomes
from tests.support.fleet import prompt

SetClock = Callable[[str], None]
CLOCK = """
    create or replace function heartbit_now() returns timestamptz language sql stable as $$
        select clock_timestamp() + interval '{}'
    $$
"""


@pytest.fixture
def set_clock(postgres: str) -> Iterator[SetClock]:
    """Moves the clock that every statement of the journal goes by."""
    with psycopg.connect(postgres, autocommit=True) as connection:
        found = connection.execute("select pg_get_functiondef('heartbit_now'::regproc)").fetchone()
        assert found is not None

        def move(offset: str) -> None:
            connection.execute(CLOCK.format(offset))

        yield move
        connection.execute(found[0])


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("leap", ["1 hour", "-1 hour"])
def test_no_payment_is_begun_again_when_the_clock_leaps(
    make_fleet: MakeFleet, postgres: str, set_clock: SetClock, leap: str, steps: str
) -> None:
    """Forward, every lease seems to have run out; backward, none will for an hour."""
    fleet = make_fleet(lease=2, steps=steps)
    run_id = calls_under_way(fleet, postgres)
    set_clock(leap)
    [other] = fleet.send(prompt("s", ["pay d"], ["look e"]))
    assert "pay-d look-e" == fleet.result_of(other)
    assert 3000 < abs((fleet.journal.run(other).created_at - datetime.now(UTC)).total_seconds())
    fleet.open("go")
    assert fleet.result_of(run_id).endswith("look-b book-c")
    assert (1, 1) == (fleet.begun("pay")["a"], fleet.begun("pay")["d"])
    assert {"1/tool/0": 1, "1/tool/1": 1, "2/tool/0": 1} == outcomes(fleet, run_id)
    clear(fleet)


@pytest.mark.parametrize("steps", STEPS)
def test_a_clock_that_leaps_there_and_back_ends_every_run(
    make_fleet: MakeFleet, postgres: str, set_clock: SetClock, steps: str
) -> None:
    """Leases taken an hour ahead are renewed by the clock that there is."""
    fleet = make_fleet(lease=2, steps=steps)
    run_id = calls_under_way(fleet, postgres)
    for leap in ("1 hour", "0", "-1 hour", "0"):
        set_clock(leap)
        [each] = fleet.send(prompt(f"at{leap}", ["look x"]))
        assert "look-x" == fleet.result_of(each)
    fleet.open("go")
    assert fleet.result_of(run_id).endswith("look-b book-c")
    assert 1 == fleet.begun("pay")["a"]
    clear(fleet)
