"""What a run has used when it ends, whoever told it late or was lost on the way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heartbit.core.agent import as_json
from heartbit.core.commands import CallModel
from heartbit.core.events import (
    ContextSummarised,
    DeadlinePassed,
    Event,
    LateResult,
    ModelFailed,
    RunCancelled,
)
from heartbit.core.messages import Completion, TextPart, Usage
from heartbit.core.run import replay
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

LOST = Usage(input_tokens=100, output_tokens=20, cache_read_tokens=3)
REPLY = Completion(parts=(TextPart(text="Hi."),), stop_reason="end_turn", usage=LOST, cost_usd=0.5)


def late(outcome: Event) -> LateResult:
    """An outcome of the first turn that came after another one."""
    return LateResult(late_step="1/model", outcome=as_json(outcome))


@pytest.mark.parametrize(
    ("outcome", "usage", "cost_usd"),
    [
        (replace(replied(1, "Hi."), completion=REPLY), LOST, 0.5),
        (replace(replied(1, "Hi."), completion=replace(REPLY, cost_usd=None)), LOST, None),
        (ModelFailed(step="1/model", error="X", message="x", usage=LOST, cost_usd=0.1), LOST, 0.1),
        (ContextSummarised(step="1/summary", summary="s", upto=1, usage=LOST), LOST, None),
        (returned("1/tool/0"), Usage(), 0.0),
    ],
)
def test_what_a_lost_attempt_has_used_is_counted(
    outcome: Event, usage: Usage, cost_usd: float | None
) -> None:
    """Whether the run goes on or its end is decided; nothing else follows from it."""
    before, commands = replay([started()])
    state, still = replay([started(), late(outcome)])
    assert (usage, cost_usd) == (state.usage, state.cost_usd)
    assert commands == still
    assert before.messages == state.messages
    ending, _ = replay([started(), DeadlinePassed(), late(outcome)])
    assert (usage, cost_usd) == (ending.usage, ending.cost_usd)


def test_no_run_fails_because_a_worker_of_it_was_lost() -> None:
    """What lost attempts have used is no part of what max_total_tokens limits."""
    agent = replace(SOLO, max_total_tokens=50)
    reply = replied(1, call("look"))
    state, commands = replay([started(agent), late(replace(reply, completion=REPLY)), reply])
    assert state.usage.total_tokens > 100
    assert not any(command.step == "end" for command in commands)


def test_an_outcome_of_another_release_counts_what_it_tells() -> None:
    """Fields that are missing are zero, others are not asked for."""
    outcome = {"type": "model_replied", "completion": {"usage": {"input_tokens": 7, "new": 1}}}
    state, _ = replay([started(), LateResult(late_step="1/model", outcome=outcome)])
    assert Usage(input_tokens=7) == state.usage


def test_a_cancelled_sub_run_begins_nothing_in_its_parent() -> None:
    """Its whole tree is being cancelled: no turn begins that nobody will do."""
    asked = replied(1, delegating(("ada", "work"), ("bob", "work")))
    events: list[Event] = [
        started(CHIEF),
        asked,
        sub_finished("1/sub/0", status="cancelled", usage=LOST),
        sub_finished("1/sub/1", "bob", usage=LOST),
    ]
    state, commands = replay(events)
    assert () == commands
    assert 1 == state.turn
    ended, _ = replay([*events, RunCancelled()])
    assert ("cancelled", 1) == (ended.status, ended.turn)
    assert asked.completion.usage + LOST + LOST == ended.usage


def test_a_sub_run_that_failed_is_a_result_for_its_parent() -> None:
    """Also one whose own time was over: the next turn hears of it."""
    events: list[Event] = [started(CHIEF), replied(1, delegating(("ada", "work")))]
    _, commands = replay([*events, sub_finished("1/sub/0", status="failed", error="Too slow.")])
    assert (CallModel(step="2/model", turn=2),) == commands
