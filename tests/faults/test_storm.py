"""A minute in which a worker is killed every second, whatever it is doing."""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest

from heartbit.client import Client
from heartbit.config import load
from heartbit.core.events import ToolReturned
from tests.faults.conftest import MakeFleet
from tests.faults.test_deliveries import IMPATIENT
from tests.faults.test_network import STEPS, clear
from tests.support.bench import Outbox
from tests.support.fleet import Fleet, kill, prompt

SECONDS = 60
RUNS = 50
WORKERS = 4
LENGTH = 0.1
"""Seconds of a call: if they were many, three kills in a row would hit one, and fail its run."""
AFTERWARDS = 120
"""Seconds within which the last run ends once nobody is killed any more."""
UNKNOWN = "The outcome of this call is unknown"


class Humans:
    """Answer every question at once, and are gone before anybody could be told."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        config = load(fleet.directory / "heartbit.toml", {}).config
        self._client = Client(fleet.journal, config, Outbox())

    def answer(self) -> None:
        """Approve whatever is asked by now."""
        for approval in self._client.journal.open_approvals():
            handle = self._client.run(approval.run_id)
            handle.approve(self._client.question(approval), by="a human")

    def wait_for(self, run_id: str) -> None:
        """Answer until the end of this run is out."""

        def is_out() -> bool:
            self.answer()
            rows = self._fleet.journal.tree(run_id)
            return any(row.run_id == run_id and row.completion_done for row in rows)

        self._fleet.until(is_out, f"run {run_id} has ended", AFTERWARDS)


class Storm:
    """Kills one of the workers every second, and starts another in its place."""

    def __init__(self, fleet: Fleet, database: str, seed: int) -> None:
        self._fleet = fleet
        self._database = database
        self._dice = random.Random(seed)
        self.kills = 0
        for _ in range(WORKERS):
            self._start()

    def strike(self) -> None:
        """Kill one of those that work, if any has got so far, and start another."""
        alive = [n for n, worker in enumerate(self._fleet.workers) if worker.poll() is None]
        ready = [n for n in alive if self._fleet.is_ready(n)]
        kill(self._fleet.workers[self._dice.choice(ready or alive)])
        self.kills += 1
        self._start()

    def _start(self) -> None:
        self._fleet.start_worker(self._database, settings=IMPATIENT, concurrency=4, wait=False)


def orders(name: str) -> str:
    """An orchestrator with a team of two that uses every kind of tool, and one more after them."""
    team = [
        prompt(at, [f"look {at} {LENGTH}", f"pay {at} {LENGTH}"], [f"book {at} {LENGTH}"])
        for at in (f"{name}.x", f"{name}.y")
    ]
    last = prompt(f"{name}.z", [f"sign {name}.z {LENGTH}"], [f"pay {name}.z {LENGTH}"])
    return prompt(name, [{"team": team}], [{"team": [last]}])


@pytest.mark.chaos
@pytest.mark.timeout(400)
@pytest.mark.parametrize("steps", STEPS)
def test_fifty_runs_end_well_though_a_worker_is_killed_every_second(
    make_fleet: MakeFleet, postgres: str, steps: str
) -> None:
    """Results are right, effects as declared, and no outcome is there twice."""
    fleet = make_fleet(lease=1, steps=steps)
    seed = int(time.time())
    print(f"seed {seed}")
    storm, humans = Storm(fleet, postgres, seed), Humans(fleet)
    begun = time.monotonic()
    run_ids: list[str] = []
    for second in range(1, SECONDS + 1):
        due = RUNS * second // SECONDS
        names = [f"r{n}" for n in range(len(run_ids), due)]
        run_ids += fleet.send(*map(orders, names), agent=None)
        while time.monotonic() < begun + second:
            humans.answer()
            time.sleep(0.05)
        storm.strike()
    assert SECONDS == storm.kills
    for number, run_id in enumerate(run_ids):
        humans.wait_for(run_id)
        check(fleet, f"r{number}", run_id)
    assert {1} == set(fleet.begun("pay").values())
    clear(fleet)


def check(fleet: Fleet, name: str, run_id: str) -> None:
    """Every run of the tree has succeeded, and each call has one outcome, as it is declared."""
    rows = fleet.journal.tree(run_id)
    assert {"succeeded": 4} == Counter(row.status for row in rows), name
    events = [event for row in rows for event in fleet.journal.events(row.run_id)]
    said = [event.content for event in events if isinstance(event, ToolReturned)]
    in_doubt = [text for text in said if UNKNOWN in text]
    missing = Counter(outcomes(name)) - Counter(said)
    assert len(outcomes(name)) == len(said), said
    assert all(text.startswith("pay-") for text in missing), missing
    assert len(in_doubt) == missing.total()
    result = str((fleet.journal.run(run_id).output or {})["result"])
    assert all(text in result for text in said)


def outcomes(name: str) -> list[str]:
    """What the tools of `orders(name)` say."""
    team = [f"{tool}-{name}.{n}" for n in "xy" for tool in ("look", "pay", "book")]
    return [*team, f"sign-{name}.z", f"pay-{name}.z"]
