"""Calls in doubt: their worker was lost in them, and they must not be repeated blindly."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heartbit.core.calls import doubt, may_be_begun_again
from heartbit.core.commands import CallTool, RefuseCall
from heartbit.core.events import (
    ApprovalRequested,
    ApprovalResolved,
    Decision,
    Event,
    ToolReturned,
)
from heartbit.core.run import Progress, follow
from tests.support.bench import SOLO
from tests.support.journals import call, replied, results, returned, started

STEP = "1/tool/0"
OTHER = "1/tool/1"


def in_turn(*tools: str) -> Progress:
    """A run whose first reply calls these tools."""
    calls = [call(tool, str(n), to=tool) for n, tool in enumerate(tools)]
    return follow(None, [started(SOLO), replied(1, *calls)])


def tool_call(progress: Progress, step: str = STEP) -> CallTool:
    """The open call of a step."""
    command = progress.commands[step]
    assert isinstance(command, CallTool)
    return command


def asked(progress: Progress, step: str = STEP) -> tuple[Progress, ApprovalRequested]:
    """The run once a human is asked about a call in doubt."""
    event = doubt(progress.state, tool_call(progress, step))
    assert isinstance(event, ApprovalRequested)
    return follow(progress, [event]), event


def answered(progress: Progress, question: ApprovalRequested, **decision: object) -> Progress:
    """The run once the human has said what is to become of the call."""
    [position] = question.positions
    decided = Decision(position=position, **decision)  # type: ignore[arg-type]
    return follow(
        progress, [ApprovalResolved(step=f"{question.step}/decision", decisions=(decided,))]
    )


def test_the_model_is_told_that_nobody_knows_and_that_it_may_still_happen() -> None:
    """An error result: check first, before calling again."""
    progress = in_turn("pay")
    event = doubt(progress.state, tool_call(progress))
    assert isinstance(event, ToolReturned)
    assert (STEP, True) == (event.step, event.is_error)
    for words in ("unknown", "may still take effect", "Check"):
        assert words in event.content
    after = follow(progress, [event])
    assert ["2/model"] == list(after.commands)


def test_a_human_is_asked_about_exactly_the_call_in_doubt() -> None:
    """The other calls of the turn go on, and the question has a step of its own."""
    progress, question = asked(in_turn("look", "fire"), OTHER)
    assert "1/doubt/1" == question.step
    assert ("fire", (1,)) == (question.calls[0].name, question.positions)
    assert {"1/tool/0", "1/tool/1"} == set(progress.commands)
    assert not may_be_begun_again(progress.state, OTHER)


def test_an_approved_call_may_be_begun_again_and_has_the_same_step() -> None:
    """Its idempotency key is the same, too."""
    progress, question = asked(in_turn("fire"))
    progress = answered(progress, question, verdict="approve")
    assert may_be_begun_again(progress.state, STEP)
    assert not may_be_begun_again(progress.state, OTHER)
    after = follow(progress, [returned(STEP, "fired")])
    assert ["fired"] == results(after.state)


def test_a_call_that_was_never_in_doubt_may_not_be_begun_again() -> None:
    """Not even one that a human has approved before it ran."""
    agent = replace(SOLO, approve=True)
    progress = follow(None, [started(agent), replied(1, call("fire"))])
    [ask] = progress.commands.values()
    question = ApprovalRequested(step=ask.step, calls=(), positions=(0,))
    progress = answered(follow(progress, [question]), question, verdict="approve")
    assert STEP in progress.commands
    assert not may_be_begun_again(progress.state, STEP)


@pytest.mark.parametrize("reason", [None, "It was charged already"])
def test_a_denied_call_is_not_said_to_have_never_happened(reason: str | None) -> None:
    """Nobody knows whether it did: the human only decided against a second time."""
    progress, question = asked(in_turn("fire"))
    progress = answered(progress, question, verdict="deny", reason=reason)
    command = progress.commands[STEP]
    assert isinstance(command, RefuseCall)
    for words in ("unknown", "may have taken effect", "not to run it again", reason or "."):
        assert words in command.reason


def test_an_edited_call_is_run_with_the_new_arguments_and_the_model_is_told() -> None:
    """As with any other approval."""
    progress, question = asked(in_turn("fire"))
    progress = answered(progress, question, verdict="edit", arguments={"to": "nobody"})
    assert {"to": "nobody"} == tool_call(progress).call.arguments
    assert may_be_begun_again(progress.state, STEP)
    after = follow(progress, [returned(STEP, "fired")])
    assert "changed the arguments" in results(after.state)[0]


def test_always_spares_later_permission_and_never_a_later_doubt() -> None:
    """The next call of the tool runs unasked; if its worker is lost, a human is asked again."""
    agent = replace(SOLO, approve=True)
    progress = follow(None, [started(agent), replied(1, call("fire"))])
    question = ApprovalRequested(step="1/approval", calls=(call("fire"),), positions=(0,))
    progress = answered(follow(progress, [question]), question, verdict="approve", always=True)
    progress = follow(progress, [returned(STEP), replied(2, call("fire", "again"))])
    assert isinstance(progress.commands["2/tool/0"], CallTool)
    _, doubted = asked(progress, "2/tool/0")
    assert "2/doubt/0" == doubted.step


def test_every_loss_of_a_call_is_a_question_of_its_own() -> None:
    """What a human allows once is begun once: each further loss is asked about anew."""
    progress = in_turn("fire")
    steps = []
    for _ in range(3):
        progress, question = asked(progress)
        assert not may_be_begun_again(progress.state, STEP)
        progress = answered(progress, question, verdict="approve")
        assert may_be_begun_again(progress.state, STEP)
        steps.append(question.step)
    assert ["1/doubt/0", "1/doubt/0/2", "1/doubt/0/3"] == steps


def test_questions_about_calls_one_and_ten_are_not_mixed_up() -> None:
    """Their steps begin alike."""
    progress, first = asked(in_turn(*["fire"] * 11), "1/tool/1")
    progress, other = asked(progress, "1/tool/10")
    assert ["1/doubt/1", "1/doubt/10"] == [first.step, other.step]
    progress = answered(progress, other, verdict="deny")
    assert "ask" == progress.state.calls[1].fate
    assert isinstance(progress.commands["1/tool/10"], RefuseCall)


def test_a_decision_about_another_question_leaves_a_call_in_doubt_alone() -> None:
    """Two questions of one turn are answered separately."""
    progress, first = asked(in_turn("fire", "fire"))
    progress, second = asked(progress, OTHER)
    progress = answered(progress, second, verdict="approve")
    assert (False, True) == tuple(may_be_begun_again(progress.state, s) for s in (STEP, OTHER))
    progress = answered(progress, first, verdict="approve")
    assert may_be_begun_again(progress.state, STEP)


def test_a_journal_with_doubts_replays_to_the_same_state() -> None:
    """Folding it at once or event by event makes no difference."""
    base: list[Event] = [started(SOLO), replied(1, call("fire"))]
    progress, first = asked(follow(None, base))
    approved = ApprovalResolved(
        step="1/doubt/0/decision", decisions=(Decision(position=0, verdict="approve"),)
    )
    progress, second = asked(follow(progress, [approved]))
    whole = follow(None, [*base, first, approved, second])
    assert progress.state == whole.state
    assert progress.commands == whole.commands
