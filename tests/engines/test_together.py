"""Outcomes that come at about the same time are appended at once; none waits for a slow one."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from heartbit.core.commands import Command
from heartbit.core.events import RunStarted
from heartbit.core.run import follow
from heartbit.engines.leases import Held
from heartbit.engines.plan import Outcome, Plan
from heartbit.engines.together import Together
from heartbit.errors import LeaseLost
from heartbit.stores.journal import Append
from tests.support.bench import RUN, SOLO, Bench, calling
from tests.support.journals import returned

STEPS = ("1/tool/0", "1/tool/1")
START = RunStarted(prompt="Go.", definition=SOLO, blackboard=RUN)
PLAN = Plan(append=Append(run_id=RUN, expected=1, events=(START,)), after=follow(None, [START]))


def outcome(step: str) -> Outcome:
    """What a step came to."""
    return Outcome(event=returned(step, "done"), step=step, attempt=1)


def test_outcomes_that_come_together_are_appended_at_once_and_one_thread_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exactly one of the threads gets the plan."""
    monkeypatch.setattr("heartbit.engines.together.SECONDS", 30)  # however slow the machine is
    batches: list[Sequence[Outcome]] = []

    def append(outcomes: Sequence[Outcome]) -> Plan:
        batches.append(outcomes)
        return PLAN

    together = Together(STEPS, append)
    with ThreadPoolExecutor(2) as pool:
        fates = list(pool.map(lambda step: together.store(outcome(step)), STEPS))
    assert [set(STEPS)] == [{each.step for each in batch} for batch in batches]
    assert [(True, PLAN), (True, None)] == sorted(fates, key=lambda fate: fate[1] is None)


def test_an_outcome_does_not_wait_for_a_slow_neighbour() -> None:
    """It is told that it is alone before the other one has come."""
    together = Together(STEPS, lambda outcomes: PLAN)
    assert (False, None) == together.store(outcome(STEPS[0]))
    assert (False, None) == together.store(outcome(STEPS[1]))


def test_outcomes_that_do_not_fit_together_are_each_for_itself() -> None:
    """Each step goes the way that it would have gone alone."""
    together = Together(STEPS, lambda outcomes: None)
    with ThreadPoolExecutor(2) as pool:
        fates = list(pool.map(lambda step: together.store(outcome(step)), STEPS))
    assert [(False, None)] * 2 == fates


def test_a_failure_to_append_is_that_of_every_step() -> None:
    """None of them hangs."""

    def fail(outcomes: Sequence[Outcome]) -> Plan:
        raise LeaseLost

    together = Together(STEPS, fail)
    with ThreadPoolExecutor(2) as pool:
        fates = [pool.submit(together.store, outcome(step)) for step in STEPS]
        for fate in fates:
            with pytest.raises(LeaseLost):
                fate.result()


def appends(bench: Bench) -> list[Append]:
    """Every append that a bench's journal takes from now on."""
    taken: list[Append] = []
    real = bench.journal.append

    def append(each: Append) -> object:
        taken.append(each)
        return real(each)

    bench.journal.append = append  # type: ignore[method-assign, assignment]
    return taken


def test_the_results_of_a_turn_are_one_transaction_in_a_batch() -> None:
    """Both tools are at work before either of them ends."""
    bench = Bench(calling("look", "pay"), batched=True)
    both = threading.Barrier(2)

    def meet(held: Held, command: Command) -> None:
        if "/tool/" in command.step:
            both.wait(5)

    bench.after = meet
    taken = appends(bench)
    bench.start()
    assert "succeeded" == bench.status
    assert [["1/model"], ["1/tool/0", "1/tool/1"], ["2/model", "end"]] == [
        sorted(event.step or "" for event in each.events) for each in taken
    ]


def test_a_result_whose_neighbour_has_lost_its_lease_is_stored_alone() -> None:
    """Nothing of both is stored with the wrong attempt; the lost one is done again."""
    bench = Bench(calling("look", "look"), batched=True)
    both = threading.Barrier(2)

    def meet(held: Held, command: Command) -> None:
        if "/tool/" in command.step and held.attempt == 1:
            both.wait(5)
            if command.step == "1/tool/1":
                bench.journal.release(RUN, command.step, 1)

    bench.after = meet
    bench.start()
    assert "1/tool/0" in bench.steps
    assert "1/tool/1" not in bench.steps
    assert "succeeded" == bench.until_it_ends()
    assert 1 == bench.steps.count("1/tool/1")
