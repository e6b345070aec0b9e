"""A run that begins with the first events of another one: what comes along, and what does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from heartbit.core.delegation import BlackboardWrite
from heartbit.core.events import Event, Origin, SubRunFinished
from heartbit.errors import LeaseLost, RunStateError
from heartbit.stores.journal import NewRun
from tests.support.stages import (
    ClockedJournal,
    Stage,
    memory_stage,
    model,
    new_run,
    replied,
    returned,
    sub_run,
    tool,
)


@pytest.fixture(params=["memory", "postgres"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A journal of each kind, empty."""
    if request.param == "memory":
        yield memory_stage()
        return
    made = Stage(ClockedJournal(request.getfixturevalue("postgres")))
    yield made
    made.journal.close()


def forked(stage: Stage, run_id: str, keep: int, **columns: Any) -> NewRun:
    """A fork that keeps so many events, and is asked for its second turn."""
    kept: tuple[Event, ...] = stage.journal.events(run_id)[1:keep]
    new = new_run(model("2/model"), kept=kept, **columns)
    return replace(new, start=replace(new.start, forked_from=Origin(run_id=run_id, turn=2)))


def after_a_turn(stage: Stage) -> str:
    """A run with one turn, which called one tool, and a second one that is asked."""
    run_id = stage.open()
    stage.claim(run_id)
    stage.append(run_id, replied(), step="1/model", attempt=1, steps=[tool()])
    stage.claim(run_id, "1/tool/0")
    done = {"step": "1/tool/0", "attempt": 1, "steps": [model("2/model")]}
    stage.append(run_id, returned(), expected=3, **done)
    return run_id


def put(stage: Stage, scope: str, expected: int, run_id: str | None = None, **values: str) -> None:
    """An event that writes to a blackboard."""
    board = [BlackboardWrite(scope=scope, key=k, value=v) for k, v in values.items()]
    event = returned(f"{expected}/tool/0")
    assert stage.append(run_id or scope, event, expected=expected, board=board).ok


def board_of(stage: Stage, scope: str) -> list[tuple[int, str, int, str]]:
    """Everything that was written to a blackboard."""
    return [(e.seq, e.key, e.version, e.value) for e in stage.journal.board_after(scope, 0)]


def test_a_fork_has_the_kept_events_behind_a_start_of_its_own(stage: Stage) -> None:
    origin = after_a_turn(stage)
    new = forked(stage, origin, 3)
    assert stage.journal.open_run(new).opened
    assert (new.start, replied(), returned()) == stage.journal.events(new.run_id)
    assert 3 == len(stage.journal.events(origin))
    assert "queued" == stage.journal.run(new.run_id).status


def test_it_goes_on_with_its_own_step_and_nothing_else(stage: Stage) -> None:
    """What was done is not done again."""
    new = forked(stage, after_a_turn(stage), 3)
    stage.journal.open_run(new)
    assert ("2/model",) == stage.journal.undispatched(new.run_id)
    assert "done" == stage.claim(new.run_id, "1/tool/0").why_not
    claim = stage.claim(new.run_id, "2/model")
    assert (None, 4) == (claim.why_not, claim.seq)
    again = {"step": "2/model", "attempt": 1}
    assert stage.append(new.run_id, replied(step="2/model"), expected=4, **again).ok


def test_a_kept_step_never_gets_a_second_outcome(stage: Stage) -> None:
    new = forked(stage, after_a_turn(stage), 3)
    stage.journal.open_run(new)
    with pytest.raises(LeaseLost):
        stage.append(new.run_id, returned(), expected=4)
    assert 3 == len(stage.journal.events(new.run_id))


def test_the_first_run_goes_on_as_if_nothing_had_happened(stage: Stage) -> None:
    origin = after_a_turn(stage)
    stage.journal.open_run(forked(stage, origin, 3))
    assert None is stage.claim(origin, "2/model").why_not


def test_the_same_fork_twice_is_one_run(stage: Stage) -> None:
    new = forked(stage, after_a_turn(stage), 3)
    assert stage.journal.open_run(new).opened
    assert not stage.journal.open_run(new).opened
    assert 3 == len(stage.journal.events(new.run_id))
    with pytest.raises(RunStateError):
        stage.journal.open_run(replace(new, tenant_id="another"))


def test_a_fork_has_what_was_on_the_blackboard_by_then(stage: Stage) -> None:
    """Not what came after its last event; and the boards go their own ways from there."""
    origin = stage.open()
    put(stage, origin, 2, a="1", b="1")
    put(stage, origin, 3, a="2")
    put(stage, origin, 4, a="3", c="1")
    new = forked(stage, origin, 3)
    stage.journal.open_run(new)
    assert [(1, "a", 1, "1"), (2, "b", 1, "1"), (3, "a", 2, "2")] == board_of(stage, new.run_id)
    put(stage, new.run_id, 4, a="mine")
    assert ("mine", 3) == stage.journal.board_read(new.run_id, "a")
    assert ("3", 3) == stage.journal.board_read(origin, "a")


def test_what_a_kept_sub_run_wrote_is_kept_and_what_a_later_one_wrote_is_not(stage: Stage) -> None:
    origin = stage.open(model("1/sub/0", state="external"), model("2/sub/0", state="external"))
    first, second = (sub_run(origin, f"{turn}/sub/0") for turn in (1, 2))
    stage.append(origin, replied(), runs=[first, second])
    put(stage, origin, 2, run_id=first.run_id, of="first")
    put(stage, origin, 2, run_id=second.run_id, of="second")
    for expected, each in ((3, first), (4, second)):
        event = SubRunFinished(
            step=str(each.step_in_parent),
            sub_run_id=each.run_id,
            sub_agent="solo",
            status="succeeded",
        )
        stage.append(origin, event, expected=expected)
    new = forked(stage, origin, 3)
    stage.journal.open_run(new)
    assert [(1, "of", 1, "first")] == board_of(stage, new.run_id)


def test_a_fork_of_a_fork_keeps_what_belongs_to_its_turns(stage: Stage) -> None:
    """Also of the events that the first fork had kept itself."""
    origin = stage.open()
    put(stage, origin, 2, a="1")
    put(stage, origin, 3, a="2")
    new = forked(stage, origin, 3)
    stage.journal.open_run(new)
    newer = forked(stage, new.run_id, 2)
    stage.journal.open_run(newer)
    assert [(1, "a", 1, "1")] == board_of(stage, newer.run_id)
