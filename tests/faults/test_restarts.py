"""PostgreSQL and Valkey stopped without warning and started again, while runs are under way."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from heartbit.embedded import EmbeddedPostgres, EmbeddedValkey
from heartbit.embedded.server import EmbeddedServer, free_port
from tests.faults.conftest import MakeFleet
from tests.faults.test_network import LEASE, STEPS, calls_under_way, clear, once
from tests.support.fleet import Fleet, prompt
from tests.support.shared_postgres import SCHEMA


def restart(
    server: EmbeddedServer,
    fleet: Fleet,
    how: signal.Signals,
    meanwhile: Callable[[], object] = lambda: None,
) -> None:
    """End a server without any good-bye to its clients, and start it at the same address."""
    assert server.pid is not None
    os.kill(server.pid, how)
    fleet.until(lambda: not server.is_alive(), "the server has ended")
    meanwhile()
    server.stop()
    server.start()


@pytest.fixture
def own_postgres(server_directory: Path) -> Iterator[EmbeddedPostgres]:
    """A server that a test may stop, always at the same address; it keeps what it has said."""
    port = free_port()
    with EmbeddedPostgres(server_directory, choose_port=lambda: port) as server:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(SCHEMA.read_bytes())
        yield server


@pytest.fixture(params=["kept", "lost"])
def own_valkey(request: pytest.FixtureRequest, server_directory: Path) -> Iterator[EmbeddedValkey]:
    """A server that a test may kill; its data is kept but for the last second, or lost."""
    port = free_port()
    durable = request.param == "kept"
    with EmbeddedValkey(
        server_directory / "valkey", durable=durable, choose_port=lambda: port
    ) as server:
        yield server


@pytest.mark.parametrize("steps", STEPS)
def test_an_immediate_stop_of_the_database_loses_nothing(
    make_fleet: MakeFleet, own_postgres: EmbeddedPostgres, steps: str
) -> None:
    """One run has two calls under way, one is between its turns, one has not begun."""
    fleet = make_fleet(database=own_postgres.url, lease=8, steps=steps)
    run_id = calls_under_way(fleet, own_postgres.url)
    others = fleet.send(*(prompt(f"o{n}", [f"pay o{n}"], [f"look o{n}"]) for n in range(5)))
    fleet.until(lambda: fleet.begun("pay")["o0"], "another run has begun")
    restart(
        own_postgres,
        fleet,
        signal.SIGQUIT,
        lambda: fleet.until(fleet.complaints, "somebody says that the database is away"),
    )
    fleet.open("go")
    assert "pay-a look-b book-c" == fleet.result_of(run_id)
    for n, other in enumerate(others):
        assert fleet.result_of(other).endswith(f"look-o{n}")
    assert {1} == set(fleet.begun("pay").values())
    clear(fleet)


@pytest.mark.parametrize("steps", STEPS)
def test_a_restarted_broker_loses_no_run(
    make_fleet: MakeFleet, own_valkey: EmbeddedValkey, postgres: str, steps: str
) -> None:
    """Neither what is under way nor what waits for a worker, sub-agents and ends included."""
    fleet = make_fleet(broker=own_valkey.url, lease=LEASE, steps=steps)
    run_id = calls_under_way(fleet, postgres)
    team = [prompt("one", ["look d go"]), prompt("two", ["book e"])]
    [boss] = fleet.send(prompt("boss", [{"team": team}]), agent=None)
    fleet.until(lambda: fleet.begun()["d"] and fleet.begun()["e"], "the team is at work")
    restart(own_valkey, fleet, signal.SIGKILL)
    fleet.open("go")
    assert "pay-a look-b book-c" == fleet.result_of(run_id)
    result = fleet.result_of(boss)
    assert "look-d" in result
    assert "book-e" in result
    once(fleet, "a b c d e")
    clear(fleet)
    assert fleet.workers[0].poll() is None


@pytest.mark.parametrize("steps", STEPS)
def test_a_flushed_redis_loses_no_run(
    make_fleet: MakeFleet, postgres: str, valkey: str, steps: str
) -> None:
    """Messages, chords, blackboards and results are made anew from the journal, again and again."""
    fleet = make_fleet(lease=1, steps=steps)
    fleet.start_worker(postgres)
    plans = [prompt(f"r{n}", [f"look {n}"], [f"book {n}"], [f"pay {n}"]) for n in range(10)]
    run_ids = fleet.send(*plans)
    fleet.until(lambda: sum(fleet.statuses().values()) == len(plans), "all runs are open")
    with redis.Redis.from_url(valkey) as client:
        for tool in ("look", "book", "pay"):
            fleet.until(lambda name=tool: fleet.begun(name), f"{tool} was called")  # type: ignore[misc]
            client.flushall()
    for n, run_id in enumerate(run_ids):
        assert f"look-{n} book-{n} pay-{n}" == fleet.result_of(run_id)
    assert {1} == set(fleet.begun("pay").values())
    clear(fleet)
