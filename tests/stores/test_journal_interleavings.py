"""Whatever several workers do in whatever order, every journal gives the same answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heartbit.core.events import Decision
from heartbit.errors import HeartbitError
from heartbit.stores.journal import Change, NewApproval
from tests.support.stages import (
    LEASE,
    ClockedJournal,
    Stage,
    memory_stage,
    model,
    replied,
    returned,
    tool,
)

STEPS = ("1/model", "1/tool/0", "1/tool/1")
QUESTION = NewApproval(step="1/approval", agent="solo", calls=(), expires_seconds=40.0)

Move = tuple[str, Any]
steps = st.sampled_from(STEPS)
workers = st.sampled_from(["a", "b"])
numbers = st.integers(1, 4)
MOVES = st.one_of(
    st.tuples(st.just("claim"), st.tuples(steps, workers, st.none() | numbers)),
    st.tuples(st.just("outcome"), st.tuples(steps, numbers, st.integers(-1, 1))),
    st.tuples(st.just("verdict"), st.tuples(steps, numbers, st.booleans())),
    st.tuples(st.just("extend"), st.tuples(steps, numbers)),
    st.tuples(st.just("release"), st.tuples(steps, numbers)),
    st.tuples(st.just("advance"), st.sampled_from([1.0, 3.0, LEASE + 1, 50.0])),
    st.tuples(st.just("dispatch"), st.lists(steps, max_size=3)),
    st.tuples(st.sampled_from(["sweep", "timers", "ask", "cancel", "end"]), st.none()),
    st.tuples(st.just("decide"), st.booleans()),
    st.tuples(st.just("write"), st.tuples(st.sampled_from("xy"), st.none() | st.integers(0, 2))),
)


@dataclass(frozen=True)
class Held:
    """A lease."""

    run_id: str
    step: str
    attempt: int


class World:
    """One run and its workers, who know as much of the journal as the last answer told."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.run_id = stage.open(
            model(), tool("1/tool/0", repeatable=False), tool("1/tool/1", state="external")
        )

    def play(self, move: Move) -> Any:
        """Make a move; what it gives, or the kind of error it raises."""
        kind, given_ = move
        try:
            return getattr(self, kind)(given_)
        except HeartbitError as error:
            return type(error)

    def claim(self, given_: tuple[str, str, int | None]) -> Any:
        step, worker, doubt = given_
        got = self.stage.claim(self.run_id, step, owner=worker, doubt=doubt)
        return got.why_not, got.attempt, got.status, got.cancelled, got.seq, len(got.events)

    def outcome(self, given_: tuple[str, int, int]) -> Any:
        step, attempt, lag = given_
        attempt = 0 if step == "1/tool/1" else attempt
        event = replied() if step == "1/model" else returned(step)
        expected = len(self.stage.journal.events(self.run_id)) + 1 + lag
        got = self.stage.append(
            self.run_id, event, expected=max(expected, 2), step=step, attempt=attempt
        )
        return got.ok, got.seq, got.ended, got.behind

    def verdict(self, given_: tuple[str, int, bool]) -> Any:
        step, attempt, park = given_
        expected = len(self.stage.journal.events(self.run_id)) + 1
        event = returned(f"{step}/parked/{attempt}" if park else step, "unknown")
        got = self.stage.append(
            self.run_id,
            event,
            expected=expected,
            step=step,
            attempt=attempt,
            verdict=True,
            park=park,
        )
        return got.ok, got.seq

    def extend(self, given_: tuple[str, int]) -> Any:
        return len(self.stage.journal.extend_leases([Held(self.run_id, *given_)], LEASE))

    def release(self, given_: tuple[str, int]) -> Any:
        return self.stage.journal.release(self.run_id, *given_)

    def advance(self, seconds: float) -> Any:
        self.stage.advance(seconds)

    def dispatch(self, wanted: list[str]) -> Any:
        return set(self.stage.journal.take_dispatch(self.run_id, wanted))

    def sweep(self, _: None) -> Any:
        journal = self.stage.journal
        lost = journal.expired_steps(limit=99, again_seconds=10)
        sent = journal.unsent_steps(limit=99, again_seconds=10, empty_queues=["llm"])
        return (
            {(e.step, e.queue, e.attempt, e.fate) for e in lost if e.run_id == self.run_id},
            {(e.step, e.queue, e.external, e.count) for e in sent if e.run_id == self.run_id},
        )

    def timers(self, _: None) -> Any:
        due = self.stage.journal.due_timers(limit=99, again_seconds=10)
        return {each.what for each in due if each.run_id == self.run_id}

    def ask(self, _: None) -> Any:
        expected = len(self.stage.journal.events(self.run_id)) + 1
        asked = returned("1/approval", "?")
        waiting = Change(status="waiting")
        got = self.stage.append(
            self.run_id, asked, expected=expected, approval=QUESTION, change=waiting
        )
        return got.ok

    def decide(self, expired: bool) -> Any:
        self.stage.journal.decide(
            self.run_id,
            "1/approval",
            [Decision(position=0, verdict="deny")],
            calls_hash=QUESTION.calls_hash,
            by="eve",
            expired=expired,
        )

    def cancel(self, _: None) -> Any:
        return len(self.stage.journal.request_cancel(self.run_id))

    def end(self, _: None) -> Any:
        expected = len(self.stage.journal.events(self.run_id)) + 1
        return self.stage.finish(self.run_id, expected).ok

    def write(self, given_: tuple[str, int | None]) -> Any:
        key, expected = given_
        return self.stage.journal.board_write(
            self.run_id, key, 1, run_id=self.run_id, expected=expected
        )

    @property
    def seen(self) -> Any:
        """What a person sees of it."""
        journal = self.stage.journal
        row = journal.run(self.run_id)
        approvals = [
            (a.step, a.decisions, a.decided_at is None) for a in journal.approvals(self.run_id)
        ]
        return (
            row.status,
            row.cancel_requested,
            journal.events(self.run_id)[1:],
            journal.undispatched(self.run_id),
            journal.board_after(self.run_id, 0),
            approvals,
        )


@contextmanager
def worlds(url: str) -> Iterator[tuple[World, World]]:
    """The same run in both journals."""
    stored = Stage(ClockedJournal(url))
    try:
        world = World(stored)
        yield World(memory_stage()), world
        world.end(None)
    finally:
        stored.journal.close()


def compare(url: str, moves: list[Move]) -> None:
    """Make the same moves on both."""
    with worlds(url) as (memory, stored):
        for move in moves:
            assert (move, memory.play(move)) == (move, stored.play(move))
            assert memory.seen == stored.seen


relaxed: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
}


@settings(max_examples=15, **relaxed)
@given(moves=st.lists(MOVES, min_size=5, max_size=25))
def test_two_journals_agree_on_every_move(postgres: str, moves: list[Move]) -> None:
    compare(postgres, moves)


@pytest.mark.slow
@settings(max_examples=400, **relaxed)
@given(moves=st.lists(MOVES, min_size=5, max_size=40))
def test_two_journals_agree_on_very_many_moves(postgres: str, moves: list[Move]) -> None:
    compare(postgres, moves)
