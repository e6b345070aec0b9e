"""Leases are kept while a step runs, and a step whose lease may be another's is cancelled."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

import pytest

from heartbit.engines.leases import Held, Leases
from heartbit.errors import JournalError, LeaseLost
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
        self.leases = ByHand(self.store, LEASE, clock=self.clock)

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
    with kept.leases.held(STEP, kept.cancel(STEP)):
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
    with leases.held(held, pytest.fail):
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
        kept.leases.held(STEP, kept.cancel(STEP)),
        kept.leases.held(OTHER, kept.cancel(OTHER)),
    ):
        kept.later(5)
        kept.later(5)
    assert [OTHER] == kept.cancelled
    assert [(STEP, OTHER), (STEP,)] == kept.store.asked


def test_a_store_that_fails_for_less_than_a_lease_stops_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One clear line in the log for each try."""
    kept = Kept()
    with kept.leases.held(STEP, kept.cancel(STEP)):
        kept.later(5)
        kept.store.failure = JournalError("PostgreSQL cannot be reached.")
        kept.later(5)
        kept.later(9)
        kept.store.failure = None
        kept.later(0.5)
        kept.later(14)
    assert [] == kept.cancelled
    lines = [r.getMessage() for r in caplog.records]
    assert ["The leases could not be renewed: PostgreSQL cannot be reached."] * 2 == lines


def test_a_store_that_fails_for_a_whole_lease_stops_every_step() -> None:
    """Another process may hold them by now, and nobody could tell."""
    kept = Kept()
    kept.store.failure = JournalError("PostgreSQL cannot be reached.")
    with (
        kept.leases.held(STEP, kept.cancel(STEP)),
        kept.leases.held(OTHER, kept.cancel(OTHER)),
    ):
        kept.later(14.9)
        assert [] == kept.cancelled
        kept.later(0.1)
    assert [STEP, OTHER] == kept.cancelled


def test_a_step_that_was_claimed_while_nothing_could_be_renewed_has_its_whole_lease() -> None:
    """Its neighbour, which waits for a renewal for long, is cancelled alone."""
    kept = Kept()
    kept.store.failure = JournalError("PostgreSQL cannot be reached.")
    with kept.leases.held(STEP, kept.cancel(STEP)):
        kept.later(10)
        with kept.leases.held(OTHER, kept.cancel(OTHER)):
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
    with kept.leases.held(claimed, kept.cancel(claimed)):
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
    with kept.leases.held(claimed, kept.cancel(claimed)):
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
    with pytest.raises(LeaseLost):
        kept.leases.check(claimed)


def test_a_step_that_hangs_is_not_renewed_past_its_own_timeout() -> None:
    """It is given up a lease after its last renewal, and others are not disturbed."""
    kept = Kept()
    with (
        kept.leases.held(STEP, kept.cancel(STEP), seconds=20),
        kept.leases.held(OTHER, kept.cancel(OTHER)),
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
    held = kept.leases.held(STEP, kept.cancel(STEP))

    def end() -> None:
        held.__exit__(None, None, None)
        kept.store.lost = {STEP}

    kept.store.meanwhile = end
    held.__enter__()
    kept.later(5)
    assert [] == kept.cancelled


def test_the_threads_renew_give_up_and_stop() -> None:
    """They begin with the first step, and nothing is left of them."""
    store = _Counting()
    leases = Leases(store, 0.03)
    assert 0 == _lease_threads()
    with leases.held(STEP, store.lost.set):
        assert store.renewed.wait(5)
        store.failure = JournalError("gone")
        assert store.lost.wait(5)
    leases.stop()
    assert 0 == _lease_threads()


def test_a_store_that_never_answers_does_not_keep_steps_from_being_given_up() -> None:
    """The renewal hangs in it; the watch is another thread."""
    store = _Counting()
    store.hang = threading.Event()
    leases = Leases(store, 0.05)
    with leases.held(STEP, store.lost.set):
        assert store.lost.wait(5)
    store.hang.set()
    leases.stop()


def test_what_a_store_raises_does_not_end_the_renewal(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it is: without the thread every lease would be lost."""
    store = _Counting()
    store.failure = ValueError("not one of ours")
    leases = Leases(store, 0.05)
    with caplog.at_level(logging.ERROR), leases.held(STEP, lambda: None):
        assert store.tried.wait(5)
        store.tried.clear()
        assert store.tried.wait(5)
    leases.stop()
    assert "will be tried again" in caplog.text


class _Counting:
    """A store that tells when it is asked."""

    def __init__(self) -> None:
        self.renewed, self.tried, self.lost = (threading.Event() for _ in range(3))
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
