"""What becomes of a turn's calls: permission, approval, edits, refusals, and their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from heartbit.core.agent import Action, AgentDefinition, PermissionRule
from heartbit.core.commands import AskApproval, CallTool, RefuseCall, StartSubRun
from heartbit.core.events import ApprovalRequested, ApprovalResolved, Decision, Event, Verdict
from heartbit.core.messages import ToolCall
from heartbit.core.run import Step
from tests.support.journals import (
    CHIEF,
    LOOK,
    SOLO,
    call,
    delegating,
    follow,
    replied,
    results,
    returned,
    spec,
    started,
)


def ruled(*rules: tuple[str, Action], approve: bool = False) -> AgentDefinition:
    """The solo agent under rules of (tool, action)."""
    permissions = tuple(PermissionRule(tool=tool, action=action) for tool, action in rules)
    return replace(SOLO, permissions=permissions, approve=approve)


def decided(definition: AgentDefinition, calls: Sequence[ToolCall], *decisions: Decision) -> Step:
    """What follows the decisions about calls that were all asked about."""
    asked = ApprovalRequested(
        step="1/approval", calls=tuple(calls), positions=tuple(range(len(calls)))
    )
    resolved = ApprovalResolved(step="1/approval/decision", decisions=decisions)
    return follow([started(definition), replied(1, *calls), asked, resolved])


@pytest.mark.parametrize(
    ("rule", "approve", "kind"),
    [
        (None, False, CallTool),
        ("allow", False, CallTool),
        ("deny", False, RefuseCall),
        ("ask", False, AskApproval),
        (None, True, AskApproval),
        ("allow", True, AskApproval),
        ("deny", True, RefuseCall),
        ("ask", True, AskApproval),
    ],
)
def test_approve_asks_about_every_call_that_no_rule_denies(
    rule: Action | None, approve: bool, kind: type
) -> None:
    """Rules alone decide without it; with it even an allowed call is shown first."""
    definition = ruled(*[("look", rule)] if rule else [], approve=approve)
    _, commands = follow([started(definition), replied(1, call("look"))])
    assert [kind] == [type(command) for command in commands]


def test_the_first_rule_that_matches_decides() -> None:
    """A later rule says nothing about a call that an earlier one has decided."""
    definition = ruled(("look", "deny"), ("*", "allow"), ("look", "ask"))
    _, commands = follow([started(definition), replied(1, call("look"), call("move"))])
    assert [CallTool, RefuseCall] == sorted((type(c) for c in commands), key=lambda k: k.__name__)
    [refused] = [c for c in commands if isinstance(c, RefuseCall)]
    assert ("1/tool/0", "Permission denied" in refused.reason) == (refused.step, True)


def test_a_reviewers_edit_cannot_reach_what_a_rule_denies() -> None:
    """A denial is for everybody: changed arguments are held against the rules once more."""
    rules = (
        PermissionRule(tool="look", pattern="/secret*", action="deny"),
        PermissionRule(tool="look", action="ask"),
    )
    edit = Decision(position=0, verdict="edit", arguments={"path": "/secret/key"})
    _, [command] = decided(replace(SOLO, permissions=rules), [call("look", path="/tmp")], edit)
    assert isinstance(command, RefuseCall)
    assert "a rule forbids" in command.reason


def test_a_call_without_a_decision_is_denied() -> None:
    """Silence is no consent."""
    calls = [call("look"), call("move")]
    _, commands = decided(ruled(approve=True), calls, Decision(position=1, verdict="approve"))
    assert {"1/tool/0": RefuseCall, "1/tool/1": CallTool} == {c.step: type(c) for c in commands}


def test_an_edit_is_run_with_its_own_arguments_and_told_to_the_model() -> None:
    """The model reads what a human made of its call, before the result."""
    edit = Decision(position=0, verdict="edit", arguments={"x": 2})
    _, [command] = decided(ruled(approve=True), [call("look", x=1)], edit)
    assert isinstance(command, CallTool)
    assert {"x": 2} == command.call.arguments
    events: list[Event] = [started(ruled(approve=True)), replied(1, call("look", x=1))]
    asked = ApprovalRequested(step="1/approval", calls=(call("look", x=1),), positions=(0,))
    resolved = ApprovalResolved(step="1/approval/decision", decisions=(edit,))
    state, _ = follow([*events, asked, resolved, returned("1/tool/0", "two")])
    told = '[A human reviewer changed the arguments to {"x": 2}]\ntwo'
    assert [told] == results(state)


@pytest.mark.parametrize(
    ("verdict", "kind"), [("approve", CallTool), ("edit", CallTool), ("deny", RefuseCall)]
)
def test_always_decides_later_calls_of_the_same_tool_only(verdict: Verdict, kind: type) -> None:
    """A lesson is about one tool: another one is still asked about."""
    definition = ruled(approve=True)
    decision = Decision(position=0, verdict=verdict, arguments={}, always=True)
    asked = ApprovalRequested(step="1/approval", calls=(call("look"),), positions=(0,))
    resolved = ApprovalResolved(step="1/approval/decision", decisions=(decision,))
    _, commands = follow(
        [
            started(definition),
            replied(1, call("look")),
            asked,
            resolved,
            returned("1/tool/0"),
            replied(2, call("look"), call("move")),
        ]
    )
    assert {"2/tool/0": kind, "2/approval": AskApproval} == {c.step: type(c) for c in commands}


def test_a_lesson_never_overrules_a_denial() -> None:
    """Always allowing a tool leaves its forbidden arguments forbidden."""
    rules = (PermissionRule(tool="look", pattern="/secret*", action="deny"),)
    definition = replace(SOLO, permissions=rules, approve=True)
    asked = ApprovalRequested(step="1/approval", calls=(call("look"),), positions=(0,))
    always = Decision(position=0, verdict="approve", always=True)
    resolved = ApprovalResolved(step="1/approval/decision", decisions=(always,))
    _, [command] = follow(
        [
            started(definition),
            replied(1, call("look")),
            asked,
            resolved,
            returned("1/tool/0"),
            replied(2, call("look", path="/secret/key")),
        ]
    )
    assert isinstance(command, RefuseCall)


def test_calls_that_need_no_approval_start_beside_those_that_wait() -> None:
    """One question holds up only its own calls, and it names exactly them."""
    definition = ruled(("look", "ask"))
    calls = [call("move"), call("look", x=1), call("move"), call("look", x=2)]
    _, commands = follow([started(definition), replied(1, *calls)])
    assert ["1/tool/0", "1/tool/2", "1/approval"] == [c.step for c in commands]
    ask = commands[-1]
    assert isinstance(ask, AskApproval)
    assert ((1, 3), [{"x": 1}, {"x": 2}]) == (ask.positions, [c.arguments for c in ask.calls])


def test_an_approved_delegation_starts_its_sub_runs() -> None:
    """Handing work on is a call like any other: asked about first, then done."""
    calls = [delegating(("ada", "x"), ("bob", "y"))]
    approve = Decision(position=0, verdict="approve")
    _, commands = decided(replace(CHIEF, approve=True), calls, approve)
    assert [StartSubRun, StartSubRun] == [type(command) for command in commands]


def test_a_misspelt_name_is_neither_run_nor_asked_about() -> None:
    """The rules of a tool cannot be dodged by a name that is almost its own."""
    definition = replace(ruled(("bash", "deny")), tools=(LOOK, spec("bash")))
    _, [command] = follow([started(definition), replied(1, call("bosh"))])
    assert isinstance(command, RefuseCall)
    assert "Tool not found: 'bosh'. Did you mean 'bash'?" == command.reason


def test_the_same_name_in_another_case_is_another_name() -> None:
    """Names are compared exactly, by the rules and by the lookup alike."""
    definition = replace(ruled(("bash", "deny")), tools=(LOOK, spec("bash")))
    _, [command] = follow([started(definition), replied(1, call("Bash"))])
    assert isinstance(command, RefuseCall)
    assert "Tool not found" in command.reason
