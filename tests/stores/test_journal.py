"""What every journal promises, whatever it is kept in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pytest

from heartbit.core.agent import AgentDefinition
from heartbit.core.delegation import BlackboardWrite
from heartbit.core.events import ApprovalRequested, ApprovalResolved, Decision, LateResult
from heartbit.core.messages import RejectedTier, ToolCall, Usage
from heartbit.core.retry import Tried
from heartbit.errors import (
    BoardConflict,
    LeaseLost,
    RunNotFound,
    RunStateError,
    ToolError,
)
from heartbit.stores.journal import Append, Change, NewApproval
from tests.support.stages import (
    AGAIN,
    LEASE,
    SOLO,
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

NO_RUN = "00000000-0000-0000-0000-000000000001"
ANYTHING = "\0 \ud800 \U0001f40d é"
CALLS = (ToolCall(id="c", name="pay", arguments={"to": ANYTHING}),)


@pytest.fixture(params=["memory", "postgres"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A journal of each kind, empty."""
    if request.param == "memory":
        yield memory_stage()
        return
    made = Stage(ClockedJournal(request.getfixturevalue("postgres")))
    yield made
    made.journal.close()


@dataclass(frozen=True)
class Held:
    """A lease."""

    run_id: str
    step: str
    attempt: int


# Opening


def test_a_run_is_opened_once(stage: Stage) -> None:
    run = new_run()
    first, second = stage.journal.open_run(run), stage.journal.open_run(run)
    assert (True, False) == (first.opened, second.opened)
    assert run.run_id == first.run_id == second.run_id
    assert (run.start,) == stage.journal.events(run.run_id)


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "Something else."},
        {"definition": AgentDefinition(name="other")},
        {"tenant_id": "b"},
    ],
    ids=["prompt", "agent", "tenant"],
)
def test_the_same_id_with_something_else_to_do_is_refused(
    stage: Stage, other: dict[str, Any]
) -> None:
    run_id = stage.open(task_id="nightly")
    with pytest.raises(RunStateError, match="nightly belongs to another run"):
        stage.open(run_id=run_id, task_id="nightly", **other)


def test_a_run_is_queued_until_its_first_step_is_claimed(stage: Stage) -> None:
    run_id = stage.open()
    assert "queued" == stage.journal.run(run_id).status
    assert "running" == stage.claim(run_id).status
    assert "running" == stage.journal.run(run_id).status


def test_the_row_of_a_run_says_whose_it_is_and_how_its_prompt_begins(stage: Stage) -> None:
    run_id = stage.open(prompt="Do\n\0this " * 50, tenant_id="a", user_id="u", task_id="nightly")
    row = stage.journal.run(run_id)
    assert ("nightly", "a", "u", "solo") == (row.task_id, row.tenant_id, row.user_id, row.agent)
    assert row.title.startswith("Do this Do this")
    assert 80 == len(row.title)
    assert (None, None, False, False) == (
        row.output,
        row.finished_at,
        row.cancel_requested,
        row.completion_done,
    )


@pytest.mark.parametrize("run_id", [NO_RUN, "nonsense", "", "a\0b", "\ud800"], ids=ascii)
def test_an_unknown_run_is_told_as_such(stage: Stage, run_id: str) -> None:
    assert "unknown" == stage.claim(run_id).why_not
    assert () == stage.journal.events(run_id) == stage.journal.tree(run_id)
    assert () == stage.journal.approvals(run_id)
    with pytest.raises(RunNotFound):
        stage.journal.run(run_id)
    with pytest.raises(RunNotFound):
        stage.append(run_id, returned())
    with pytest.raises(RunNotFound):
        stage.journal.request_cancel(run_id)


# Claims


def test_a_claim_gives_the_events_its_caller_does_not_know(stage: Stage) -> None:
    run_id = stage.open(model(), tool())
    whole = stage.claim(run_id)
    assert (None, 1, 2) == (whole.why_not, whole.attempt, whole.seq)
    assert stage.journal.events(run_id) == whole.events
    stage.append(run_id, replied(), step="1/model", attempt=1)
    tail = stage.claim(run_id, "1/tool/0", known=1)
    assert (3, (replied(),)) == (tail.seq, tail.events)


@pytest.mark.parametrize("step", ["2/model", "", "x\0y", "\ud800"], ids=ascii)
def test_a_step_that_does_not_exist_is_not_claimed(stage: Stage, step: str) -> None:
    run_id = stage.open()
    assert "unknown" == stage.claim(run_id, step).why_not
    assert "queued" == stage.journal.run(run_id).status


def test_a_step_is_held_by_one_until_its_lease_runs_out(stage: Stage) -> None:
    run_id = stage.open()
    stage.claim(run_id)
    stage.advance(LEASE - 1)
    assert "leased" == stage.claim(run_id).why_not
    stage.advance(2)
    again = stage.claim(run_id)
    assert (None, 2) == (again.why_not, again.attempt)


def test_a_step_that_must_not_be_repeated_is_in_doubt_when_its_lease_runs_out(
    stage: Stage,
) -> None:
    run_id = stage.open(tool(repeatable=False))
    stage.claim(run_id, "1/tool/0")
    stage.advance(LEASE + 1)
    doubtful = stage.claim(run_id, "1/tool/0")
    assert ("in_doubt", 1) == (doubtful.why_not, doubtful.attempt)
    assert "in_doubt" == stage.claim(run_id, "1/tool/0", doubt=0).why_not
    assert 2 == stage.claim(run_id, "1/tool/0", doubt=1).attempt


def test_a_step_with_its_outcome_is_done(stage: Stage) -> None:
    run_id = stage.open()
    stage.claim(run_id)
    stage.append(run_id, replied(), step="1/model", attempt=1)
    assert "done" == stage.claim(run_id).why_not


def test_a_step_that_is_done_elsewhere_is_not_claimed(stage: Stage) -> None:
    run_id = stage.open(tool(state="external"), model("1/sub/0", state="external"))
    assert "external" == stage.claim(run_id, "1/tool/0").why_not
    assert "external" == stage.claim(run_id, "1/sub/0", doubt=0).why_not


def test_no_step_of_an_ended_run_is_claimed(stage: Stage) -> None:
    run_id = stage.open()
    stage.finish(run_id)
    ended = stage.claim(run_id)
    assert ("ended", "succeeded") == (ended.why_not, ended.status)


def test_a_step_that_its_caller_has_begun_is_his_first_attempt(stage: Stage) -> None:
    run_id = stage.open()
    stage.claim(run_id)
    begun = tool(state="running", owner="w", lease_seconds=LEASE, repeatable=False)
    stage.append(run_id, replied(), step="1/model", attempt=1, steps=[begun])
    assert "leased" == stage.claim(run_id, "1/tool/0").why_not
    assert [] == stage.unsent()
    assert stage.append(run_id, returned(), expected=3, step="1/tool/0", attempt=1).ok


def test_of_many_workers_one_gets_the_step(stage: Stage) -> None:
    run_id = stage.open()
    with ThreadPoolExecutor(4) as pool:
        claims = list(pool.map(lambda n: stage.claim(run_id, owner=str(n)), range(12)))
    assert 1 == sum(claim.why_not is None for claim in claims)
    assert {"leased", None} == {claim.why_not for claim in claims}


# Appending


def test_an_append_takes_the_next_number(stage: Stage) -> None:
    run_id = stage.open()
    stage.claim(run_id)
    done = stage.append(run_id, replied(), step="1/model", attempt=1, steps=[model("2/model")])
    assert (True, 3) == (done.ok, done.seq)
    assert (replied(),) == stage.journal.events(run_id, after=1)
    assert ("2/model",) == stage.journal.undispatched(run_id)


def test_outcomes_of_several_steps_are_appended_at_once_or_not_at_all(stage: Stage) -> None:
    run_id = stage.open(tool("1/tool/0"), tool("1/tool/1"))
    for step in ("1/tool/0", "1/tool/1"):
        stage.claim(run_id, step)
    both = Append(
        run_id=run_id,
        expected=2,
        events=[returned("1/tool/0"), returned("1/tool/1")],
        step="1/tool/0",
        attempt=1,
        beside=[("1/tool/1", 2)],
        steps=[model("2/model")],
    )
    with pytest.raises(LeaseLost):
        stage.journal.append(both)
    assert 1 == len(stage.journal.events(run_id))
    assert "leased" == stage.claim(run_id, "1/tool/0").why_not
    assert stage.journal.append(replace(both, beside=[("1/tool/1", 1)])).ok
    assert 3 == len(stage.journal.events(run_id))
    assert {"done"} == {stage.claim(run_id, f"1/tool/{n}").why_not for n in range(2)}
    behind = stage.journal.append(both)
    assert (False, 2) == (behind.ok, len(behind.behind))


def test_an_append_for_an_older_journal_changes_nothing_and_tells_what_is_new(
    stage: Stage,
) -> None:
    run_id = stage.open(model(), tool())
    stage.claim(run_id)
    stage.claim(run_id, "1/tool/0")
    stage.append(run_id, replied(), step="1/model", attempt=1)
    late = stage.append(run_id, returned(), step="1/tool/0", attempt=1, steps=[model("2/model")])
    assert (False, False, (replied(),)) == (late.ok, late.ended, late.behind)
    assert 2 == len(stage.journal.events(run_id))
    assert "2/model" not in stage.journal.undispatched(run_id)
    assert stage.append(run_id, returned(), expected=3, step="1/tool/0", attempt=1).ok


def test_an_append_for_a_journal_that_is_not_there_yet_is_an_error(stage: Stage) -> None:
    run_id = stage.open()
    with pytest.raises(RunStateError, match="shorter than this process has seen"):
        stage.append(run_id, returned(), expected=7)


def test_nothing_is_appended_to_an_ended_run(stage: Stage) -> None:
    run_id = stage.open()
    stage.finish(run_id)
    refused = stage.append(run_id, LateResult(late_step="1/model", outcome={}), expected=3)
    assert (False, True, ()) == (refused.ok, refused.ended, refused.behind)


def test_the_outcome_of_a_lost_attempt_does_not_count(stage: Stage) -> None:
    run_id = stage.open()
    stage.claim(run_id, owner="frozen")
    stage.advance(LEASE + 1)
    stage.claim(run_id, owner="other")
    with pytest.raises(LeaseLost):
        stage.append(run_id, replied("late"), step="1/model", attempt=1, steps=[model("2/model")])
    assert 1 == len(stage.journal.events(run_id))
    assert "2/model" not in stage.journal.undispatched(run_id)
    assert stage.append(run_id, replied("mine"), step="1/model", attempt=2).ok


def test_a_late_outcome_counts_while_nobody_else_has_the_step(stage: Stage) -> None:
    run_id = stage.open()
    stage.claim(run_id)
    stage.advance(10 * LEASE)
    assert stage.append(run_id, replied(), step="1/model", attempt=1).ok


def test_a_step_has_one_outcome_for_ever(stage: Stage) -> None:
    run_id = stage.open()
    stage.append(run_id, returned("1/tool/0"))
    with pytest.raises(LeaseLost):
        stage.append(run_id, returned("1/tool/0"), expected=3, steps=[model("2/model")])
    assert 2 == len(stage.journal.events(run_id))


def test_a_verdict_needs_a_lease_that_has_run_out(stage: Stage) -> None:
    run_id = stage.open(tool(repeatable=False))
    stage.claim(run_id, "1/tool/0")
    verdict = {"step": "1/tool/0", "attempt": 1, "verdict": True}
    with pytest.raises(LeaseLost):
        stage.append(run_id, returned(content="unknown"), **verdict)
    stage.advance(LEASE + 1)
    assert stage.append(run_id, returned(content="unknown"), **verdict).ok
    with pytest.raises(LeaseLost):
        stage.append(run_id, returned(content="late"), expected=3, step="1/tool/0", attempt=1)


def test_a_parked_step_waits_and_then_belongs_to_who_names_its_attempt(stage: Stage) -> None:
    run_id = stage.open(tool(repeatable=False))
    stage.claim(run_id, "1/tool/0")
    stage.advance(LEASE + 1)
    asked = ApprovalRequested(step="1/doubt/0", calls=CALLS, positions=(0,))
    parked = {"step": "1/tool/0", "attempt": 1, "verdict": True, "park": True}
    assert stage.append(run_id, asked, **parked).ok
    stage.advance(1000)
    assert ({}, []) == (stage.expired(), stage.unsent())
    with pytest.raises(LeaseLost):
        stage.append(run_id, returned(content="late"), expected=3, step="1/tool/0", attempt=1)
    assert "external" == stage.claim(run_id, "1/tool/0").why_not
    assert 3 == stage.claim(run_id, "1/tool/0", doubt=2).attempt


def test_the_end_of_a_run_closes_everything_of_it(stage: Stage) -> None:
    limited = replace(SOLO, run_timeout_seconds=60.0)
    run_id = stage.open(model(), tool(repeatable=False), definition=limited)
    stage.claim(run_id)
    stage.claim(run_id, "1/tool/0")
    stage.journal.set_timer(run_id, "retry", 1)
    stage.append(run_id, approval=NewApproval(step="1/approval", agent="solo", calls=CALLS))
    stage.finish(run_id)
    stage.advance(1000)
    assert ({}, [], []) == (stage.expired(), stage.unsent(), stage.timers())
    assert () == stage.journal.open_approvals()
    assert stage.append(run_id, returned(), expected=3, step="1/tool/0", attempt=1).ended
    row = stage.journal.run(run_id)
    assert ("succeeded", {"result": "done"}) == (row.status, row.output)
    assert row.finished_at is not None


def test_sub_runs_are_opened_with_the_event_that_starts_them(stage: Stage) -> None:
    root = stage.open(tenant_id="a", user_id="u", priority=3)
    stage.claim(root)
    child = sub_run(root)
    step = replace(model("1/sub/0", state="external"), kind="sub_run")
    stage.append(root, replied(), step="1/model", attempt=1, steps=[step], runs=[child])
    row = stage.journal.run(child.run_id)
    assert ("queued", "a", "u", root) == (row.status, row.tenant_id, row.user_id, row.root_run_id)
    assert ("1/model",) == stage.journal.undispatched(child.run_id)
    assert [root, child.run_id] == [run.run_id for run in stage.journal.tree(child.run_id)]
    assert () == stage.journal.undispatched(root)


def test_a_sub_run_never_takes_over_a_run_of_somebody_else(stage: Stage) -> None:
    root, other = stage.open(), stage.open(prompt="Mine.")
    with pytest.raises(RunStateError, match="taken by another run"):
        stage.append(root, replied(), runs=[sub_run(root, run_id=other)])
    assert 1 == len(stage.journal.events(root))


def test_the_end_of_a_sub_run_and_what_its_parent_makes_of_it_are_one(stage: Stage) -> None:
    root = stage.open(model("1/sub/0", state="external"))
    child = sub_run(root)
    stage.append(root, replied("go"), runs=[child])
    ended = Append(
        run_id=child.run_id, expected=2, events=[replied()], change=Change(status="succeeded")
    )
    told = Append(run_id=root, expected=2, events=[returned("1/sub/0")], step="1/sub/0", attempt=0)
    with stage.journal.transaction() as transaction:
        assert transaction.append(ended).ok
        assert "succeeded" == transaction.run(child.run_id).status
        refused = transaction.append(told)
        assert (replied("go"),) == refused.behind == transaction.events(root, 1)
        assert transaction.append(replace(told, expected=3)).ok
    assert 3 == len(stage.journal.events(root))


def test_a_transaction_that_fails_leaves_nothing(stage: Stage) -> None:
    run_id = stage.open()
    write = BlackboardWrite(scope=run_id, key="k", value=1)
    append = Append(run_id=run_id, expected=2, events=[replied()], board=[write])

    def half() -> None:
        with stage.journal.transaction() as transaction:
            assert transaction.append(append).ok
            transaction.append(replace(append, run_id=NO_RUN))

    with pytest.raises(RunNotFound):
        half()
    assert 1 == len(stage.journal.events(run_id))
    assert () == stage.journal.board_keys(run_id)


def test_any_text_survives(stage: Stage) -> None:
    run_id = stage.open(prompt=ANYTHING, definition=replace(SOLO, system_prompt=ANYTHING))
    write = BlackboardWrite(scope=run_id, key="k", value=ANYTHING)
    change = Change(status="failed", output={"error": ANYTHING})
    asked = NewApproval(step="1/approval", agent="solo", calls=CALLS)
    stage.append(run_id, returned(content=ANYTHING), board=[write], approval=asked)
    assert CALLS == stage.journal.approvals(run_id)[0].calls
    stage.append(run_id, replied(ANYTHING), expected=3, change=change)
    start, *rest = stage.journal.events(run_id)
    assert (ANYTHING, ANYTHING) == (start.prompt, start.definition.system_prompt)
    assert [returned(content=ANYTHING), replied(ANYTHING)] == rest
    assert (ANYTHING, 1) == stage.journal.board_read(run_id, "k")
    assert {"error": ANYTHING} == stage.journal.run(run_id).output


def test_a_prompt_of_ten_megabytes_is_kept(stage: Stage) -> None:
    prompt = "é0123456789" * 900_000
    run_id = stage.open(prompt=prompt)
    assert prompt == stage.claim(run_id).events[0].prompt


# Leases


def test_a_lease_is_extended_for_its_own_attempt_only(stage: Stage) -> None:
    run_id = stage.open()
    stage.claim(run_id)
    held, lost = Held(run_id, "1/model", 1), Held(run_id, "1/model", 2)
    stage.advance(LEASE - 1)
    assert (held,) == stage.journal.extend_leases([held, lost], LEASE)
    stage.advance(LEASE - 1)
    assert "leased" == stage.claim(run_id).why_not
    stage.append(run_id, replied(), step="1/model", attempt=1)
    assert () == stage.journal.extend_leases([held], LEASE)
    assert () == stage.journal.extend_leases([], LEASE)


def test_a_step_that_was_handed_back_is_sent_again_at_once(stage: Stage) -> None:
    run_id = stage.open()
    stage.journal.take_dispatch(run_id, ["1/model"])
    stage.claim(run_id)
    stage.journal.release(run_id, "1/model", 7)
    assert [] == stage.unsent()
    stage.journal.release(run_id, "1/model", 1)
    assert ["1/model"] == stage.unsent()
    assert 2 == stage.claim(run_id).attempt


TRIED = Tried(
    count=1,
    usage=Usage(input_tokens=7),
    cost_usd=None,
    rejected=(RejectedTier(model="cheap", reason=ANYTHING, usage=Usage(output_tokens=1)),),
    inner=Tried(count=2),
)


def test_a_step_that_is_put_off_is_begun_by_nobody_before_its_time(stage: Stage) -> None:
    """Neither by a message that comes twice, nor by whoever sends what was never sent."""
    run_id = stage.open()
    stage.journal.take_dispatch(run_id, ["1/model"])
    stage.claim(run_id)
    stage.journal.put_off(run_id, "1/model", 7, seconds=60, tried=TRIED)
    assert "leased" == stage.claim(run_id).why_not
    stage.journal.put_off(run_id, "1/model", 1, seconds=60, tried=TRIED)
    stage.advance(59)
    assert "leased" == stage.claim(run_id).why_not
    assert () == stage.journal.undispatched(run_id)
    assert () == stage.journal.take_dispatch(run_id, ["1/model"])
    assert ([], []) == (stage.unsent(empty_queues=["llm"]), list(stage.expired()))
    stage.advance(2)
    assert ["1/model"] == stage.unsent()
    assert [] == stage.unsent()
    assert (None, 2) == ((claim := stage.claim(run_id)).why_not, claim.attempt)


def test_what_a_step_had_come_to_before_it_was_put_off_is_there_for_every_later_attempt(
    stage: Stage,
) -> None:
    """Also when a worker is lost in one of them, or hands it back."""
    run_id = stage.open()
    assert Tried() == stage.claim(run_id).tried
    stage.journal.put_off(run_id, "1/model", 1, seconds=0, tried=TRIED)
    assert TRIED == stage.claim(run_id).tried
    stage.journal.release(run_id, "1/model", 2)
    assert TRIED == stage.claim(run_id).tried
    stage.advance(LEASE + 1)
    assert {"1/model": "again"} == stage.expired()
    assert (TRIED, 4) == ((claim := stage.claim(run_id)).tried, claim.attempt)


def test_a_step_that_is_put_off_is_a_suspect_never(stage: Stage) -> None:
    """However often: no worker was lost with it."""
    run_id = stage.open()
    for attempt in range(1, 10):
        assert attempt == stage.claim(run_id).attempt
        stage.journal.put_off(run_id, "1/model", attempt, seconds=0, tried=TRIED)
    found = stage.journal.unsent_steps(limit=100, again_seconds=AGAIN)
    assert ["llm"] == [each.queue for each in found]


def test_the_end_of_a_run_ends_the_wait_of_a_step(stage: Stage) -> None:
    """Nobody sends it any more."""
    run_id = stage.open()
    stage.claim(run_id)
    stage.journal.put_off(run_id, "1/model", 1, seconds=60, tried=TRIED)
    stage.finish(run_id)
    stage.advance(61)
    assert ([], "ended") == (stage.unsent(), stage.claim(run_id).why_not)


# Sending


def test_a_step_is_sent_by_one(stage: Stage) -> None:
    run_id = stage.open(model(), tool(queue="gpu"))
    steps = ["1/model", "1/tool/0", "9/model"]
    won = stage.journal.take_dispatch(run_id, steps)
    assert {("1/model", "llm"), ("1/tool/0", "gpu")} == set(won)
    assert () == stage.journal.take_dispatch(run_id, steps)
    assert () == stage.journal.undispatched(run_id)


def test_the_sweep_leaves_new_steps_to_who_appended_them_for_a_moment(stage: Stage) -> None:
    stage.open(model(), tool(delay=2.0))
    stage.advance(0.5)
    assert [] == stage.unsent()
    stage.advance(1)
    assert ["1/model"] == stage.unsent()
    stage.advance(1)
    assert ["1/tool/0"] == stage.unsent()


def test_a_step_that_its_appender_sends_is_nobody_elses_to_send_for_a_while(stage: Stage) -> None:
    """Written down with the append, as if it had been taken right after it."""
    run_id = stage.open()
    stage.claim(run_id)
    sent = replace(model("2/model"), again_seconds=AGAIN)
    stage.append(run_id, replied(), step="1/model", attempt=1, steps=[sent])
    assert () == stage.journal.undispatched(run_id)
    assert () == stage.journal.take_dispatch(run_id, ["2/model"])
    stage.advance(AGAIN - 1)
    assert [] == stage.unsent()
    stage.advance(2)
    assert ["2/model"] == stage.unsent()
    stage.advance(AGAIN + 1)
    assert [] == stage.unsent()


def test_a_step_that_nobody_claims_is_sent_again_twice_as_late_each_time(stage: Stage) -> None:
    run_id = stage.open()
    stage.journal.take_dispatch(run_id, ["1/model"], again_seconds=AGAIN)
    waits = []
    for _ in range(3):
        waited = 0
        while not stage.unsent():
            stage.advance(1)
            waited += 1
        waits.append(waited)
    assert [10, 20, 40] == [round(wait, -1) for wait in waits]


def test_a_step_is_sent_again_soon_when_its_queue_is_empty(stage: Stage) -> None:
    run_id = stage.open()
    stage.journal.take_dispatch(run_id, ["1/model"])
    assert [] == stage.unsent(empty_queues=["llm"])
    stage.advance(3)
    assert [] == stage.unsent(empty_queues=["tools"])
    assert ["1/model"] == stage.unsent(empty_queues=["llm"])
    stage.claim(run_id)
    stage.advance(3)
    assert [] == stage.unsent(empty_queues=["llm"])


def test_a_task_of_another_code_base_is_sent_once_and_then_asked_after(stage: Stage) -> None:
    run_id = stage.open(tool(state="external"))
    assert ("1/tool/0",) == stage.journal.undispatched(run_id)
    assert (("1/tool/0", "tools"),) == stage.journal.take_dispatch(run_id, ["1/tool/0"])
    stage.advance(100)
    (found,) = stage.journal.unsent_steps(limit=1, again_seconds=AGAIN)
    assert (True, 2) == (found.external, found.count)
    assert stage.append(run_id, returned(), step="1/tool/0", attempt=0).ok
    stage.advance(1000)
    assert [] == stage.unsent()


# The sweep


def test_one_process_sweeps_at_a_time(stage: Stage) -> None:
    assert stage.journal.admit_sweep("steps", every_seconds=1)
    assert not stage.journal.admit_sweep("steps", every_seconds=1)
    assert stage.journal.admit_sweep("other", every_seconds=1)
    stage.advance(1.1)
    assert stage.journal.admit_sweep("steps", every_seconds=1)


def test_a_lost_step_is_handed_out_again_by_what_may_be_done_with_it(stage: Stage) -> None:
    run_id = stage.open(model(), tool(repeatable=False), tool("1/tool/1"))
    for step in ("1/model", "1/tool/0"):
        stage.claim(run_id, step)
    assert {} == stage.expired()
    stage.advance(LEASE + 1)
    assert {"1/model": "again", "1/tool/0": "in_doubt"} == stage.expired()
    assert {} == stage.expired()
    stage.advance(AGAIN + 1)
    assert {"1/tool/0": "in_doubt"} == stage.expired()
    assert 2 == stage.claim(run_id).attempt


def test_a_lost_step_that_nobody_claims_is_sent_again(stage: Stage) -> None:
    run_id = stage.open()
    stage.claim(run_id)
    stage.advance(LEASE + 1)
    stage.expired()
    stage.advance(AGAIN + 1)
    assert ["1/model"] == stage.unsent()


def test_no_more_than_the_limit_is_handed_out(stage: Stage) -> None:
    run_id = stage.open(*(tool(f"1/tool/{n}") for n in range(5)))
    for n in range(5):
        stage.claim(run_id, f"1/tool/{n}")
    stage.advance(LEASE + 1)
    assert [2, 2, 1, 0] == [len(stage.expired(limit=2)) for _ in range(4)]


def lose(stage: Stage, run_id: str, owner: str = "w") -> str:
    """Claim a step and be killed; gives what the sweep makes of it."""
    stage.claim(run_id, owner=owner)
    stage.advance(LEASE + 1)
    return stage.expired()["1/model"]


def test_a_step_that_kills_its_worker_runs_alone_and_then_no_more(stage: Stage) -> None:
    run_id = stage.open()
    assert ["again", "again"] == [lose(stage, run_id), lose(stage, run_id)]
    stage.advance(AGAIN + 1)
    (found,) = stage.journal.unsent_steps(limit=1, again_seconds=AGAIN)
    assert "heartbit.suspects" == found.queue
    assert "poisoned" == lose(stage, run_id)
    refused = stage.claim(run_id)
    assert ("poisoned", 3) == (refused.why_not, refused.attempt)
    verdict = {"step": "1/model", "attempt": 3, "verdict": True}
    assert stage.append(run_id, replied("poison"), **verdict).ok


def test_a_step_is_hardly_suspected_when_it_was_lost_with_many_others(stage: Stage) -> None:
    run_id = stage.open()
    others = stage.open(*(tool(f"1/tool/{n}") for n in range(6)))
    for _ in range(3):
        for n in range(6):
            stage.claim(others, f"1/tool/{n}")
        assert "again" == lose(stage, run_id)
    assert (("1/model", "llm"),) == tuple(
        (each.step, each.queue) for each in due(stage) if each.run_id == run_id
    )


def due(stage: Stage) -> tuple[Any, ...]:
    """What is sent after a while."""
    stage.advance(AGAIN + 1)
    return stage.journal.unsent_steps(limit=100, again_seconds=AGAIN)


def test_a_message_delivered_again_takes_a_lost_step_over_without_the_sweep(stage: Stage) -> None:
    run_id = stage.open()
    fates = []
    for _ in range(4):
        fates.append(stage.claim(run_id).why_not)
        stage.advance(LEASE + 1)
    assert [None, None, None, "poisoned"] == fates


def test_a_timer_comes_back_until_it_is_cleared(stage: Stage) -> None:
    run_id = stage.open()
    stage.journal.set_timer(run_id, "retry", 5)
    assert [] == stage.timers()
    stage.advance(6)
    assert ["retry"] == stage.timers()
    assert [] == stage.timers()
    stage.advance(AGAIN + 1)
    assert ["retry"] == stage.timers()
    stage.journal.clear_timer(run_id, "retry")
    stage.advance(AGAIN + 1)
    assert [] == stage.timers()


def test_timers_are_set_and_cleared_with_an_append(stage: Stage) -> None:
    run_id = stage.open()
    stage.append(run_id, returned(), timers={"a": 1, "b": 1})
    stage.append(run_id, returned("1/tool/1"), expected=3, timers={"c": 1}, clear=["a"])
    stage.advance(2)
    assert ["b", "c"] == stage.timers()


def test_an_ended_run_gets_no_timer(stage: Stage) -> None:
    run_id = stage.open()
    stage.finish(run_id)
    stage.journal.set_timer(run_id, "retry", 0)
    stage.advance(1)
    assert [] == stage.timers()


def test_a_deadline_passes_for_waiting_runs_too(stage: Stage) -> None:
    run_id = stage.open(definition=replace(SOLO, run_timeout_seconds=60.0))
    stage.append(run_id, change=Change(status="waiting"))
    stage.advance(59)
    assert [] == stage.timers()
    stage.advance(2)
    assert ["deadline"] == stage.timers()


def test_the_end_of_a_run_is_told_until_it_is_known_to_be_published(stage: Stage) -> None:
    run_id = stage.open()
    stage.journal.set_completion(run_id, {"chain": [ANYTHING]})
    stage.journal.set_completion(run_id, {"chain": ["later"]})
    assert {"chain": [ANYTHING]} == stage.journal.run(run_id).completion
    stage.finish(run_id)

    def published() -> tuple[str, ...]:
        return stage.journal.unpublished(limit=9, again_seconds=AGAIN)

    assert () == published()
    stage.advance(3)
    assert ((run_id,), ()) == (published(), published())
    stage.advance(AGAIN + 1)
    assert (run_id,) == published()
    stage.journal.complete(run_id)
    stage.advance(AGAIN + 1)
    assert () == published()
    assert stage.journal.run(run_id).completion_done


def test_who_comes_to_wait_for_an_ended_run_is_told_too(stage: Stage) -> None:
    run_id = stage.open()
    stage.finish(run_id)
    stage.advance(3)
    assert () == stage.journal.unpublished(limit=9, again_seconds=AGAIN)
    stage.journal.set_completion(run_id, {})
    stage.advance(3)
    assert (run_id,) == stage.journal.unpublished(limit=9, again_seconds=AGAIN)


def test_a_cancel_reaches_every_open_run_of_the_tree(stage: Stage) -> None:
    root = stage.open()
    done, going = sub_run(root), sub_run(root, "1/sub/1")
    stage.append(root, replied(), runs=[done, going])
    stage.finish(done.run_id)
    assert {root, going.run_id} == set(stage.journal.request_cancel(going.run_id))
    assert stage.journal.run(root).cancel_requested
    assert stage.claim(going.run_id).cancelled
    stage.advance(3)
    assert ["cancel", "cancel"] == stage.timers()
    stage.finish(root, expected=3)
    stage.finish(going.run_id)
    assert () == stage.journal.request_cancel(root)


def test_who_works_on_a_run_learns_that_nobody_wants_it_any_more(stage: Stage) -> None:
    root, ended, other = stage.open(), stage.open(), stage.open()
    child = sub_run(root)
    stage.append(root, replied(), runs=[child])
    every = [root, ended, other, child.run_id, NO_RUN]
    assert () == stage.journal.stopped_runs(every)
    stage.finish(ended)
    assert (ended,) == stage.journal.stopped_runs(every)
    stage.journal.request_cancel(child.run_id)
    assert {ended, root, child.run_id} == set(stage.journal.stopped_runs(every))
    assert () == stage.journal.stopped_runs([other])


# Approvals


def asked(stage: Stage, **options: Any) -> str:
    """A run that waits for a human."""
    run_id = stage.open(**{k: options.pop(k) for k in list(options) if k == "tenant_id"})
    approval = NewApproval(step="1/approval", agent="solo", calls=CALLS, **options)
    event = ApprovalRequested(step="1/approval", calls=CALLS, positions=(0,))
    stage.append(run_id, event, approval=approval, change=Change(status="waiting"))
    return run_id


def decide(stage: Stage, run_id: str, **options: Any) -> None:
    """Approve."""
    stated = NewApproval(step="1/approval", agent="solo", calls=CALLS).calls_hash
    given = {"calls_hash": stated, "by": "eve"} | options
    stage.journal.decide(run_id, "1/approval", [APPROVED], **given)


APPROVED = Decision(position=0, verdict="edit", reason=ANYTHING, arguments={"to": "me"})


def test_an_approval_is_decided_once_and_says_by_whom(stage: Stage) -> None:
    run_id = asked(stage)
    (waiting,) = stage.journal.open_approvals()
    assert (run_id, CALLS, None) == (waiting.run_id, waiting.calls, waiting.decisions)
    decide(stage, run_id, calls_hash=waiting.calls_hash)
    with pytest.raises(RunStateError, match="was decided already by eve"):
        decide(stage, run_id)
    (decided,) = stage.journal.approvals(run_id)
    assert ((APPROVED,), "eve") == (decided.decisions, decided.decided_by)
    assert decided.decided_at is not None
    assert () == stage.journal.open_approvals()


def test_of_two_who_decide_at_the_same_instant_one_does(stage: Stage) -> None:
    run_id = asked(stage)
    barrier = threading.Barrier(4)

    def attempt(_: int) -> bool:
        barrier.wait()
        try:
            decide(stage, run_id)
        except RunStateError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert 1 == sum(pool.map(attempt, range(4)))


def test_a_question_waits_for_weeks_and_holds_nothing(stage: Stage) -> None:
    """Nobody has to look after the run until somebody answers."""
    run_id = stage.open()
    stage.claim(run_id)
    events = replied(), ApprovalRequested(step="1/approval", calls=CALLS, positions=(0,))
    approval = NewApproval(step="1/approval", agent="solo", calls=CALLS)
    waits = {"approval": approval, "change": Change(status="waiting")}
    stage.append(run_id, *events, step="1/model", attempt=1, **waits)
    stage.advance(21 * 24 * 3600)
    assert ({}, [], []) == (stage.expired(), stage.unsent(), stage.timers())
    assert [run_id] == [each.run_id for each in stage.journal.open_approvals()]
    decide(stage, run_id)
    stage.advance(3)
    assert ["decided/1/approval"] == stage.timers()


def test_a_decision_about_other_calls_is_refused(stage: Stage) -> None:
    run_id = asked(stage)
    with pytest.raises(RunStateError, match="about other calls"):
        decide(stage, run_id, calls_hash="another")
    assert 1 == len(stage.journal.open_approvals())


def test_a_decided_run_is_woken_until_the_decision_is_in_the_journal(stage: Stage) -> None:
    run_id = asked(stage, expires_seconds=100.0)
    decide(stage, run_id)
    stage.advance(3)
    assert ["decided/1/approval"] == stage.timers()
    resolved = ApprovalResolved(step="1/approval/decision", decisions=(APPROVED,))
    stage.append(run_id, resolved, expected=3, change=Change(status="running"))
    stage.advance(1000)
    assert [] == stage.timers()


def test_an_approval_expires(stage: Stage) -> None:
    run_id = asked(stage, expires_seconds=60.0)
    with pytest.raises(RunStateError, match="has not expired yet"):
        decide(stage, run_id, expired=True, by=None)
    stage.advance(61)
    assert ["expiry/1/approval"] == stage.timers()
    with pytest.raises(RunStateError, match="has expired"):
        decide(stage, run_id)
    decide(stage, run_id, expired=True, by=None)
    with pytest.raises(RunStateError, match="was decided already"):
        decide(stage, run_id)


def test_an_approval_of_an_ended_run_is_void(stage: Stage) -> None:
    run_id = asked(stage)
    stage.finish(run_id, expected=3)
    with pytest.raises(RunStateError, match="has ended"):
        decide(stage, run_id)


def test_an_approval_that_does_not_exist_cannot_be_decided(stage: Stage) -> None:
    for run_id in (stage.open(), NO_RUN, "nonsense"):
        with pytest.raises(RunNotFound):
            decide(stage, run_id)


# Tenants


def test_a_tenant_sees_and_touches_only_his_own_runs(stage: Stage) -> None:
    his, other, nobodys = asked(stage, tenant_id="a"), asked(stage, tenant_id="b"), asked(stage)
    journal = stage.journal
    for tenant, run_id in (("a", his), ("b", other), (None, nobodys)):
        assert [run_id] == [row.run_id for row in journal.list_runs(tenant=tenant)]
        assert [run_id] == [a.run_id for a in journal.open_approvals(tenant=tenant)]
        assert 2 == len(journal.events(run_id, tenant=tenant))
        assert run_id == journal.run(run_id, tenant=tenant).run_id
    for tenant in ("b", None):
        assert () == journal.events(his, tenant=tenant) == journal.tree(his, tenant=tenant)
        assert () == journal.approvals(his, tenant=tenant)
        for attempt in (journal.run, journal.request_cancel):
            with pytest.raises(RunNotFound):
                attempt(his, tenant=tenant)
        with pytest.raises(RunNotFound):
            decide(stage, his, tenant=tenant)
    assert not journal.run(his).cancel_requested
    assert 3 == len(journal.open_approvals()) == len(journal.list_runs())


def test_runs_are_listed_newest_first_and_page_by_page(stage: Stage) -> None:
    opened = []
    for _ in range(5):
        opened.append(stage.open())
        stage.advance(1)
    stage.append(opened[0], replied(), runs=[sub_run(opened[0])])
    newest = opened[::-1]
    page = [row.run_id for row in stage.journal.list_runs(limit=2)]
    assert newest[:2] == page
    rest = stage.journal.list_runs(limit=9, before=page[-1])
    assert newest[2:] == [row.run_id for row in rest]
    stage.finish(opened[2])
    assert [opened[2]] == [r.run_id for r in stage.journal.list_runs(status="succeeded")]


# Blackboards


def test_board_writes_come_with_the_event_that_made_them(stage: Stage) -> None:
    run_id = stage.open()
    writes = [BlackboardWrite(scope="s", key=key, value=key) for key in ("b", "a", "b")]
    stage.append(run_id, returned(), board=writes)
    assert (("b", 2), ("a", 1)) == (
        stage.journal.board_read("s", "b"),
        stage.journal.board_read("s", "a"),
    )
    assert ("a", "b") == stage.journal.board_keys("s")
    log = [(e.seq, e.key, e.version) for e in stage.journal.board_after("s", 0)]
    assert [(1, "b", 1), (2, "a", 1), (3, "b", 2)] == log
    assert [3] == [entry.seq for entry in stage.journal.board_after("s", 2)]


def test_a_write_for_another_version_undoes_its_whole_append(stage: Stage) -> None:
    run_id = stage.open()
    stage.journal.board_write("s", "k", 1, run_id=run_id)
    stale = BlackboardWrite(scope="s", key="k", value=2, expected_version=0)
    with pytest.raises(BoardConflict, match="'k' is at version 1, not 0"):
        stage.append(run_id, returned(), board=[stale])
    append = Append(run_id=run_id, expected=2, events=[returned()], board=[stale])
    with pytest.raises(BoardConflict), stage.journal.transaction() as transaction:
        transaction.append(append)
    assert 1 == len(stage.journal.events(run_id))
    assert stage.append(run_id, returned(), board=[replace(stale, expected_version=1)]).ok
    assert (2, 2) == stage.journal.board_read("s", "k")


def test_a_single_write_tells_what_is_wrong_with_it(stage: Stage) -> None:
    run_id = stage.open()
    write = stage.journal.board_write
    assert [1, 2] == [write("s", "k", n, run_id=run_id) for n in range(2)]
    with pytest.raises(ToolError, match="is at version 2, not 1"):
        write("s", "k", 9, run_id=run_id, expected=1)
    with pytest.raises(ToolError, match="must be JSON"):
        write("s", "k", float("nan"), run_id=run_id)
    for key in ("", "a\0b", "\ud800", "k" * 513):
        with pytest.raises(ToolError, match="A blackboard key"):
            write("s", key, 1, run_id=run_id)
        with pytest.raises(ToolError, match="A blackboard key"):
            stage.journal.board_read("s", key)


def test_many_writers_of_one_board_leave_no_gap(stage: Stage) -> None:
    run_id = stage.open()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: stage.journal.board_write("s", "k", n, run_id=run_id), range(40)))
    log = [(entry.seq, entry.version) for entry in stage.journal.board_after("s", 0)]
    assert [(n, n) for n in range(1, 41)] == log


# Joins


def test_finishers_of_one_turn_hand_over_once(stage: Stage) -> None:
    joins(stage, 30)


@pytest.mark.slow
def test_finishers_of_one_turn_hand_over_once_however_often_they_meet(stage: Stage) -> None:
    joins(stage, 2_000)


def joins(stage: Stage, times: int) -> None:
    """Two tools of a turn end at the same instant, again and again."""
    barrier = threading.Barrier(2)
    handed_over: list[str] = []

    def finish(run_id: str, position: int) -> None:
        step = f"1/tool/{position}"
        stage.claim(run_id, step)
        barrier.wait()
        expected, results = 2, 1
        while True:
            last = results == 2
            steps = [model("2/model")] if last else []
            done = stage.append(
                run_id, returned(step), expected=expected, step=step, attempt=1, steps=steps
            )
            if done.ok:
                break
            expected, results = expected + len(done.behind), results + len(done.behind)
        if last and stage.journal.take_dispatch(run_id, ["2/model"]):
            handed_over.append(run_id)

    runs = [stage.open(tool("1/tool/0"), tool("1/tool/1")) for _ in range(times)]
    with ThreadPoolExecutor(2) as pool:
        for run_id in runs:
            list(pool.map(finish, [run_id] * 2, range(2)))
    assert runs == handed_over
    assert {3} == {len(stage.journal.events(run_id)) for run_id in runs}
