"""Handing work over: what an orchestrator is offered, who starts when, what is left behind."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heartbit.core.agent import AgentDefinition
from heartbit.core.calls import blackboard_writes
from heartbit.core.commands import RefuseCall, StartSubRun
from heartbit.core.delegation import MAX_SQUAD_KEY, SubTask, delegation_tools, joined
from heartbit.core.events import DeadlinePassed, Event, SubRunFinished
from heartbit.core.run import offered_tools
from heartbit.core.schema import violations
from tests.support.journals import (
    CHIEF,
    SOLO,
    SUBS,
    delegating,
    follow,
    replied,
    results,
    started,
    sub_finished,
)


def names(definition: AgentDefinition) -> list[str]:
    """The delegation tools of an agent."""
    return [tool.name for tool in delegation_tools(definition)]


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        (SOLO, []),
        (CHIEF, ["delegate_task", "form_squad"]),
        (replace(CHIEF, delegates=SUBS[:1]), ["delegate_task"]),
        (replace(CHIEF, squads=False), ["delegate_task"]),
        (replace(CHIEF, dispatch_mode="sequential"), ["delegate_task"]),
    ],
    ids=["no delegates", "two", "one", "without squads", "sequential"],
)
def test_who_can_hand_work_on(definition: AgentDefinition, expected: list[str]) -> None:
    """Nobody without sub-agents; squads need two that may work at once."""
    assert expected == names(definition)


def test_a_sub_agent_is_started_without_anyone_to_hand_work_to() -> None:
    """The hierarchy is flat, whatever a definition says."""
    nested = replace(SUBS[0], delegates=SUBS[1:])
    chief = replace(CHIEF, delegates=(nested,))
    _, [command] = follow([started(chief), replied(1, delegating(("ada", "x")))])
    assert isinstance(command, StartSubRun)
    assert () == command.definition.delegates
    assert () == offered_tools(command.definition)


@pytest.mark.parametrize(
    ("tasks", "problem"),
    [
        ([], "should be non-empty"),
        ([{"agent": "ada"}], "'task' is a required property"),
        ([{"agent": "ada", "task": "x", "urgent": True}], "'urgent'"),
        ("ada", "is not of type 'array'"),
    ],
)
def test_a_delegation_is_checked_like_any_call(tasks: object, problem: str) -> None:
    """A wrong shape is told and starts nobody."""
    delegate, _ = delegation_tools(CHIEF)
    assert problem in "; ".join(violations(delegate, {"tasks": tasks}))


def test_an_agent_without_a_description_is_still_in_the_catalogue() -> None:
    """The model must know whom there is."""
    delegate, _ = delegation_tools(CHIEF)
    assert delegate.description.endswith("- ada: no description\n- bob: no description")


def test_tasks_for_unknown_agents_only_are_answered_at_once() -> None:
    """Nobody starts, and the model may correct itself in the next turn."""
    state, [command] = follow([started(CHIEF), replied(1, delegating(("adda", "x")))])
    assert "2/model" == command.step
    [told] = results(state)
    assert "Error: unknown agent 'adda'; did you mean 'ada' (available: ada, bob)" in told


def test_sub_runs_of_one_turn_are_numbered_over_all_its_calls() -> None:
    """Their steps are different, whichever call they belong to."""
    calls = [delegating(("ada", "a")), delegating(("bob", "b"), ("ada", "c"))]
    _, commands = follow([started(CHIEF), replied(1, *calls)])
    assert ["1/sub/0", "1/sub/1", "1/sub/2"] == [command.step for command in commands]


def test_one_agent_twice_in_a_squad_is_refused_before_anyone_starts() -> None:
    """A team has different members."""
    squad = delegating(("ada", "x"), ("ada", "y"), tool="form_squad")
    _, [command] = follow([started(CHIEF), replied(1, squad)])
    assert isinstance(command, RefuseCall)
    assert "nothing was started" in command.reason


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        ({"status": "succeeded", "result": "Fine."}, "Fine."),
        ({"status": "succeeded", "result": None}, ""),
        ({"status": "failed", "error": "No luck."}, "Error: No luck."),
        ({"status": "cancelled", "error": None}, "Error: cancelled"),
    ],
)
def test_the_end_of_a_sub_run_is_told_as_it_was(outcome: dict[str, str], text: str) -> None:
    """A failure is said to be one."""
    sub = SubTask(position=0, agent="ada", prompt="x", number=1)
    assert text == replace(sub, outcome=sub_finished("1/sub/0", **outcome)).text


def test_a_delegation_is_an_error_only_if_every_task_failed() -> None:
    """With one result there is something to go on with."""
    sub = SubTask(position=0, agent="ada", prompt="x", number=1)
    good = replace(sub, outcome=sub_finished("1/sub/0"))
    bad = replace(sub, outcome=sub_finished("1/sub/0", status="failed"))
    unknown = replace(sub, error="unknown agent")
    assert [False, False, True, True] == [
        joined(tasks).is_error for tasks in ([good], [good, bad, unknown], [bad], [bad, unknown])
    ]


def writes(*events: Event) -> dict[str, dict[str, str]]:
    """What the events leave on blackboards, in their order: scope -> key -> value."""
    boards: dict[str, dict[str, str]] = {}
    for length in range(1, len(events)):
        state, _ = follow(events[:length])
        for write in blackboard_writes(state, events[length]):
            boards.setdefault(write.scope, {})[write.key] = write.value
    return boards


def test_the_latest_task_of_an_agent_is_the_latest_by_call_and_not_by_arrival() -> None:
    """Two workers that finish in another order leave the same board."""
    both = replied(1, delegating(("ada", "a"), ("ada", "b")))
    first, second = sub_finished("1/sub/0", result="A"), sub_finished("1/sub/1", result="B")
    expected = {"board": {"agent:ada": "B", "agent:ada:1": "A", "agent:ada:2": "B"}}
    assert expected == writes(started(CHIEF), both, first, second)
    assert expected == writes(started(CHIEF), both, second, first)


def test_later_turns_number_on() -> None:
    """No result is overwritten by a task of a later turn."""
    events: list[Event] = [started(CHIEF)]
    for turn in (1, 2):
        events += [
            replied(turn, delegating(("ada", "x"))),
            sub_finished(f"{turn}/sub/0", result=str(turn)),
        ]
    expected = {"agent:ada": "2", "agent:ada:1": "1", "agent:ada:2": "2"}
    assert expected == writes(*events)["board"]


def test_a_squad_works_on_a_board_of_its_own_and_leaves_its_result_outside() -> None:
    """What its members say to each other is theirs."""
    squad = replied(1, delegating(("ada", "a"), ("bob", "b"), tool="form_squad"))
    ends = [sub_finished("1/sub/0", result="A"), sub_finished("1/sub/1", "bob", result="B")]
    joined_text = "=== Agent: ada ===\nA\n\n=== Agent: bob ===\nB"
    _, commands = follow([started(CHIEF), squad])
    assert {"board/1/tool/0"} == {c.blackboard for c in commands if isinstance(c, StartSubRun)}
    assert {
        "board/1/tool/0": {
            "agent:ada": "A",
            "agent:ada:1": "A",
            "agent:bob": "B",
            "agent:bob:1": "B",
        },
        "board": {"squad:ada+bob": joined_text},
    } == writes(started(CHIEF), squad, *ends)


def test_the_key_of_a_large_squad_is_one_that_every_store_can_keep() -> None:
    """Sixty-four letters each make a long list of names."""
    subs = tuple(AgentDefinition(name=letter * 64) for letter in "abcdef")
    chief = replace(CHIEF, delegates=subs)
    squad = replied(1, delegating(*((sub.name, "x") for sub in subs), tool="form_squad"))
    ends = [sub_finished(f"1/sub/{n}", sub.name) for n, sub in enumerate(subs)]
    [key] = writes(started(chief), squad, *ends)["board"]
    assert MAX_SQUAD_KEY == len(key)


def test_nothing_is_left_on_a_board_once_the_end_was_decided() -> None:
    """Nobody will read it."""
    end: SubRunFinished = sub_finished("1/sub/0")
    asked = replied(1, delegating(("ada", "x")))
    assert {} == writes(started(CHIEF), asked, DeadlinePassed(), end)
