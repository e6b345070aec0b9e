"""What a fork keeps of a journal, and what is another from its first turn on."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from heartbit.core.agent import ContextStrategy
from heartbit.core.events import ContextSummarised, Event, LateResult, Origin, RunFinished
from heartbit.core.fork import Fork, fork
from heartbit.core.run import follow, model_request
from heartbit.errors import RunStateError
from heartbit.stores.codec import decode_event, encode_event
from tests.support.journals import (
    CHIEF,
    SOLO,
    call,
    delegating,
    replied,
    returned,
    started,
    sub_finished,
)
from tests.support.kept_journals import KEPT

LATE = LateResult(late_step="1/tool/0", outcome={})
JOURNAL: list[Event] = [
    started(),
    replied(1, call("look"), call("move")),
    returned("1/tool/1", "moved"),
    LATE,
    returned("1/tool/0", "seen"),
    LATE,
    replied(2, call("look")),
    returned("2/tool/0", "seen again"),
    replied(3, "done"),
    RunFinished(result="done"),
]
JOURNALS = [
    pytest.param([decode_event(each) for each in journal["events"]], id=f"{path.stem}:{place}")
    for path in sorted(KEPT.glob("*.json"))
    for place, journal in json.loads(path.read_text())["journals"].items()
]


def at(turn: int, events: list[Event] = JOURNAL, **changes: str) -> Fork:
    """A fork from the beginning of this turn."""
    return fork(events, Origin(run_id="old", turn=turn), blackboard="new", **changes)


def steps(forked: Fork) -> list[str | None]:
    """The steps of what is kept."""
    return [event.step for event in (forked.start, *forked.kept)]


def test_everything_before_the_turn_is_kept_in_its_order() -> None:
    assert ["start"] == steps(at(1))
    assert ["start", "1/model", "1/tool/1", None, "1/tool/0"] == steps(at(2))
    assert ["start", "1/model", "1/tool/1", None, "1/tool/0", None, "2/model", "2/tool/0"] == steps(
        at(3)
    )


def test_the_turn_itself_is_all_that_is_left_to_do() -> None:
    for turn in (1, 2, 3):
        forked = at(turn)
        progress = follow(None, (forked.start, *forked.kept))
        assert ([f"{turn}/model"], turn) == (list(progress.commands), progress.state.turn)


@pytest.mark.parametrize("events", JOURNALS)
def test_a_turn_of_any_journal_is_asked_as_it_was(events: list[Event]) -> None:
    """Whatever the turns before it were: delegations, approvals, summaries, failures."""
    last = follow(None, events).state.turn
    assert last
    for turn in range(1, last + 1):
        forked = at(turn, events)
        now = follow(None, (forked.start, *forked.kept))
        then = follow(None, events[: now.seq])
        assert [f"{turn}/model"] == list(now.commands) == list(then.commands)
        assert model_request(then.state) == model_request(now.state)


def test_a_run_that_is_still_going_can_be_forked_up_to_the_turn_that_is_open() -> None:
    assert ["start", "1/model", "1/tool/1", None, "1/tool/0"] == steps(at(2, JOURNAL[:6]))
    with pytest.raises(RunStateError, match="has turn 1 only; it has no turn 2"):
        at(2, JOURNAL[:4])


@pytest.mark.parametrize("turn", [0, -1, 4, 99])
def test_a_turn_that_never_was_is_refused_with_those_that_were(turn: int) -> None:
    with pytest.raises(RunStateError, match=f"has the turns 1 to 3; it has no turn {turn}"):
        at(turn)


def test_the_start_tells_where_the_run_comes_from_and_has_a_board_of_its_own() -> None:
    start = at(2).start
    assert (Origin(run_id="old", turn=2), "new") == (start.forked_from, start.blackboard)
    assert start == decode_event(encode_event(start))
    assert started() == replace(start, forked_from=None, blackboard="board")


def test_a_model_is_that_of_the_agent_and_of_those_on_the_same_provider() -> None:
    """As `heartbit run --model` has it."""
    ada, bob = CHIEF.delegates
    agent = replace(CHIEF, model="m", delegates=(ada, replace(bob, provider="bob", model="b")))
    forked = at(1, [started(agent)], model="other")
    asked = forked.start.definition
    assert ("other", ["other", "b"]) == (asked.model, [each.model for each in asked.delegates])
    assert "other" == model_request(follow(None, [forked.start]).state).model


def test_finished_sub_runs_are_kept_as_they_are() -> None:
    events: list[Event] = [
        started(CHIEF),
        replied(1, delegating(("ada", "a"), ("bob", "b"))),
        sub_finished("1/sub/1", "bob"),
        sub_finished("1/sub/0"),
    ]
    assert tuple(events[1:]) == at(2, events, model="other").kept


def test_a_prompt_takes_the_place_of_the_first_one_above_the_kept_turns() -> None:
    forked = at(2, prompt="Come.")
    first, *rest = model_request(follow(None, (forked.start, *forked.kept)).state).messages
    assert "Come." == first.text
    original = at(2)
    assert rest == list(
        model_request(follow(None, (original.start, *original.kept)).state).messages[1:]
    )


def summarised(size: int) -> list[Event]:
    """A run that summarises once its prompt and what was seen pass a threshold."""
    strategy = ContextStrategy(type="summarize", threshold=1000)
    events: list[Event] = [started(replace(SOLO, context_strategy=strategy), "x" * size)]
    for turn in (1, 2, 3):
        events += [replied(turn, call("look")), returned(f"{turn}/tool/0")]
    if size > 4000:
        events.append(ContextSummarised(step="3/summary", summary="All.", upto=3))
    return [*events, replied(4, "done")]


@pytest.mark.parametrize(("size", "prompt"), [(10_000, "short"), (10, "x" * 10_000)])
def test_a_prompt_with_which_the_kept_turns_would_have_gone_otherwise_is_refused(
    size: int, prompt: str
) -> None:
    """A summary was made that nobody would ask for now, or the other way round."""
    assert at(4, summarised(size)).kept
    with pytest.raises(RunStateError, match=r"do not fit the new prompt.*Fork from turn 1"):
        at(4, summarised(size), prompt=prompt)
    assert () == at(1, summarised(size), prompt=prompt).kept
