"""Whether decisions fit the question that they answer: found out before anything is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from heartbit.core.calls import edit_problem
from heartbit.core.events import Decision
from heartbit.core.messages import ToolCall
from heartbit.core.result import PendingApproval
from heartbit.core.state import RunState
from heartbit.errors import InvalidDecision

NOBODY_ANSWERED = "nobody answered in time"


def unanswered(state: RunState, question: str) -> tuple[Decision, ...]:
    """The decisions about a question, by its step, that nobody answers in time: denials."""
    return tuple(
        Decision(position=call.position, verdict="deny", reason=NOBODY_ANSWERED)
        for call in state.calls
        if call.fate == "ask" and call.asked == question
    )


def checked(
    state: RunState, question: PendingApproval, decisions: Sequence[Decision]
) -> tuple[Decision, ...]:
    """The decisions in the order of the calls: one for each, and every edit could be run.

    Raises:
        InvalidDecision: why they do not fit.
    """
    by_position = {decision.position: decision for decision in decisions}
    if len(by_position) < len(decisions):
        raise InvalidDecision("One call was decided on twice; decide on each call once.")
    if strange := sorted(set(by_position) - set(question.positions)):
        raise InvalidDecision(
            f"Call {strange[0]} of step {question.step} does not wait for a decision; "
            f"{_listed(question.positions)} do."
        )
    if missing := [p for p in question.positions if p not in by_position]:
        raise InvalidDecision(
            f"Step {question.step} waits for a decision on every one of its calls; "
            f"{_listed(missing)} have none."
        )
    for position, call in zip(question.positions, question.calls, strict=True):
        _check_edit(state, replace(call, malformed=None), by_position[position])
    return tuple(by_position[position] for position in question.positions)


def _check_edit(state: RunState, call: ToolCall, decision: Decision) -> None:
    if decision.verdict != "edit":
        return
    edited = replace(call, arguments=decision.arguments or {})
    if problem := edit_problem(state, edited):
        raise InvalidDecision(f"The edit of {call.name} cannot be run: {problem}")


def _listed(positions: Sequence[int]) -> str:
    return ", ".join(map(str, positions))
