"""Text and addresses that break programs, with a worker that is a process of its own."""

from __future__ import annotations

import re

from tests.faults.conftest import MakeFleet
from tests.faults.test_network import clear
from tests.support.fleet import prompt
from tests.support.proxy import Proxy

TEN_MEGABYTES = 10_000_000


def test_text_that_no_database_takes_goes_through_prompts_calls_and_results(
    make_fleet: MakeFleet, postgres: str
) -> None:
    """NUL and halves of characters, from the caller to the model, to a tool and back."""
    fleet = make_fleet(lease=5)
    fleet.start_worker(postgres)
    odd = ["a\0b", "\ud800", "\udfff\0\ud800"]
    run_ids = fleet.send(*(prompt("@").replace("@", each) for each in odd))
    [called] = fleet.send(prompt("r", ["look @"]).replace("@", "a\0b"))
    assert odd == [fleet.result_of(run_id) for run_id in run_ids]
    assert "look-a\0b" == fleet.result_of(called)
    clear(fleet)


def test_a_prompt_of_ten_megabytes_is_a_prompt(make_fleet: MakeFleet, postgres: str) -> None:
    """Through the broker, the journal and the worker's log."""
    fleet = make_fleet(lease=5)
    fleet.start_worker(postgres)
    whole = prompt("r", ["look a"]) + " " * TEN_MEGABYTES
    [run_id] = fleet.send(whole)
    assert "look-a" == fleet.result_of(run_id)
    start = fleet.journal.events(run_id)[0]
    assert whole == start.prompt  # type: ignore[union-attr]
    assert len(fleet.log()) < TEN_MEGABYTES
    clear(fleet)


def test_a_worker_that_finds_no_broker_waits_for_it(
    make_fleet: MakeFleet, to_redis: Proxy, postgres: str, valkey: str
) -> None:
    """It says so, and works as soon as there is one."""
    fleet = make_fleet(lease=5)
    to_redis.refuse()
    worker = fleet.start_worker(postgres, to_redis.url(valkey), wait=False)
    fleet.until(lambda: "Cannot connect to redis" in fleet.log(), "the log says what is missing")
    assert worker.poll() is None
    to_redis.mend()
    [run_id] = fleet.send(prompt("r", ["look a"]))
    assert "look-a" == fleet.result_of(run_id)


def test_a_worker_with_a_wrong_password_for_its_broker_says_so_without_it(
    make_fleet: MakeFleet, postgres: str, valkey: str
) -> None:
    """It waits for a broker that lets it in."""
    fleet = make_fleet(lease=5)
    wrong = re.sub(r"//:[^@]*@", "//:hush-hush@", valkey)
    worker = fleet.start_worker(postgres, wrong, wait=False)
    fleet.until(lambda: "invalid username-password" in fleet.log(), "the log says what is wrong")
    assert worker.poll() is None
    assert "hush-hush" not in fleet.log()
