"""A worker whose line to PostgreSQL or to Redis is cut, closed or silent while runs go on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import pytest

from heartbit.core.events import ToolReturned
from tests.faults.conftest import MakeFleet
from tests.support.fleet import Fleet, prompt
from tests.support.proxy import Proxy

LEASE = 5
FAULTS: dict[str, Callable[[Proxy], None]] = {
    "cut": Proxy.cut,
    "refused": Proxy.refuse,
    "silent": Proxy.stall,
}
STEPS = ["each", "batched"]
TWO_TURNS = prompt("r", ["pay a go", "look b go"], ["book c"])


def calls_under_way(fleet: Fleet, database: str, broker: str | None = None) -> str:
    """A run of which two calls are under way until the gate is opened."""
    fleet.start_worker(database, broker)
    [run_id] = fleet.send(TWO_TURNS)
    fleet.until(lambda: fleet.begun() == {"a": 1, "b": 1}, "both calls were begun")
    return run_id


def once(fleet: Fleet, labels: str) -> None:
    """Each of these calls was begun once, and no turn was asked for twice."""
    assert dict.fromkeys(labels.split(), 1) == fleet.begun()
    assert {1} == set(fleet.requests().values())


def outcomes(fleet: Fleet, run_id: str) -> Counter[str]:
    """How often the journal has the outcome of each tool call."""
    events = fleet.journal.events(run_id)
    return Counter(event.step for event in events if isinstance(event, ToolReturned))


def for_seconds(fleet: Fleet, seconds: float) -> None:
    """Let an outage last."""
    until = time.monotonic() + seconds
    fleet.until(lambda: time.monotonic() >= until, "time goes by")


def clear(fleet: Fleet) -> None:
    """The log says what was the matter, and nothing in it looks like a defect of heartbit."""
    lines = fleet.complaints()
    assert not [line for line in lines if "failed and will be tried again" in line], lines
    assert len(lines) <= 40, lines
    assert "Traceback" not in "".join(lines)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_line_to_the_database_that_fails_for_less_than_a_lease_costs_nothing(
    make_fleet: MakeFleet, to_postgres: Proxy, postgres: str, fault: str, steps: str
) -> None:
    """Two calls end while it is away: both outcomes are kept until they can be stored."""
    fleet = make_fleet(lease=LEASE, steps=steps)
    run_id = calls_under_way(fleet, to_postgres.url(postgres))
    FAULTS[fault](to_postgres)
    fleet.open("go")
    if fault == "refused":
        fleet.until(lambda: fleet.complaints(), "the log says that the database is away")
    if fault == "silent":
        for_seconds(fleet, 1)
    to_postgres.mend()
    assert "pay-a look-b book-c" == fleet.result_of(run_id)
    once(fleet, "a b c")
    assert {"1/tool/0": 1, "1/tool/1": 1, "2/tool/0": 1} == outcomes(fleet, run_id)
    clear(fleet)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("fault", ["refused", "silent"])
def test_a_line_to_the_database_that_fails_for_longer_than_a_lease_repeats_only_what_may_be(
    make_fleet: MakeFleet, to_postgres: Proxy, postgres: str, fault: str, steps: str
) -> None:
    """Nobody can tell this from a lost worker: the payment is in doubt, the look done again."""
    fleet = make_fleet(lease=1, steps=steps)
    run_id = calls_under_way(fleet, to_postgres.url(postgres))
    FAULTS[fault](to_postgres)
    for_seconds(fleet, 2.5)
    fleet.open("go")
    to_postgres.mend()
    assert fleet.result_of(run_id).endswith("look-b book-c")
    assert (1, 1) == (fleet.begun("pay")["a"], fleet.begun("book")["c"])
    assert {"1/tool/0": 1, "1/tool/1": 1, "2/tool/0": 1} == outcomes(fleet, run_id)
    assert {1} == set(fleet.requests().values())
    clear(fleet)


def test_a_run_that_is_sent_while_the_database_is_away_waits_in_its_queue(
    make_fleet: MakeFleet, to_postgres: Proxy, postgres: str
) -> None:
    """Nothing but its message knows of it."""
    fleet = make_fleet(lease=LEASE)
    fleet.start_worker(to_postgres.url(postgres))
    to_postgres.refuse()
    [run_id] = fleet.send(prompt("r", ["look a"]))
    fleet.until(lambda: "waits in its queue" in fleet.log(), "the log says that the run waits")
    to_postgres.mend()
    assert "look-a" == fleet.result_of(run_id)
    once(fleet, "a")
    clear(fleet)


def test_a_worker_that_starts_while_the_database_is_away_sweeps_when_it_is_back(
    make_fleet: MakeFleet, to_postgres: Proxy, postgres: str
) -> None:
    """The message of the step is lost too, so that the sweep alone can find it."""
    fleet = make_fleet(lease=LEASE)
    to_postgres.refuse()
    fleet.start_worker(to_postgres.url(postgres))
    [run_id] = fleet.send(prompt("r", ["look a"]))
    fleet.until(lambda: "waits in its queue" in fleet.log(), "the log says that the run waits")
    to_postgres.mend()
    fleet.until(lambda: fleet.journal.tree(run_id), "the run is there")
    assert "look-a" == fleet.result_of(run_id)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_line_to_redis_that_fails_for_a_while_costs_nothing(
    make_fleet: MakeFleet,
    to_redis: Proxy,
    postgres: str,
    valkey: str,
    fault: str,
    steps: str,
) -> None:
    """Both calls end while it is away: what follows is sent when it is back."""
    fleet = make_fleet(lease=LEASE, steps=steps)
    run_id = calls_under_way(fleet, postgres, to_redis.url(valkey))
    FAULTS[fault](to_redis)
    fleet.open("go")
    fleet.until(lambda: len(outcomes(fleet, run_id)) >= 2, "both outcomes are in the journal")
    if fault != "cut":
        for_seconds(fleet, 1)
    to_redis.mend()
    assert "pay-a look-b book-c" == fleet.result_of(run_id)
    once(fleet, "a b c")
    assert {"1/tool/0": 1, "1/tool/1": 1, "2/tool/0": 1} == outcomes(fleet, run_id)
    clear(fleet)


@pytest.mark.parametrize("steps", STEPS)
def test_calls_may_outlive_an_outage_of_redis(
    make_fleet: MakeFleet, to_redis: Proxy, postgres: str, valkey: str, steps: str
) -> None:
    """Their messages cannot be acknowledged any more, and that ends nothing."""
    fleet = make_fleet(lease=LEASE, steps=steps)
    run_id = calls_under_way(fleet, postgres, to_redis.url(valkey))
    to_redis.refuse()
    fleet.until(lambda: "Cannot connect to redis" in fleet.log(), "the worker misses its broker")
    to_redis.mend()
    fleet.until(lambda: fleet.log().count("|Connected to redis") == 2, "it has found it again")
    fleet.open("go")
    assert "pay-a look-b book-c" == fleet.result_of(run_id)
    once(fleet, "a b c")
    clear(fleet)
    assert None is fleet.workers[0].poll()


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("fault", FAULTS)
def test_sub_agents_outlive_both_lines(
    make_fleet: MakeFleet,
    to_redis: Proxy,
    to_postgres: Proxy,
    postgres: str,
    valkey: str,
    fault: str,
    steps: str,
) -> None:
    """Their chord may be lost, their results are not."""
    fleet = make_fleet(lease=LEASE, steps=steps)
    fleet.start_worker(to_postgres.url(postgres), to_redis.url(valkey))
    team = [prompt("one", ["look a go"]), prompt("two", ["book b go"])]
    [run_id] = fleet.send(prompt("boss", [{"team": team}]), agent=None)
    fleet.until(lambda: fleet.begun() == {"a": 1, "b": 1}, "both sub-agents are at work")
    for line in (to_redis, to_postgres):
        FAULTS[fault](line)
    fleet.open("go")
    for_seconds(fleet, 1)
    for line in (to_redis, to_postgres):
        line.mend()
    result = fleet.result_of(run_id)
    assert "look-a" in result
    assert "book-b" in result
    once(fleet, "a b")
    clear(fleet)
