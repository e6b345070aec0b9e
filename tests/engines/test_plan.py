"""What goes into the journal with an outcome: pure, and complete."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heartbit.core.agent import AgentDefinition, ContextStrategy, PermissionRule
from heartbit.core.calls import doubt
from heartbit.core.commands import CallTool
from heartbit.core.delegation import BlackboardWrite
from heartbit.core.events import (
    ApprovalRequested,
    ApprovalResolved,
    DeadlinePassed,
    Decision,
    Event,
    LateResult,
    RunFailed,
    RunFinished,
)
from heartbit.core.run import Progress, follow
from heartbit.engines.ids import run_id_of_task, sub_run_id
from heartbit.engines.plan import (
    AGAIN_SECONDS,
    WAKE_DELAY_SECONDS,
    Keeper,
    Plan,
    RunPlace,
    first_steps,
    has_sub_runs,
    plan_outcome,
)
from tests.support.bench import CHIEF, FIRE, LOOK, RUN, SOLO
from tests.support.journals import call, delegating, replied, returned, spec, started, sub_finished

PLACE = RunPlace(run_id=RUN, root_run_id=RUN, tenant_id="acme", user_id="eve")
TEAM = delegating(("ada", "look"), ("bob", "pay"))


def after(*events: Event, agent: AgentDefinition = SOLO) -> Progress:
    """A run with these events."""
    return follow(None, [started(agent), *events])


def planned(before: Progress, event: Event, **options: Any) -> Plan:
    """The plan of the outcome of the event's own step."""
    known = {"step": event.step, "attempt": 1}
    return plan_outcome(PLACE, before, event, **(known | options))


def steps(plan: Plan) -> dict[str, str]:
    """The steps that a plan opens, with the queues they are sent to."""
    return {step.step: step.queue for step in plan.append.steps}


def test_the_first_turn_has_a_queue_of_its_own() -> None:
    """A started run is not starved by ten thousand new ones."""
    assert [("1/model", "heartbit.start", "model")] == [
        (step.step, step.queue, step.kind) for step in first_steps(after())
    ]
    plan = planned(after(replied(1, call("look"))), returned("1/tool/0"))
    assert {"2/model": "heartbit.llm"} == steps(plan)


def test_a_tool_that_names_a_queue_is_sent_there() -> None:
    """All others go to that of the tools."""
    gpu = spec("draw", queue="gpu", effect="idempotent")
    agent = replace(SOLO, tools=(LOOK, gpu))
    plan = planned(after(agent=agent), replied(1, call("look"), call("draw")))
    assert {"1/tool/0": "heartbit.tools", "1/tool/1": "gpu"} == steps(plan)


@pytest.mark.parametrize("effect", ["pure", "idempotent", "transactional", "at_most_once"])
def test_only_what_must_not_be_repeated_is_kept_from_it(effect: str) -> None:
    """The store has to know it: a claim of such a step waits for the disk."""
    agent = replace(SOLO, tools=(spec("act", effect=effect),))
    [step] = planned(after(agent=agent), replied(1, call("act"))).append.steps
    assert ("at_most_once" != effect) == step.repeatable


def test_a_call_that_is_refused_has_its_result_in_the_same_append() -> None:
    """It needs nothing from the world; the next turn is in it, too."""
    plan = planned(after(), replied(1, call("lock")))
    assert ["1/model", "1/tool/0"] == [event.step for event in plan.append.events]
    assert {"2/model": "heartbit.llm"} == steps(plan)


def test_the_end_is_in_the_append_of_the_last_reply() -> None:
    """With the output of the run and its status."""
    plan = planned(after(), replied(1, "All done."))
    assert isinstance(plan.append.events[-1], RunFinished)
    change = plan.append.change
    assert change is not None
    assert ("succeeded", "All done.") == (change.status, (change.output or {})["result"])
    assert {} == steps(plan)


def test_sub_runs_are_opened_with_the_reply_that_asks_for_them() -> None:
    """Same ids for every attempt, the tenant and the user of their parent, and no message yet."""
    plan = planned(after(agent=CHIEF), replied(1, TEAM))
    first, second = plan.append.runs
    assert [sub_run_id(RUN, "1/sub/0"), sub_run_id(RUN, "1/sub/1")] == [
        first.run_id,
        second.run_id,
    ]
    assert {("acme", "eve")} == {(run.tenant_id, run.user_id) for run in plan.append.runs}
    assert (RUN, "1/sub/0", RUN) == (
        first.parent_run_id,
        first.step_in_parent,
        first.root_run_id,
    )
    assert first.task_id == first.run_id
    assert ["1/model"] == [step.step for step in first.steps]
    assert {"external"} == {step.state for step in plan.append.steps}
    assert plan == planned(after(agent=CHIEF), replied(1, TEAM))


def test_what_a_sub_run_leaves_on_the_blackboard_is_in_the_append_of_its_end() -> None:
    """And the next turn waits for the chord."""
    before = after(replied(1, TEAM), sub_finished("1/sub/1", "bob"), agent=CHIEF)
    plan = planned(before, sub_finished("1/sub/0"), attempt=0)
    assert {"agent:ada", "agent:ada:1"} == {write.key for write in plan.append.board}
    [step] = plan.append.steps
    assert ("2/model", WAKE_DELAY_SECONDS) == (step.step, step.delay)


def test_a_tool_that_returns_last_of_its_turn_waits_for_no_chord() -> None:
    """Whoever appends the last result sends the next turn."""
    before = after(
        replied(1, call("look"), TEAM),
        sub_finished("1/sub/0"),
        sub_finished("1/sub/1", "bob"),
        agent=CHIEF,
    )
    [step] = planned(before, returned("1/tool/0")).append.steps
    assert ("2/model", 0.0) == (step.step, step.delay)


def test_what_the_step_wrote_itself_comes_first() -> None:
    """Then what the rules say about its outcome."""
    own = BlackboardWrite(scope="board", key="mine", value=1, expected_version=0)
    plan = planned(after(replied(1, call("look"))), returned("1/tool/0"), board=[own])
    assert [own] == list(plan.append.board)


def test_a_question_is_opened_with_the_reply_and_parks_the_run() -> None:
    """With the exact calls; the call that needs no question goes on, and the run is not waiting."""
    agent = replace(SOLO, permissions=(PermissionRule(tool="fire", action="ask"),))
    plan = planned(after(agent=agent), replied(1, call("fire", to="all")))
    approval, change = plan.append.approval, plan.append.change
    assert approval is not None
    assert change is not None
    assert ("1/approval", "solo", ({"to": "all"},)) == (
        approval.step,
        approval.agent,
        tuple(c.arguments for c in approval.calls),
    )
    assert "waiting" == change.status
    beside = planned(after(agent=agent), replied(1, call("fire"), call("look"))).append
    assert beside.change is not None
    assert "running" == beside.change.status
    assert ["1/tool/1"] == [step.step for step in beside.steps]


def doubted() -> tuple[Progress, ApprovalRequested]:
    """A call in doubt, and the question about it."""
    before = after(replied(1, call("fire")))
    command = before.commands["1/tool/0"]
    assert isinstance(command, CallTool)
    event = doubt(before.state, command)
    assert isinstance(event, ApprovalRequested)
    return before, event


def test_a_verdict_that_asks_a_human_parks_its_step() -> None:
    """It gets no outcome; the run waits, and no timer is set."""
    before, question = doubted()
    plan = planned(before, question, step="1/tool/0", attempt=1, verdict=True)
    append = plan.append
    assert append.park
    assert (True, "1/tool/0", 1) == (append.verdict, append.step, append.attempt)
    assert append.change is not None
    assert "waiting" == append.change.status
    assert ((), {}) == (tuple(append.steps), dict(append.timers))
    assert "1/tool/0" in plan.after.commands


def test_the_permission_to_begin_again_is_not_forgotten() -> None:
    """Its timer is set with the decision and cleared with the outcome, or with the next doubt."""
    before, question = doubted()
    before = follow(before, [question])
    decision = Decision(position=0, verdict="approve")
    resolved = ApprovalResolved(step="1/doubt/0/decision", decisions=(decision,))
    plan = planned(before, resolved, step=None, attempt=None)
    assert {"again/1/tool/0": AGAIN_SECONDS} == dict(plan.append.timers)
    assert () == tuple(plan.append.steps)
    done = planned(plan.after, returned("1/tool/0"))
    assert ("again/1/tool/0",) == tuple(done.append.clear)
    command = plan.after.commands["1/tool/0"]
    assert isinstance(command, CallTool)
    again = doubt(plan.after.state, command)
    parked = planned(plan.after, again, step="1/tool/0", verdict=True)
    assert ("again/1/tool/0",) == tuple(parked.append.clear)


def test_a_denied_doubt_sets_no_timer() -> None:
    """There is nothing to begin again."""
    before, question = doubted()
    decision = Decision(position=0, verdict="deny")
    resolved = ApprovalResolved(step="1/doubt/0/decision", decisions=(decision,))
    plan = planned(follow(before, [question]), resolved, step=None, attempt=None)
    assert {} == dict(plan.append.timers)
    assert ["1/doubt/0/decision", "1/tool/0"] == [event.step for event in plan.append.events]


def test_the_end_waits_for_sub_runs_under_way() -> None:
    """It tells what they have used; the last of them brings it about."""
    before = after(replied(1, TEAM), agent=replace(CHIEF, run_timeout_seconds=5))
    plan = planned(before, DeadlinePassed(), step=None, attempt=None)
    assert [DeadlinePassed()] == list(plan.append.events)
    assert has_sub_runs(plan.after)
    once = planned(plan.after, sub_finished("1/sub/0"), attempt=0)
    last = planned(once.after, sub_finished("1/sub/1", "bob"), attempt=0)
    failed = last.append.events[-1]
    assert isinstance(failed, RunFailed)
    assert "run_timed_out" == failed.code
    assert failed.usage == last.after.state.usage
    assert [] == list(last.append.board)


def test_a_keeper_begins_what_it_can_do_itself() -> None:
    """Under a lease of its own, in the same transaction: sub-runs and other queues it cannot."""
    gpu = spec("draw", queue="gpu", effect="pure")
    agent = replace(CHIEF, tools=(LOOK, FIRE, gpu), permissions=())
    reply = replied(1, call("look"), call("fire"), call("draw"), TEAM)
    keeper = Keeper(owner="me", lease_seconds=9)
    plan = planned(after(agent=agent), reply, keeper=keeper)
    found = {s.step: (s.state, s.owner, s.lease_seconds) for s in plan.append.steps}
    mine, theirs = ("running", "me", 9), ("pending", None, None)
    assert (mine, mine, theirs) == tuple(found[f"1/tool/{n}"] for n in range(3))
    assert "external" == found["1/sub/0"][0]


def test_an_event_that_changes_nothing_opens_nothing() -> None:
    """The record of a late result is such a one."""
    late = LateResult(late_step="1/tool/0", outcome={})
    plan = planned(after(replied(1, call("look"))), late, step=None, attempt=None)
    assert ((), [late]) == (tuple(plan.append.steps), list(plan.append.events))


EVENTS = st.sampled_from(
    [
        replied(1, call("look"), call("fire"), TEAM),
        replied(1, call("look"), call("nothing")),
        replied(1, TEAM),
        replied(1, "Done."),
        replied(1, call("fire")),
        returned("1/tool/0"),
        returned("1/tool/1"),
        sub_finished("1/sub/0"),
        sub_finished("1/sub/1", "bob"),
        DeadlinePassed(),
        replied(2, "Done."),
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(EVENTS, max_size=8), st.booleans())
def test_a_plan_leads_where_the_journal_leads(events: list[Event], summarise: bool) -> None:
    """Its events folded onto what was give what it promises; every open step has its row."""
    strategy = ContextStrategy(type="summarize", threshold=1) if summarise else ContextStrategy()
    progress = after(agent=replace(CHIEF, context_strategy=strategy, run_timeout_seconds=9))
    rows = {step.step for step in first_steps(progress)}
    for event in events:
        if event.step is not None and event.step not in progress.commands:
            continue
        plan = planned(progress, event)
        assert plan.after == follow(progress, plan.append.events)
        assert progress.seq + 1 == plan.append.expected
        assert progress.seq + len(plan.append.events) == plan.after.seq
        rows |= {step.step for step in plan.append.steps}
        assert set(plan.after.commands) <= rows | {"end"} | _asked(plan.after)
        assert ("end" in plan.after.commands) <= has_sub_runs(plan.after)
        progress = plan.after


def _asked(progress: Progress) -> set[str]:
    return {call.asked for call in progress.state.calls if call.asked}


def test_ids_are_the_same_on_every_machine() -> None:
    """A task id that is a UUID is the run's; any other makes one."""
    assert RUN == run_id_of_task(RUN)
    assert run_id_of_task("job 7") == run_id_of_task("job 7")
    assert sub_run_id("job 7", "1/sub/0") == sub_run_id(run_id_of_task("job 7"), "1/sub/0")
    assert sub_run_id(RUN, "1/sub/0") != sub_run_id(RUN, "1/sub/1")
