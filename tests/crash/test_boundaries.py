"""A run is disturbed at every boundary of its journal, and ends as if it had not been."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import psycopg
import pytest

from heartbit.chaos.harness import Harness, Plan, Result, open_harness
from heartbit.chaos.saboteur import Fault, Spot
from heartbit.chaos.stage import build_stage
from heartbit.config import load
from tests.support.services import DatabaseMaker
from tests.support.shared_postgres import TEMPLATE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CONFIG = Path(__file__).parents[1] / "support" / "chaos.toml"
SCRIPT = "tests.support.chaos_agents:reply"
BATCH_SECONDS = 30.0
FEWEST = 40
ENOUGH = 3
Open = Callable[..., AbstractContextManager[Harness]]


@pytest.fixture
def harness(tmp_path: Path, make_database: DatabaseMaker, valkey: str) -> Open:
    """Opens a harness on databases of its own; `spoil` changes each of them first."""

    def opened(
        *,
        spoil: str | None = None,
        lease_seconds: float = 1.0,
        batch_seconds: float | None = None,
        lanes: int = 6,
    ) -> AbstractContextManager[Harness]:
        plan = Plan(
            stage=build_stage(load(CONFIG, {}).config, script=SCRIPT),
            prompt="Settle the bill.",
            directory=tmp_path,
            make_database=partial(_database, make_database, spoil),
            broker=valkey,
            lease_seconds=lease_seconds,
            batch_seconds=batch_seconds,
            lanes=lanes,
        )
        return open_harness(plan)

    return opened


def _database(make_database: DatabaseMaker, spoil: str | None) -> str:
    url = make_database(TEMPLATE)
    if spoil is not None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(spoil)
    return url


def told(results: Iterator[Result]) -> list[Result]:
    """All results, printed one by one; what goes wrong this often need not be seen everywhere."""
    found: list[Result] = []
    for each in results:
        print(f"{'ok ' if each.ok else 'BAD'} {each.seconds:5.1f} s  {each.fault}", *each.problems)
        found.append(each)
        if sum(not result.ok for result in found) >= ENOUGH:
            break
    return found


def only(faults: Sequence[Fault], *names: str) -> list[Fault]:
    """The faults of these names."""
    found = [fault for fault in faults if str(fault) in names]
    assert len(names) == len(found), "\n".join(map(str, faults))
    return found


@pytest.mark.parametrize("batch_seconds", [None, BATCH_SECONDS], ids=["each", "batched"])
def test_a_run_ends_the_same_whatever_boundary_its_process_is_struck_at(
    harness: Open, batch_seconds: float | None
) -> None:
    """Killed before and after each commit and each message, and frozen where it holds something."""
    with harness(batch_seconds=batch_seconds) as opened:
        faults = opened.faults()
        results = told(opened.results(faults))
    boundaries = {fault.spot for fault in faults}
    print(f"{len(boundaries)} boundaries, {len(faults)} faults")
    assert [] == [(str(each.fault), each.problems) for each in results if not each.ok]
    assert FEWEST <= len(boundaries)
    assert len(faults) == len(results)


DEFAULT_LEASE = load(CONFIG, {}).config.celery.lease_seconds


@pytest.mark.parametrize(
    "batch_seconds",
    [None, pytest.param(BATCH_SECONDS, marks=pytest.mark.chaos)],
    ids=["each", "batched"],
)
def test_a_killed_worker_is_replaced_within_the_default_lease(
    harness: Open, tmp_path: Path, batch_seconds: float | None
) -> None:
    """Nothing but the lease says that it is gone; two seconds later its turn is asked for again."""
    options = {"lease_seconds": DEFAULT_LEASE, "batch_seconds": batch_seconds, "lanes": 2}
    with harness(**options) as opened, ThreadPoolExecutor(1) as pool:
        chosen = only(opened.faults(), "kill scout 1/sub/1: after claim 1/model")
        before = claims(tmp_path)
        results = pool.submit(lambda: told(opened.results(chosen)))
        killed_at = seen_at(lambda: claims(tmp_path) > before, results)
        begun_again_at = seen_at(lambda: claims(tmp_path) > before + 1, results)
        [result] = results.result()
    assert result.ok, result.problems
    assert DEFAULT_LEASE - 1 < begun_again_at - killed_at < DEFAULT_LEASE + 2


def claims(directory: Path) -> int:
    """How often a worker has begun the first turn of the scout, in all runs."""
    spot = Spot(role="worker", place="scout 1/sub/1", what="claim 1/model", edge="after")
    line = json.dumps(asdict(spot))
    return sum(path.read_text().splitlines().count(line) for path in directory.glob("*/*.seen"))


def seen_at(holds: Callable[[], bool], results: Future[list[Result]]) -> float:
    """When something held for the first time, on the monotonic clock."""
    while not holds():
        assert not results.done(), results.result()
        time.sleep(0.01)
    return time.monotonic()


WITHOUT_FENCE = """
do $$ begin
    execute replace(pg_get_functiondef('heartbit_append_v1'::regproc),
                    'and step = p_step and attempt = p_attempt', 'and step = p_step');
end $$
"""
WITHOUT_UNIQUE_OUTCOME = "alter table run_events drop constraint run_events_run_id_step_key"


def test_the_harness_finds_out_that_the_fence_is_gone(harness: Open) -> None:
    """A worker that was frozen past its lease brings a result, and it is taken."""
    name = "freeze scout 1/sub/1: before append 1/tool/0"
    with harness(spoil=WITHOUT_FENCE, lanes=2) as opened:
        [result] = told(opened.results(only(opened.faults(), name)))
    assert ["what a frozen worker brought late was accepted"] == result.problems


def test_the_harness_finds_out_that_an_outcome_need_not_be_unique(harness: Open) -> None:
    """A decision that was on its way is brought again by the sweep, and stored twice."""
    name = "freeze clerk 1/sub/0 (caller): before append 1/approval/decision"
    with harness(spoil=WITHOUT_UNIQUE_OUTCOME, lanes=2) as opened:
        [result] = told(opened.results(only(opened.faults(), name)))
    assert ["too many: approval_resolved 1/approval/decision of clerk 1/sub/0"] == result.problems
