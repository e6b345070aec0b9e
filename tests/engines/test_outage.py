"""What a step has done is not lost because the database is away, nor because its worker goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pytest

from heartbit.core.commands import CallTool, Command
from heartbit.core.events import LateResult, RunCancelled, RunStarted, ToolReturned
from heartbit.core.state import RunState
from heartbit.engines.durable import DurableEngine
from heartbit.engines.leases import Held
from heartbit.engines.patience import Patience
from heartbit.engines.plan import RunPlace
from heartbit.engines.ports import Done
from heartbit.errors import JournalUnavailable, RunStopped, StepHandedBack
from heartbit.stores.journal import Append, Appended
from heartbit.stores.memory_journal import InMemoryJournal, _Transaction
from heartbit.stores.postgres import PostgresJournal
from tests.support.bench import RUN, SOLO, Bench, Clock, Outbox, Say, calling
from tests.support.journals import call, replied, returned

Fault = Literal["refused", "cut", "none"]


class Failing(InMemoryJournal):
    """A journal whose next transactions are refused, or cut off after their commit."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.faults: list[Fault] = []
        self.meanwhile: list[Callable[[], object]] = []

    @contextmanager
    def transaction(self) -> Iterator[_Transaction]:
        """As always, unless there are faults; after each of them something else may happen."""
        fault = self.faults.pop(0) if self.faults else "none"
        if fault != "refused":
            with super().transaction() as transaction:
                yield transaction
        if fault != "none":
            for each in self.meanwhile:
                each()
            raise JournalUnavailable("The database is starting up; try again in a moment.")


class Outage:
    """A bench with a failing journal; pauses only move the clock."""

    def __init__(self, say: Say, *, batched: bool = False, **options: Any) -> None:
        self.bench = Bench(
            say,
            SOLO,
            batched=batched,
            journal=Failing,
            patience=Patience(clock=lambda: self.bench.clock(), sleep=self._sleep),
            **options,
        )
        assert isinstance(self.bench.journal, Failing)
        self.journal = self.bench.journal

    def after_step(self, step: str, *faults: Fault) -> None:
        """The database fails when the outcome of this step is there."""

        def fail(held: Held, command: Command) -> None:
            if command.step == step:
                self.journal.faults = list(faults)
                self.bench.live()

        self.bench.after = fail

    def outcomes(self) -> list[ToolReturned]:
        """The outcomes of tool calls."""
        return [e for e in self.bench.journal.events(RUN) if isinstance(e, ToolReturned)]

    def late(self) -> list[LateResult]:
        """Outcomes that came too late."""
        return [e for e in self.bench.journal.events(RUN) if isinstance(e, LateResult)]

    def _sleep(self, seconds: float) -> None:
        self.bench.clock.now += seconds


BATCHED = pytest.mark.parametrize("batched", [False, True], ids=["each", "batched"])


@BATCHED
@pytest.mark.parametrize("faults", [["refused"] * 5, ["cut"], ["refused", "cut", "refused"]])
@pytest.mark.parametrize("step", ["1/model", "1/tool/0", "2/model"])
def test_an_outcome_that_could_not_be_stored_is_stored_later(
    batched: bool, step: str, faults: list[Fault]
) -> None:
    """Also if it was stored and only the answer was lost: nothing is doubled, nothing in doubt."""
    outage = Outage(calling("pay"), batched=batched)
    outage.after_step(step, *faults)
    outage.bench.start()
    assert "succeeded" == outage.bench.until_it_ends()
    assert ["pay did it"] == [each.content for each in outage.outcomes()]
    assert {1} == set(outage.bench.begun.values())
    assert [] == outage.late()


@BATCHED
def test_an_outage_longer_than_a_lease_leaves_the_outcome_to_whoever_is_first(
    batched: bool,
) -> None:
    """If that is a verdict, the model is told so, and the outcome is kept for the record."""
    outage = Outage(calling("pay"), batched=batched)
    outage.after_step("1/tool/0", "refused")
    outage.journal.meanwhile = [lambda: outage.bench.later()]
    outage.bench.start()
    assert "succeeded" == outage.bench.until_it_ends()
    assert [True] == [each.is_error for each in outage.outcomes()]
    assert ["pay did it"] == [each.outcome["content"] for each in outage.late()]


def test_another_attempt_with_the_same_words_is_not_taken_for_this_one() -> None:
    """What it has begun is its own: this process begins none of it."""
    outage = Outage(calling("pay"), batched=True)
    other = outage.bench.worker()

    def take_over() -> None:
        outage.journal.meanwhile = []
        outage.bench.later()
        other.step(RUN, "1/model")

    outage.after_step("1/model", "refused")
    outage.journal.meanwhile = [take_over]
    outage.bench.start()
    assert "succeeded" == outage.bench.until_it_ends()
    assert 1 == outage.bench.effects[RUN, "1/tool/0", "at_most_once"]


def test_what_follows_an_outcome_is_sent_though_the_database_goes_away_between() -> None:
    """That it is sent was written down with the outcome."""
    outage = Outage(calling("look"))

    def away(*args: Any, **options: Any) -> Any:
        raise JournalUnavailable("The database has crashed; try again when it is back.")

    outage.bench.after = lambda held, command: setattr(outage.journal, "take_dispatch", away)
    outage.bench.start()
    assert "succeeded" == outage.bench.status


@BATCHED
def test_a_step_that_is_handed_back_is_sent_again_at_once_and_not_suspected(
    batched: bool,
) -> None:
    """No lease has to run out, and no worker was lost."""
    bench = Bench(calling("look"), SOLO, batched=batched)

    def interrupt(held: Held, command: Command) -> None:
        if command.step == "1/tool/0" and held.attempt < 5:
            raise StepHandedBack

    bench.before = interrupt
    bench.start()
    assert "succeeded" == bench.status
    assert 5 == bench.begun[RUN, "1/tool/0"]
    assert {"heartbit.suspects"}.isdisjoint(bench.outbox.queues.values())


@BATCHED
def test_a_step_that_this_process_has_begun_too_late_is_not_in_doubt(batched: bool) -> None:
    """Between the append that began it and its work a lease was lost: nothing had happened."""
    bench = Bench(calling("pay"), SOLO, batched=batched, hold=lambda held: frozen(held))
    left = [1]

    @contextmanager
    def frozen(held: Held) -> Iterator[None]:
        if held.step == "1/tool/0" and left:
            left.pop()
            bench.clock.now += 60
            raise StepHandedBack
        yield

    bench.start()
    assert "succeeded" == bench.until_it_ends()
    assert ["pay did it"] == [
        each.content for each in bench.journal.events(RUN) if isinstance(each, ToolReturned)
    ]


class CutOff(PostgresJournal):
    """A real journal whose answers to appends are lost: each comes after a commit."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.cuts = 0

    def append(self, append: Append) -> Appended:
        """As always, but only the second try hears of it."""
        appended = super().append(append)
        if appended.ok and append.step:
            self.cuts += 1
            raise JournalUnavailable("The database has crashed; try again when it is back.")
        return appended


def test_an_outcome_is_recognised_in_a_real_journal(postgres: str) -> None:
    """Whatever a tool or a model has said: what was read back is what was written."""
    odd = "NUL \0, half a character \ud800, a snake \U0001f40d"

    def work(command: Command, state: RunState, *_: Any) -> Done:
        if isinstance(command, CallTool):
            return Done(event=returned(command.step, odd))
        asked = call("look", odd, x=[1.5, None, {"y": odd}], z={})
        reply = replied(state.turn, odd, *([asked] if state.turn == 1 else []))
        return Done(event=reply)

    journal = CutOff(postgres)
    patience = Patience(sleep=lambda seconds: None)
    engine = DurableEngine(
        journal=journal, outbox=Outbox(), work=work, owner="me", patience=patience, batch_seconds=9
    )
    start = RunStarted(prompt="Go.", definition=SOLO, blackboard=RUN)
    engine.open(RunPlace(run_id=RUN, root_run_id=RUN), start, task_id=RUN)
    engine.step(RUN, "1/model")
    steps = [event.step for event in journal.events(RUN)]
    assert ["start", "1/model", "1/tool/0", "2/model", "end"] == steps
    assert 3 == journal.cuts
    journal.close()


def test_a_process_that_ends_leaves_the_next_steps_to_others() -> None:
    """It stops at the boundary of a step, and sends what it would have gone on with."""
    leaving = [False]
    bench = Bench(calling("look", "pay"), SOLO, batched=True, leaving=lambda: leaving[0])
    bench.after = lambda held, command: leaving.__setitem__(0, True)
    bench.engine.resume(RUN)
    bench.deliver(bench.outbox.messages.pop(0))
    assert {("step", RUN, "1/tool/0"), ("step", RUN, "1/tool/1")} == set(bench.outbox.messages)
    bench.deliver_all()
    assert "succeeded" == bench.status
    assert {1} == set(bench.begun.values())


def test_work_that_is_cancelled_with_its_tree_ends_its_run() -> None:
    """Even if every message about the cancel is lost."""
    bench = Bench(calling("pay"), SOLO)

    def cancel(held: Held, command: Command) -> None:
        bench.journal.request_cancel(RUN)
        raise RunStopped

    bench.before = cancel
    bench.start()
    assert "cancelled" == bench.status
    assert isinstance(bench.event("end"), RunCancelled)
