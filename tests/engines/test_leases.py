"""Leases are kept while a step runs, and a step whose lease may be another's is cancelled."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any

import pytest

from heartbit.engines.leases import Held, Leases
from heartbit.errors import JournalError, LeaseLost, RunStopped, StepHandedBack
from heartbit.stores.memory_journal import InMemoryJournal
from tests.support.bench import RUN, SOLO, Bench, Clock, calling

STEP = Held(run_id=RUN, step="1/model", attempt=1)
OTHER = Held(run_id=RUN, step="1/tool/0", attempt=2)
LEASE = 15.0


class Store:
    """Extends what it is told to keep; may fail."""

    def __init__(self) -> None:
        self.asked: list[tuple[Held, ...]] = []
        self.lost: set[Held] = set()
        self.failure: Exception | None = None
        self.meanwhile: Callable[[], None] = lambda: None
        self.stopped: set[str] = set()
        self.looked: list[tuple[str, ...]] = []

    def stopped_runs(self, run_ids: Sequence[str]) -> Sequence[str]:
        """As a journal does."""
        self.looked.append(tuple(run_ids))
        if self.failure is not None:
            raise self.failure
        return [each for each in run_ids if each in self.stopped]

    def extend_leases(self, held: Sequence[Held], lease_seconds: float) -> Sequence[Held]:
        """As a journal does; `meanwhile` happens before the answer."""
        self.asked.append(tuple(held))
        self.meanwhile()
        if self.failure is not None:
            raise self.failure
        return [each for each in held if each not in self.lost]


class ByHand(Leases):
    """Leases of a process whose threads are never started."""

    def _start(self) -> None:
        pass


class Kept:
    """Leases by hand, and what became of them."""

    def __init__(self) -> None:
        self.store, self.clock = Store(), Clock()
        self.cancelled: list[Held] = []
        self.ending = False
        self.leases = ByHand(self.store, LEASE, clock=self.clock, ending=lambda: self.ending)

    @contextmanager
    def working(self, held: Held, **options: Any) -> Iterator[None]:
        """Hold a lease and work under it."""
        with self.leases.held(held), self.leases.working(held, self.cancel(held), **options):
            yield

    def interrupted(self, held: Held, meanwhile: Callable[[], None], **options: Any) -> None:
        """Work that sees its cancellation."""
        with self.working(held, **options):
            meanwhile()
            raise CancelledError

    def cancel(self, held: Held) -> Callable[[], object]:
        """What cancels the work of a step."""
        return lambda: self.cancelled.append(held)

    def later(self, seconds: float) -> None:
        """Time passes, and both threads have had their turn."""
        self.clock.now += seconds
        self.leases.renew()
        self.leases.give_up()


def test_a_lease_is_renewed_as_long_as_its_step_runs() -> None:
    """And no longer."""
    kept = Kept()
    with kept.working(STEP):
        for _ in range(10):
            kept.later(LEASE / 3)
    kept.later(LEASE)
    assert [(STEP,)] * 10 == kept.store.asked
    assert [] == kept.cancelled


def test_renewal_makes_the_lease_longer_in_the_journal() -> None:
    """A step that takes three leases is never taken over."""
    bench = Bench(calling("look"), SOLO)
    leases = ByHand(bench.journal, LEASE, clock=bench.clock)
    claim = bench.journal.claim(RUN, "1/model", owner="me", lease_seconds=LEASE, known=0)
    held = Held(run_id=RUN, step="1/model", attempt=claim.attempt)
    with leases.held(held), leases.working(held, pytest.fail):
        for _ in range(9):
            bench.clock.now += LEASE / 3
            leases.renew()
            assert () == bench.journal.expired_steps(limit=9, again_seconds=1)
    bench.clock.now += LEASE + 1
    assert 1 == len(bench.journal.expired_steps(limit=9, again_seconds=1))


def test_a_lost_lease_stops_the_step_and_no_other() -> None:
    """Each is cancelled once."""
    kept = Kept()
    kept.store.lost = {OTHER}
    with (
        kept.working(STEP),
        kept.working(OTHER),
    ):
        kept.later(5)
        kept.later(5)
    assert [OTHER] == kept.cancelled
    assert [(STEP, OTHER), (STEP,)] == kept.store.asked


def test_a_store_that_fails_for_less_than_a_lease_stops_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One clear line in the log when it begins, and one when it is over."""
    kept = Kept()
    with kept.working(STEP):
        kept.later(5)
        kept.store.failure = JournalError("PostgreSQL cannot be reached.")
        kept.later(5)
        kept.later(9)
        kept.store.failure = None
        kept.later(0.5)
        kept.later(14)
    assert [] == kept.cancelled
    lines = [r.getMessage() for r in caplog.records]
    assert [
        "The leases cannot be renewed now: PostgreSQL cannot be reached.",
        "The leases are renewed again.",
    ] == lines


def test_a_store_that_fails_for_a_whole_lease_stops_every_step() -> None:
    """Another process may hold them by now, and nobody could tell."""
    kept = Kept()
    kept.store.failure = JournalError("PostgreSQL cannot be reached.")
    with (
        kept.working(STEP),
        kept.working(OTHER),
    ):
        kept.later(14.9)
        assert [] == kept.cancelled
        kept.later(0.1)
    assert [STEP, OTHER] == kept.cancelled


def test_a_step_that_was_claimed_while_nothing_could_be_renewed_has_its_whole_lease() -> None:
    """Its neighbour, which waits for a renewal for long, is cancelled alone."""
    kept = Kept()
    kept.store.failure = JournalError("PostgreSQL cannot be reached.")
    with kept.working(STEP):
        kept.later(10)
        with kept.working(OTHER):
            kept.later(6)
            assert [STEP] == kept.cancelled
            kept.later(10)
    assert [STEP, OTHER] == kept.cancelled


def test_a_lease_counts_from_before_its_claim_and_its_renewal() -> None:
    """Time that the store takes to answer is not given to the step."""
    kept = Kept()

    def slow() -> None:
        kept.clock.now += 10

    kept.store.meanwhile = slow
    claimed = Held(run_id=RUN, step="1/model", attempt=1, since=kept.clock.now)
    kept.clock.now += 1
    with kept.working(claimed):
        kept.leases.renew()  # asked at 1, answered at 11
        kept.clock.now += 4.9
        kept.leases.give_up()
        assert [] == kept.cancelled
        kept.clock.now += 0.1
        kept.leases.give_up()
    assert [claimed] == kept.cancelled


def test_a_step_that_is_begun_long_after_its_claim_has_the_rest_of_its_lease() -> None:
    """What lies between is not given to it, either."""
    kept = Kept()
    claimed = Held(run_id=RUN, step="1/model", attempt=1, since=kept.clock.now - 10)
    with kept.working(claimed):
        kept.clock.now += 5
        kept.leases.give_up()
    assert [claimed] == kept.cancelled


def test_no_effect_is_begun_under_a_lease_that_has_run_out() -> None:
    """A process that was frozen between its claim and its effect has lost what it had claimed."""
    kept = Kept()
    claimed = Held(run_id=RUN, step="1/model", attempt=1, since=kept.clock.now)
    kept.clock.now += LEASE - 0.1
    kept.leases.check(claimed)
    kept.clock.now += 0.1
    with pytest.raises(StepHandedBack):
        kept.leases.check(claimed)


def test_a_step_that_hangs_is_not_renewed_past_its_own_timeout() -> None:
    """It is given up a lease after its last renewal, and others are not disturbed."""
    kept = Kept()
    with (
        kept.working(STEP, seconds=20),
        kept.working(OTHER),
    ):
        for _ in range(6):
            kept.later(5)
        assert [] == kept.cancelled
        kept.later(5)
        kept.later(5)
        assert [STEP] == kept.cancelled
    assert [(STEP, OTHER)] * 4 == kept.store.asked[:4]
    assert {(OTHER,)} == set(kept.store.asked[4:])


def test_a_step_that_ends_while_it_is_renewed_is_not_cancelled() -> None:
    """Its row is done, so it is not among those that are kept."""
    kept = Kept()
    held = kept.working(STEP)

    def end() -> None:
        held.__exit__(None, None, None)
        kept.store.lost = {STEP}

    kept.store.meanwhile = end
    held.__enter__()
    kept.later(5)
    assert [] == kept.cancelled


def test_a_lease_is_renewed_until_the_outcome_is_stored() -> None:
    """The work is over, its append is not: nobody may take the step over meanwhile."""
    kept = Kept()
    with kept.leases.held(STEP):
        with kept.leases.working(STEP, kept.cancel(STEP), seconds=5):
            kept.later(5)
        kept.later(5)
        kept.later(5)
    kept.later(5)
    assert [(STEP,)] * 3 == kept.store.asked
    assert [] == kept.cancelled


def test_an_outcome_is_renewed_also_after_an_outage_longer_than_a_lease() -> None:
    """There is nothing left to cancel, and whoever is back first keeps the step."""
    kept = Kept()
    kept.store.failure = JournalError("PostgreSQL cannot be reached.")
    with kept.leases.held(STEP):
        with kept.leases.working(STEP, kept.cancel(STEP)):
            pass
        kept.later(LEASE + 1)
        kept.store.failure = None
        kept.later(1)
    assert [(STEP,)] * 2 == kept.store.asked
    assert [] == kept.cancelled


def test_nothing_is_begun_under_a_lease_that_was_lost_before_its_work() -> None:
    """The renewal has found another worker at the step."""
    kept = Kept()
    kept.store.lost = {STEP}
    with kept.leases.held(STEP):
        kept.later(5)
        with pytest.raises(LeaseLost), kept.leases.working(STEP, kept.cancel(STEP)):
            pytest.fail("it was begun")


def test_a_lease_that_was_renewed_is_no_reason_to_give_a_second_try_up() -> None:
    """A step that lost a race for a key of its blackboard works twice under one lease."""
    kept = Kept()
    claimed = Held(run_id=RUN, step="1/model", attempt=1, since=kept.clock.now)
    with kept.leases.held(claimed):
        for _ in range(4):
            kept.later(5)
        kept.leases.check(claimed)


def test_work_of_a_run_that_is_stopped_is_cancelled_and_told_why() -> None:
    """Cancelled, ended by its deadline, or failed elsewhere: nobody wants its outcome."""
    kept = Kept()
    kept.store.stopped = {RUN}

    def look() -> None:
        kept.leases.look()
        kept.leases.look()

    with kept.working(Held(run_id="another", step="1/model", attempt=1)):
        with pytest.raises(RunStopped):
            kept.interrupted(STEP, look)
        kept.leases.look()
    assert [STEP] == kept.cancelled
    assert [("another",)] == kept.store.looked[-1:]


def test_a_process_that_ends_hands_back_what_others_can_do() -> None:
    """A call that must not be repeated is finished."""
    kept = Kept()

    def end() -> None:
        kept.leases.look()
        assert [] == kept.cancelled
        kept.ending = True
        kept.leases.look()

    with kept.working(OTHER, repeatable=False), pytest.raises(StepHandedBack):
        kept.interrupted(STEP, end, repeatable=True)
    assert [STEP] == kept.cancelled


def test_work_that_ended_before_its_cancellation_has_its_outcome() -> None:
    """It is offered to the journal, and its lease is kept like any other."""
    kept = Kept()
    kept.store.stopped = {RUN}
    with kept.leases.held(STEP):
        with kept.leases.working(STEP, kept.cancel(STEP)):
            kept.leases.look()
        kept.later(5)
    assert [STEP] == kept.cancelled
    assert [(STEP,)] == kept.store.asked


def test_nobody_is_asked_about_runs_while_nothing_is_under_way() -> None:
    """A journal that cannot say which runs are wanted stops none."""
    kept = Kept()
    with kept.leases.held(STEP):
        kept.leases.look()
    assert [] == kept.store.looked
    kept.store.failure = JournalError("PostgreSQL cannot be reached.")
    with kept.working(STEP):
        kept.leases.look()
    assert [] == kept.cancelled


def test_the_threads_renew_give_up_and_stop() -> None:
    """They begin with the first step, and nothing is left of them."""
    store = _Counting()
    leases = Leases(store, 0.03)
    assert 0 == _lease_threads()
    with leases.held(STEP), leases.working(STEP, store.lost.set):
        assert store.renewed.wait(5)
        store.failure = JournalError("gone")
        assert store.lost.wait(5)
    leases.stop()
    assert 0 == _lease_threads()


def test_a_thread_asks_whether_runs_are_wanted_however_long_a_lease_is() -> None:
    """A cancel does not wait for the next renewal."""
    store = _Counting()
    leases = Leases(store, 600)
    with leases.held(STEP), leases.working(STEP, pytest.fail):
        assert store.looked.wait(5)
    leases.stop()


def test_a_store_that_never_answers_does_not_keep_steps_from_being_given_up() -> None:
    """The renewal hangs in it; the watch is another thread."""
    store = _Counting()
    store.hang = threading.Event()
    leases = Leases(store, 0.05)
    with leases.held(STEP), leases.working(STEP, store.lost.set):
        assert store.lost.wait(5)
    store.hang.set()
    leases.stop()


def test_what_a_store_raises_does_not_end_the_renewal(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it is: without the thread every lease would be lost."""
    store = _Counting()
    store.failure = ValueError("not one of ours")
    leases = Leases(store, 0.05)
    with caplog.at_level(logging.ERROR), leases.held(STEP):
        assert store.tried.wait(5)
        store.tried.clear()
        assert store.tried.wait(5)
    leases.stop()
    assert "will be tried again" in caplog.text


class _Counting:
    """A store that tells when it is asked."""

    def __init__(self) -> None:
        self.renewed, self.tried, self.lost, self.looked = (threading.Event() for _ in range(4))
        self.failure: Exception | None = None
        self.hang: threading.Event | None = None

    def extend_leases(self, held: Sequence[Held], lease_seconds: float) -> Sequence[Held]:
        """As a journal does."""
        self.tried.set()
        if self.hang is not None:
            self.hang.wait(5)
        if self.failure is not None:
            raise self.failure
        self.renewed.set()
        return held

    def stopped_runs(self, run_ids: Sequence[str]) -> Sequence[str]:
        """As a journal does."""
        self.looked.set()
        return ()


def _lease_threads() -> int:
    return sum(thread.name.startswith("heartbit-leases") for thread in threading.enumerate())


def test_a_journal_in_memory_is_a_store_of_leases() -> None:
    """An attempt that was overtaken is not kept."""
    bench = Bench(calling("look"), SOLO)
    assert isinstance(bench.journal, InMemoryJournal)
    claim = bench.journal.claim(RUN, "1/model", owner="me", lease_seconds=LEASE, known=0)
    mine = Held(run_id=RUN, step="1/model", attempt=claim.attempt)
    late = Held(run_id=RUN, step="1/model", attempt=claim.attempt - 1)
    assert (mine,) == bench.journal.extend_leases([mine, late], LEASE)
