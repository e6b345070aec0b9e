"""The sweep: whatever is lost is found, and a sweep that dies on its way loses nothing."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from heartbit.core.events import (
    ApprovalResolved,
    Decision,
    RunFailed,
    RunStarted,
    ToolReturned,
)
from heartbit.engines.durable import DurableEngine
from heartbit.engines.plan import RunPlace
from heartbit.engines.recovery import BATCH, GRACE_SECONDS, Sweep, SweepThread
from heartbit.errors import JournalError, JournalUnavailable
from heartbit.stores.records import ENDED, ExpiredStep
from tests.support.bench import (
    CHIEF,
    LEASE_SECONDS,
    RUN,
    SOLO,
    Bench,
    Clock,
    Died,
    calling,
)
from tests.support.parity import canonical
from tests.support.shared_postgres import delete_all_rows
from tests.support.stages import ClockedDatabase, ClockedJournal

Make = Callable[..., Bench]

TOOL = ("step", RUN, "1/tool/0")
MODEL = ("step", RUN, "1/model")


def begun(tool: str, make: Make = Bench) -> Bench:
    """A run whose worker was lost in its only call, and the lease has just run out."""
    bench = make(calling(tool), SOLO)
    bench.engine.resume(RUN)
    bench.deliver(bench.outbox.messages.pop(0))
    lose(bench)
    return bench


def lose(bench: Bench) -> None:
    """The worker of the call is lost."""
    bench.outbox.messages.clear()
    bench.die_in("1/tool/0")
    with pytest.raises(Died):
        bench.deliver(TOOL, bench.worker())
    bench.live()
    bench.clock.now += LEASE_SECONDS + 1


def poisoned(make: Make = Bench) -> Bench:
    """Three workers were lost in the call."""
    bench = begun("look", make)
    for _ in range(2):
        bench.sweep.once()
        lose(bench)
    return bench


def poisoned_beside_sub_runs(make: Make = Bench) -> Bench:
    """The same, while two sub-agents have not ended."""
    bench = make()
    bench.engine.resume(RUN)
    bench.deliver(MODEL)
    for _ in range(3):
        bench.sweep.once()
        lose(bench)
    return bench


def unsent(make: Make = Bench) -> Bench:
    """A run that was opened, and nothing was sent."""
    bench = make(calling("look"), SOLO)
    bench.clock.now += 2
    return bench


def message_lost(make: Make = Bench) -> Bench:
    """The first message was sent and is gone."""
    bench = unsent(make)
    bench.engine.resume(RUN)
    bench.outbox.messages.clear()
    bench.clock.now += LEASE_SECONDS + 1
    return bench


def sub_runs_unsent(make: Make = Bench) -> Bench:
    """The worker died between the commit and the chord."""
    bench = make()
    bench.engine.resume(RUN)
    bench.deliver(MODEL)
    bench.outbox.messages.clear()
    bench.clock.now += LEASE_SECONDS + 1
    return bench


def deadline(make: Make = Bench) -> Bench:
    """The time of a run with sub-runs is over."""
    bench = make(agent=replace(CHIEF, run_timeout_seconds=60))
    bench.engine.resume(RUN)
    bench.deliver(MODEL)
    bench.clock.now += 61
    return bench


def cancelled(make: Make = Bench) -> Bench:
    """Somebody has asked for the end of a tree, and no message arrived."""
    bench = make()
    bench.engine.resume(RUN)
    bench.deliver(MODEL)
    bench.engine.cancel(RUN)
    bench.outbox.messages.clear()
    bench.clock.now += 3
    return bench


def asked(make: Make = Bench) -> Bench:
    """A call that waits for a human."""
    bench = make(calling("look"), replace(SOLO, approve=True))
    bench.start()
    return bench


def decided(make: Make = Bench) -> Bench:
    """The human has answered, and whoever took the answer died."""
    bench = asked(make)
    bench.decide(Decision(position=0, verdict="deny", reason="No"))
    bench.clock.now += 3
    return bench


def unanswered(make: Make = Bench) -> Bench:
    """Nobody has answered in time."""
    bench = make(calling("look"), replace(SOLO, approve=True, approval_timeout_seconds=60.0))
    bench.start()
    bench.clock.now += 61
    return bench


def begun_again(make: Make = Bench) -> Bench:
    """A call in doubt that a human has approved, and every message is lost."""
    bench = begun("fire", make)
    bench.sweep.once()
    bench.decide(Decision(position=0, verdict="approve"))
    bench.later(3)
    bench.outbox.messages.clear()
    bench.clock.now += 3
    return bench


def unpublished(make: Make = Bench) -> Bench:
    """The run has ended, and its worker died before it said so."""
    bench = make(calling("look"), SOLO)
    bench.engine.resume(RUN)
    while bench.outbox.messages != [("end", RUN)]:
        bench.deliver(bench.outbox.messages.pop(0))
    bench.outbox.messages.clear()
    bench.clock.now += 3
    return bench


LOST: dict[str, Callable[..., Bench]] = {
    "a pure call": lambda make=Bench: begun("look", make),
    "an at_most_once call": lambda make=Bench: begun("pay", make),
    "a call that a human is asked about": lambda make=Bench: begun("fire", make),
    "a poisoned call": poisoned,
    "a poisoned call beside sub-runs": poisoned_beside_sub_runs,
    "a step that was never sent": unsent,
    "a message": message_lost,
    "a chord": sub_runs_unsent,
    "a deadline": deadline,
    "a cancel request": cancelled,
    "a decision": decided,
    "an answer": unanswered,
    "the message of a call begun again": begun_again,
    "the end": unpublished,
}
every_loss = pytest.mark.parametrize("lost", LOST.values(), ids=LOST.keys())


class Mortal:
    """Passes calls on, and dies at one of them: before it is made, or after."""

    def __init__(self, inner: Any, calls: list[int], *, after: bool) -> None:
        self._inner, self._calls, self._after = inner, calls, after

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name == "transaction":
            return self._transaction
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._calls[0] -= 1
            if self._calls[0] == 0 and not self._after:
                raise Died
            result = found(*args, **kwargs)
            if self._calls[0] == 0:
                raise Died
            return result

        return call

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        with self._inner.transaction() as transaction:
            yield Mortal(transaction, self._calls, after=self._after)


def sweep_that_dies(bench: Bench, number: int, *, after: bool) -> bool:
    """Sweep, and die at this call to the journal or the outbox; whether it came to that."""
    calls = [number]
    journal: Any = Mortal(bench.journal, calls, after=after)
    outbox: Any = Mortal(bench.outbox, calls, after=after)
    engine = DurableEngine(
        journal=journal,
        outbox=outbox,
        work=bench._work,
        owner="mortal",
        lease_seconds=LEASE_SECONDS,
        clock=bench.clock,
    )
    try:
        Sweep(journal, engine, lease_seconds=LEASE_SECONDS).once()
    except Died:
        return True
    return False


def end_of(bench: Bench) -> tuple[list[list[str]], int, bool]:
    """What the tree has come to: its journals, how many messages were due, whether it was told."""
    bench.outbox.messages.clear()  # that died with the sweep, too
    bench.until_it_ends()
    for _ in range(3):
        bench.later(60)
        bench.deliver_all()
    runs = bench.journal.tree(RUN)
    assert {True} == {run.status in ENDED for run in runs}
    payments = sum(n for key, n in bench.effects.items() if key[2] == "at_most_once")
    told = bench.journal.run(RUN).completion_done
    return sorted(canonical(bench.journal.events(r.run_id)) for r in runs), payments, told


class _Following(ClockedDatabase):
    """Its clock goes by the one of the bench."""

    clock: Clock

    def ahead(self) -> float:
        return self.clock.now - Clock.now


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.slow)])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes benches, each with an empty journal of one kind."""
    if request.param == "memory":
        yield Bench
        return
    url = request.getfixturevalue("postgres")
    journal = ClockedJournal(url, _Following)

    def kept(clock: Clock) -> Any:
        delete_all_rows(url)
        journal.database.clock = clock  # type: ignore[attr-defined]
        return journal

    yield partial(Bench, journal=kept)
    journal.close()


@every_loss
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_sweep_may_die_at_any_statement(
    make: Make, lost: Callable[..., Bench], after: bool
) -> None:
    """The next one makes up for it, and the run ends as if nothing had happened."""
    undisturbed = lost(make)
    undisturbed.sweep.once()
    expected = end_of(undisturbed)
    number, deaths = 1, 0
    while True:
        bench = lost(make)
        if not sweep_that_dies(bench, number, after=after):
            break
        assert expected == end_of(bench), f"died at call {number}"
        number, deaths = number + 1, deaths + 1
    assert deaths >= 5


@every_loss
def test_the_sweep_finds_what_was_lost_at_once(lost: Callable[..., Bench]) -> None:
    """One sweep, once it is due: a message goes out, or the journal has grown."""
    bench = lost()
    before = (bench.journal.events(RUN), list(bench.outbox.messages))
    bench.sweep.once()
    assert before != (bench.journal.events(RUN), bench.outbox.messages)


def test_two_sweeps_in_one_second_are_one() -> None:
    """All workers sweep, and one of them does."""
    bench = begun("look")
    other = Sweep(bench.journal, bench.worker(), lease_seconds=LEASE_SECONDS)
    assert [True, False, False] == [s.once() for s in (bench.sweep, other, bench.sweep)]
    assert [TOOL] == bench.outbox.messages
    bench.clock.now += 1
    assert other.once()


def test_after_an_outage_nothing_is_taken_for_lost_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its holder could not renew its lease either, and may have the outcome."""
    bench = begun("pay")
    sweep = Sweep(bench.journal, bench.engine, lease_seconds=LEASE_SECONDS, clock=bench.clock)

    def away(*_: Any, **__: Any) -> None:
        raise JournalUnavailable("The database is starting up; try again in a moment.")

    with monkeypatch.context() as patch:
        patch.setattr(bench.journal, "admit_sweep", away)
        with pytest.raises(JournalUnavailable):
            sweep.once()
    before = bench.steps
    bench.clock.now += GRACE_SECONDS - 1
    assert sweep.once()
    assert before == bench.steps
    bench.clock.now += 1
    assert sweep.once()
    assert "1/tool/0" in bench.steps


def test_a_call_in_doubt_is_judged_and_never_sent() -> None:
    """The model is told with the sweep itself."""
    bench = begun("pay")
    bench.sweep.once()
    returned = bench.event("1/tool/0")
    assert isinstance(returned, ToolReturned)
    assert returned.is_error
    assert TOOL not in bench.outbox.messages


def test_a_poisoned_step_fails_its_run_with_the_reason() -> None:
    """The code tells programs, the message people."""
    bench = poisoned()
    bench.sweep.once()
    failed = bench.event("end")
    assert isinstance(failed, RunFailed)
    assert "workers_lost" == failed.code
    assert "1/tool/0" in failed.message
    assert 3 == bench.begun[RUN, "1/tool/0"]


def test_an_approval_that_expires_is_a_denial_by_nobody() -> None:
    """The model hears why."""
    bench = unanswered()
    bench.sweep.once()
    [resolved] = [e for e in bench.journal.events(RUN) if isinstance(e, ApprovalResolved)]
    [decision] = resolved.decisions
    assert ("deny", None) == (decision.verdict, resolved.decided_by)
    assert "nobody answered in time" == decision.reason
    assert "succeeded" == bench.until_it_ends()
    assert 0 == bench.begun[RUN, "1/tool/0"]


def test_a_question_tells_until_when_it_can_be_answered() -> None:
    """So that who decides knows; without a limit it stays open for weeks."""
    [limited], [patient] = (b.journal.open_approvals() for b in (unanswered(), asked()))
    assert limited.expires_at is not None
    assert 60 == (limited.expires_at - limited.requested_at).total_seconds()
    assert None is patient.expires_at


def test_a_call_in_doubt_that_nobody_decides_about_is_not_run_again() -> None:
    """The model is told that nobody knows what became of it, and that nobody answered."""
    bench = Bench(calling("fire"), replace(SOLO, approval_timeout_seconds=60.0))
    bench.die_in("1/tool/0")
    with pytest.raises(Died):
        bench.start()
    bench.live()
    bench.outbox.messages.clear()
    bench.later()
    bench.later(61)
    returned = bench.event("1/tool/0")
    assert isinstance(returned, ToolReturned)
    assert "outcome of this call is unknown" in returned.content
    assert returned.content.endswith("not to run it again: nobody answered in time")
    assert 1 == bench.begun[RUN, "1/tool/0"]


def test_a_human_who_answers_in_time_wins_over_the_expiry() -> None:
    """The timer of the expiry finds the answer, and goes."""
    bench = unanswered()
    bench.clock.now -= 2
    bench.decide(Decision(position=0, verdict="approve"))
    bench.clock.now += 2
    assert "succeeded" == bench.until_it_ends()
    assert 1 == bench.begun[RUN, "1/tool/0"]
    assert {} == bench.journal._tables.timers


def test_a_deadline_holds_for_a_run_that_waits_for_a_human() -> None:
    """Its question is void afterwards."""
    bench = Bench(calling("look"), replace(SOLO, approve=True, run_timeout_seconds=60))
    bench.start()
    bench.later(61)
    failed = bench.event("end")
    assert isinstance(failed, RunFailed)
    assert "60 seconds" in failed.message
    assert () == bench.journal.open_approvals()


def test_a_run_that_cannot_be_looked_after_keeps_nobody_from_looking_after_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever goes wrong with it; the log says with which."""
    bench = begun("pay")
    other = "00000000-0000-4000-8000-000000000002"
    start = RunStarted(prompt="Go.", definition=SOLO, blackboard=other)
    bench.engine.open(RunPlace(run_id=other, root_run_id=other), start, task_id=other)
    bench.clock.now += 5
    for failure in (JournalError("It cannot be read."), KeyError("a mistake")):
        judge = bench.engine.judge

        def fail(lost: ExpiredStep, failure: Exception = failure) -> None:
            raise failure

        bench.engine.judge = fail  # type: ignore[method-assign]
        with caplog.at_level(logging.WARNING):
            bench.later(60)
        bench.engine.judge = judge  # type: ignore[method-assign]
        assert ("step", other, "1/model") in bench.outbox.messages
        assert f"run_id='{RUN}'" in caplog.text
        bench.outbox.messages.clear()
        caplog.clear()


def test_one_sweep_makes_up_for_a_worker_with_hundreds_of_steps() -> None:
    """Not a batch per second."""
    bench = Bench(calling("look"), SOLO)
    many = 3 * BATCH + 7
    for n in range(2, many + 1):
        run_id = f"00000000-0000-4000-8000-{n:012}"
        start = RunStarted(prompt="Go.", definition=SOLO, blackboard=run_id)
        bench.engine.open(RunPlace(run_id=run_id, root_run_id=run_id), start, task_id=run_id)
        bench.journal.claim(run_id, "1/model", owner="lost", lease_seconds=LEASE_SECONDS, known=0)
    bench.journal.claim(RUN, "1/model", owner="lost", lease_seconds=LEASE_SECONDS, known=0)
    bench.later()
    assert many == len(set(bench.outbox.messages))
    assert many == len(bench.outbox.messages)


def test_the_thread_sweeps_until_it_is_stopped_whatever_happens(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A sweep that fails is one line in the log, and the next one comes."""

    class Failing:
        def __init__(self) -> None:
            self.swept = threading.Semaphore(0)

        def once(self) -> bool:
            self.swept.release()
            raise JournalError("PostgreSQL cannot be reached.")

    failing: Any = Failing()
    thread = SweepThread(failing, every_seconds=0.001)
    with caplog.at_level(logging.WARNING):
        thread.start()
        for _ in range(3):
            assert failing.swept.acquire(timeout=5)
        thread.stop()
    assert "The sweep failed and will be tried again: PostgreSQL" in caplog.text
    assert "heartbit-sweep" not in [each.name for each in threading.enumerate()]


def test_a_thread_that_was_never_started_can_be_stopped() -> None:
    """Not every process that opens a runtime is a worker."""
    SweepThread(begun("look").sweep).stop()
