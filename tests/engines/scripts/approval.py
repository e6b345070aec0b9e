"""Permission and approval: rules, questions, what a human may decide, and waiting for one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from heartbit.core.agent import Action, AgentDefinition, PermissionRule
from heartbit.core.events import (
    ApprovalRequested,
    ApprovalResolved,
    Decision,
    SubRunFinished,
    ToolReturned,
)
from heartbit.core.result import PendingApproval
from tests.support.model_server import Reply
from tests.support.parity import (
    ADD,
    Asked,
    Outcome,
    Script,
    both,
    calls,
    make_tool,
    once,
    result_says,
    told,
)

LOOK = make_tool("look", lambda: "seen")
BASH = make_tool("bash", lambda command: f"ran {command}", {"command": {"type": "string"}})
TOOLS = [ADD, LOOK, BASH]
OPEN = AgentDefinition(name="solo", tools=tuple(tool.spec for tool in TOOLS))
CAREFUL = replace(OPEN, approve=True)
NOT_FOUND = "Tool not found: "


def _ruled(*rules: tuple[str, str, Action]) -> AgentDefinition:
    """The agent under rules of (tool, pattern, action)."""
    permissions = (PermissionRule(tool=t, pattern=p, action=a) for t, p, a in rules)
    return replace(OPEN, permissions=tuple(permissions))


def _each(decide: Callable[[dict[str, int]], Decision]) -> Callable[..., Sequence[Decision]]:
    """A human who looks at the arguments of every call."""

    def answer(question: PendingApproval) -> Sequence[Decision]:
        pairs = zip(question.positions, question.calls, strict=True)
        return [replace(decide(call.arguments), position=position) for position, call in pairs]

    return answer


_yes = _each(lambda arguments: Decision(position=0, verdict="approve"))


def _contents(got: Outcome, place: str = "") -> dict[str, str]:
    return {event.step: event.content for event in got.events(ToolReturned, place)}


def _asked_first(got: Outcome) -> None:
    assert [
        ("start", "run_started"),
        ("1/model", "model_replied"),
        ("1/approval", "approval_requested"),
        ("1/approval/decision", "approval_resolved"),
        ("1/tool/0", "tool_returned"),
    ] == got.steps()[:5]


def _first_match(got: Outcome) -> None:
    denied = "Permission denied for tool 'bash': a rule forbids this call."
    assert {"1/tool/0": denied, "1/tool/1": "ran ls", "1/tool/2": "3"} == _contents(got)
    assert [True, None, None] == [r.get("is_error") for r in got.asked[1].results]
    assert [] == got.events(ApprovalRequested)


SUBS = (
    AgentDefinition(name="ada", system_prompt="I am ada.", tools=(ADD.spec,), approve=True),
    AgentDefinition(name="bob", system_prompt="I am bob.", tools=(LOOK.spec,)),
)
CHIEF = AgentDefinition(name="chief", system_prompt="I am the chief.", delegates=SUBS, approve=True)
TASKS = [{"agent": "ada", "task": "add"}, {"agent": "bob", "task": "look"}]


def _team(asked: Asked) -> Reply:
    if "chief" in asked.system:
        return once(calls(("delegate_task", {"tasks": TASKS})))(asked)  # type: ignore[return-value]
    ada = "ada" in asked.system
    first = calls(("add", {"a": 1, "b": 2})) if ada else calls(("look", {}))
    return once(first)(asked)  # type: ignore[return-value]


def _everybody_asked(got: Outcome) -> None:
    for place, name in {"": "delegate_task", "1/sub/0": "add"}.items():
        [question] = got.events(ApprovalRequested, place)
        assert [name] == [call.name for call in question.calls]
    assert [] == got.events(ApprovalRequested, "1/sub/1")
    assert "=== Agent: ada ===\n3\n\n=== Agent: bob ===\nseen" == got.output.result


def _denied_delegation(got: Outcome) -> None:
    assert [""] == list(got.journals)
    assert "Denied by a human reviewer: not today" == got.output.result


FOUR = calls(*(("add", {"a": a, "b": 0}) for a in (1, 2, 3, 4)))


def _mixed(arguments: dict[str, int]) -> Decision:
    decisions: dict[int, Decision] = {
        1: Decision(position=0, verdict="approve"),
        2: Decision(position=0, verdict="deny", reason="too many"),
        3: Decision(position=0, verdict="edit", arguments={"a": 30, "b": 1}),
        4: Decision(position=0, verdict="edit", arguments={"a": "four"}),
    }
    return decisions[arguments["a"]]


def _mixed_expect(got: Outcome) -> None:
    one, two, three, four = (_contents(got)[f"1/tool/{n}"] for n in range(4))
    assert ("1", "Denied by a human reviewer: too many", "31") == (one, two, three)
    assert four.startswith("The reviewer's edit was not run: Input validation failed: $.a: ")
    shown = [result["content"] for result in got.asked[1].results]
    edited = '[A human reviewer changed the arguments to {"a": 30, "b": 1}]\n31'
    assert [one, two, edited, four] == shown
    assert 1 == len(got.events(ApprovalResolved))


def _three_rounds(asked: Asked) -> Reply:
    if asked.turn == 4:
        return Reply(text="Done.")
    return calls(("add", {"a": asked.turn, "b": 0}), ("look", {}))


def _always(verdict: str) -> Callable[[PendingApproval], Sequence[Decision]]:
    def decide(question: PendingApproval) -> Sequence[Decision]:
        pairs = zip(question.positions, question.calls, strict=True)
        return [
            Decision(position=position, verdict=verdict, always=True)  # type: ignore[arg-type]
            if call.name == "add"
            else Decision(position=position, verdict="approve")
            for position, call in pairs
        ]

    return decide


def _asked_once_about_add(*contents: str) -> Callable[[Outcome], None]:
    def expect(got: Outcome) -> None:
        rounds = [[call.name for call in e.calls] for e in got.events(ApprovalRequested)]
        assert [["add", "look"], ["look"], ["look"]] == rounds
        assert list(contents) == [_contents(got)[f"{turn}/tool/0"] for turn in (1, 2, 3)]

    return expect


ASK_ADD = _ruled(("add", "*", "ask"))


def _waits(got: Outcome) -> None:
    output = got.output
    assert ("waiting", None, 1) == (output.status, output.result, len(got.asked))
    [pending] = output.pending
    assert ("solo", "1/approval", (0, 2)) == (pending.agent, pending.step, pending.positions)
    assert [{"a": 1, "b": 2}, {"a": 3, "b": 4}] == [call.arguments for call in pending.calls]
    assert {"1/tool/1": "seen"} == _contents(got)


def _sub_waits(got: Outcome) -> None:
    assert "waiting" == got.output.status
    [pending] = got.output.pending
    assert ("ada", "1/approval") == (pending.agent, pending.step)
    assert [("add", {"a": 1, "b": 2})] == [(c.name, c.arguments) for c in pending.calls]
    assert ["1/sub/1"] == [event.step for event in got.events(SubRunFinished)]
    assert {} == _contents(got, "1/sub/0")


def _two_commands(asked: Asked) -> Reply:
    if asked.turn == 3:
        return Reply(text=told(asked))
    return calls(("bash", {"command": ["ls", "cat secret"][asked.turn - 1]}))


def _denied_without_asking(got: Outcome) -> None:
    assert 1 == len(got.events(ApprovalRequested))
    assert "ran ls" == _contents(got)["1/tool/0"]
    assert "a rule forbids this call" in str(got.output.result)


def _nothing_ran(got: Outcome) -> None:
    assert not [text for text in _contents(got).values() if text.startswith("ran")]
    assert [NOT_FOUND in text for text in _contents(got).values()] == [True, True]


def _edit_is_denied(got: Outcome) -> None:
    assert "a rule forbids this call" in str(got.output.result)
    assert not str(got.output.result).startswith("ran")


SECRETS = _ruled(("bash", "*secret*", "deny"), ("bash", "*", "ask"))

SCRIPTS = [
    Script(
        name="a call under an ask rule runs after the human has approved it",
        agent=ASK_ADD,
        answer=once(calls(("add", {"a": 1, "b": 2}))),
        expect=both(_asked_first, result_says("3", error=False)),
        tools=TOOLS,
        decide=_yes,
    ),
    Script(
        name="the first rule that matches decides and a denial is told to the model",
        agent=_ruled(("bash", "rm *", "deny"), ("bash", "*", "allow"), ("bash", "ls", "deny")),
        answer=once(
            calls(
                ("bash", {"command": "rm x"}),
                ("bash", {"command": "ls"}),
                ("add", {"a": 1, "b": 2}),
            )
        ),
        expect=_first_match,
        tools=TOOLS,
    ),
    Script(
        name="approve asks about the tools of sub-agents and about delegation itself",
        agent=CHIEF,
        answer=_team,
        expect=_everybody_asked,
        tools=TOOLS,
        decide=_yes,
    ),
    Script(
        name="a delegation that is denied starts nobody",
        agent=CHIEF,
        answer=_team,
        expect=_denied_delegation,
        tools=TOOLS,
        decide=_each(lambda arguments: Decision(position=0, verdict="deny", reason="not today")),
    ),
    Script(
        name="approve asks even about what a rule allows",
        agent=replace(_ruled(("*", "*", "allow")), approve=True),
        answer=once(calls(("add", {"a": 1, "b": 2}))),
        expect=both(_asked_first, result_says("3", error=False)),
        tools=TOOLS,
        decide=_yes,
    ),
    Script(
        name="each call of a round is approved, denied or edited on its own",
        agent=CAREFUL,
        answer=once(FOUR),
        expect=_mixed_expect,
        tools=TOOLS,
        decide=_each(_mixed),
    ),
    Script(
        name="a call without a decision is denied",
        agent=CAREFUL,
        answer=once(calls(("add", {"a": 1, "b": 2}))),
        expect=result_says("Denied by a human reviewer."),
        tools=TOOLS,
        decide=lambda question: [],
    ),
    Script(
        name="always allow asks about this tool no more",
        agent=CAREFUL,
        answer=_three_rounds,
        expect=_asked_once_about_add("1", "2", "3"),
        tools=TOOLS,
        decide=_always("approve"),
    ),
    Script(
        name="always deny denies this tool without asking again",
        agent=CAREFUL,
        answer=_three_rounds,
        expect=_asked_once_about_add(
            *["Denied by a human reviewer."]
            + 2 * ["Permission denied for tool 'add': a rule forbids this call."]
        ),
        tools=TOOLS,
        decide=_always("deny"),
    ),
    Script(
        name="what a rule denies is neither asked about nor ever always allowed",
        agent=replace(SECRETS, approve=True),
        answer=_two_commands,
        expect=_denied_without_asking,
        tools=TOOLS,
        decide=_each(lambda arguments: Decision(position=0, verdict="approve", always=True)),
    ),
    Script(
        name="with nobody to ask the run waits for exactly the asked calls and the others run",
        agent=ASK_ADD,
        answer=once(calls(("add", {"a": 1, "b": 2}), ("look", {}), ("add", {"a": 3, "b": 4}))),
        expect=_waits,
        tools=TOOLS,
    ),
    Script(
        name="a run waits when only one of its sub-agents does",
        agent=replace(CHIEF, approve=False),
        answer=_team,
        expect=_sub_waits,
        tools=TOOLS,
    ),
    Script(
        name="a rule cannot be dodged by a misspelt tool name",
        agent=_ruled(("bash", "*", "deny")),
        answer=once(calls(("bosh", {"command": "ls"}), ("Bash", {"command": "ls"}))),
        expect=_nothing_ran,
        tools=TOOLS,
    ),
    Script(
        name="a reviewer's edit cannot reach what a rule denies",
        agent=SECRETS,
        answer=once(calls(("bash", {"command": "ls"}))),
        expect=_edit_is_denied,
        tools=TOOLS,
        decide=_each(
            lambda arguments: Decision(
                position=0, verdict="edit", arguments={"command": "cat secret"}
            )
        ),
    ),
]
