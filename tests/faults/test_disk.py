"""A database whose disk is full while the outcomes of steps are to be stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest

from tests.faults.conftest import MakeFleet
from tests.faults.test_network import STEPS, calls_under_way, clear, once, outcomes

FULL = """
    create function disk_is_full() returns trigger language plpgsql as $$
    begin
        raise exception 'could not extend file: No space left on device' using errcode = '53100';
    end $$;
    create trigger disk_is_full before insert on run_events
        for each row execute function disk_is_full();
"""
ROOM = """
    drop trigger if exists disk_is_full on run_events;
    drop function if exists disk_is_full;
"""


@pytest.fixture
def disk(postgres: str) -> Iterator[Callable[[str], None]]:
    """Fills the disk, and makes room on it."""
    with psycopg.connect(postgres, autocommit=True) as connection:
        yield connection.execute  # type: ignore[misc]
        connection.execute(ROOM)


@pytest.mark.parametrize("steps", STEPS)
def test_outcomes_are_kept_until_the_disk_has_room(
    make_fleet: MakeFleet, postgres: str, disk: Callable[[str], None], steps: str
) -> None:
    """Longer than a lease, as leases can be renewed where nothing new can be stored."""
    fleet = make_fleet(lease=1, steps=steps)
    run_id = calls_under_way(fleet, postgres)
    disk(FULL)
    fleet.open("go")
    fleet.until(
        lambda: [line for line in fleet.complaints() if "disk is full" in line],
        "the log says that the disk is full",
    )
    disk(ROOM)
    assert "pay-a look-b book-c" == fleet.result_of(run_id)
    once(fleet, "a b c")
    assert {"1/tool/0": 1, "1/tool/1": 1, "2/tool/0": 1} == outcomes(fleet, run_id)
    clear(fleet)
