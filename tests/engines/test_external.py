"""Calls of tasks of other code bases: sent once, answered once, waited for by nobody."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heartbit.core.agent import AgentDefinition, PermissionRule, as_json
from heartbit.core.commands import Command
from heartbit.core.events import Decision, LateResult, ToolReturned
from heartbit.core.tools import ToolSpec
from heartbit.engines.ids import external_task_id
from heartbit.engines.leases import Held
from heartbit.engines.plan import ANSWER_SECONDS
from heartbit.engines.ports import Answer
from heartbit.errors import RunNotFound
from tests.support.bench import LEASE_SECONDS, LOOK, RUN, Bench, calling
from tests.support.journals import call, replied, spec

STEP = "1/tool/0"
BILL = replace(spec("bill"), ref="celery:billing.bill", queue="billing", timeout_seconds=600)
RATE = replace(spec("rate", effect="pure"), ref="celery:billing.rate")
WIRE = replace(spec("wire", on_doubt="ask_human"), ref="celery:billing.wire", timeout_seconds=600)
AGENT = AgentDefinition(name="solo", system_prompt="Act.", tools=(BILL, RATE, WIRE, LOOK))
APPROVE, DENY = (Decision(position=0, verdict=each) for each in ("approve", "deny"))


def called(*tools: str, agent: AgentDefinition = AGENT) -> Bench:
    """A run that has called these tools, and all messages of ours are delivered."""
    bench = Bench(calling(*tools), agent)
    bench.start()
    return bench


def answer(
    bench: Bench, content: str = "done", attempt: int = 0, *, is_error: bool = False
) -> None:
    """The task's callback arrives."""
    bench.engine.external.finished(RUN, STEP, attempt, content, is_error=is_error)


def known(bench: Bench, answer: Answer, attempt: int = 0) -> None:
    """The result backend knows something of the task."""
    bench.outbox.answers[external_task_id(RUN, STEP, attempt)] = answer


def outcome(bench: Bench) -> tuple[str, bool]:
    """What the model is told."""
    event = bench.event(STEP)
    assert isinstance(event, ToolReturned)
    return event.content, event.is_error


@pytest.mark.parametrize("batched", [False, True], ids=["each", "batched"])
def test_the_task_is_sent_by_its_name_and_nobody_waits(batched: bool) -> None:
    """With the arguments of the call, under an id that is made of run and step."""
    calls = [call("rate", invoice=7), call("look")]
    bench = Bench(
        lambda state: replied(1, *calls) if state.turn == 1 else replied(state.turn, "done"),
        AGENT,
        batched=batched,
    )
    bench.start()
    [sent] = bench.outbox.calls
    assert ("billing.rate", external_task_id(RUN, STEP, 0)) == (sent.task, sent.task_id)
    assert {"invoice": 7} == sent.arguments
    assert 0 == bench.begun[RUN, STEP]
    assert 1 == bench.begun[RUN, "1/tool/1"]
    assert "running" == bench.status
    answer(bench, "billed")
    assert ("billed", False) == outcome(bench)
    assert "succeeded" == bench.until_it_ends()


def test_an_error_is_a_result_for_the_model() -> None:
    """The run goes on."""
    bench = called("bill")
    answer(bench, "ValueError: no such customer", is_error=True)
    assert ("ValueError: no such customer", True) == outcome(bench)
    assert "succeeded" == bench.until_it_ends()


def test_a_long_answer_is_cut() -> None:
    """As that of any other tool."""
    bench = called("bill", agent=replace(AGENT, max_tool_output_bytes=10))
    answer(bench, "x" * 10_000_000)
    assert outcome(bench)[0].startswith("x" * 10 + "\n\n[truncated: 9999990 bytes")


def test_the_first_answer_counts() -> None:
    """The same one again changes nothing; another one is kept for the record, once."""
    bench = called("bill", "bill")
    for content in ("first", "first", "second", "second"):
        answer(bench, content)
    assert ("first", False) == outcome(bench)
    late = [e for e in bench.journal.events(RUN) if isinstance(e, LateResult)]
    second = ToolReturned(step=STEP, content="second")
    assert [(STEP, as_json(second))] == [(e.late_step, e.outcome) for e in late]


def test_an_answer_to_an_ended_run_is_dropped() -> None:
    """Nothing is written behind the end of a journal."""
    bench = called("bill")
    bench.engine.cancel(RUN)
    bench.deliver_all()
    before = bench.steps
    answer(bench)
    assert "end" == before[-1]
    assert before == bench.steps


@pytest.mark.parametrize(
    "step", ["1/tool/1", "1/model", "1/tool/7", "1/tool/x", "1", "", "1/tool/0/0", "9/tool/0", "\0"]
)
def test_nobody_can_answer_for_a_step_that_is_no_call_of_a_task(step: str) -> None:
    """Neither for a tool of ours, nor for a model, nor for what does not exist."""
    bench = called("bill", "look")
    with pytest.raises(RunNotFound, match="There is no Celery task"):
        bench.engine.external.finished(RUN, step, 0, "forged", is_error=False)
    with pytest.raises(RunNotFound, match="There is no run"):
        bench.engine.external.finished(f"1{RUN[1:]}", STEP, 0, "forged", is_error=False)
    assert STEP not in bench.steps


def test_a_message_for_our_own_workers_begins_no_external_call() -> None:
    """Whoever sends it: the step is not ours to do."""
    bench = called("bill")
    bench.deliver(("step", RUN, STEP))
    assert 0 == bench.begun[RUN, STEP]


def test_a_call_that_was_never_sent_is_sent_by_the_sweep() -> None:
    """The worker died between the commit and the message."""
    bench = Bench(calling("bill"), AGENT)
    bench.engine.resume(RUN)
    bench.journal.take_dispatch = lambda *_, **__: ()  # type: ignore[method-assign]
    bench.deliver_all()
    assert [] == bench.outbox.calls
    bench.later(2)
    assert ["billing.bill"] == [call.task for call in bench.outbox.calls]


def test_a_call_that_cannot_be_sent_now_is_sent_once_the_broker_is_back() -> None:
    """Not sending it at all leaves no doubt, so it need not time out."""
    bench = Bench(calling("bill", "look"), AGENT)
    bench.engine.resume(RUN)
    bench.outbox.unreachable = True
    bench.deliver_all()
    assert 1 == bench.begun[RUN, "1/tool/1"]
    for _ in range(9):
        bench.later()
    assert [] == bench.outbox.calls
    bench.outbox.unreachable = False
    for _ in range(9):
        bench.later()
    assert 1 == len(bench.outbox.calls)
    answer(bench)
    assert "succeeded" == bench.until_it_ends()


def test_a_call_that_a_human_was_asked_about_is_sent_after_the_approval() -> None:
    """Permissions hold as for every other tool."""
    rule = PermissionRule(tool="bill", action="ask")
    bench = called("bill", agent=replace(AGENT, permissions=(rule,)))
    bench.later(ANSWER_SECONDS)
    assert [] == bench.outbox.calls
    bench.decide(APPROVE)
    bench.later()
    assert 1 == len(bench.outbox.calls)
    bench.later(599)
    assert STEP not in bench.steps
    answer(bench)
    assert "succeeded" == bench.until_it_ends()


def test_a_lost_callback_is_made_up_for_by_the_result_backend() -> None:
    """The sweep asks it."""
    bench = called("bill")
    known(bench, Answer(state="done", content="found"))
    bench.later()
    assert ("found", False) == outcome(bench)


@pytest.mark.parametrize(("tool", "state", "sent"), [
    ("rate", "unknown", 2), ("rate", "running", 1), ("bill", "unknown", 1), ("bill", "running", 1),
])  # fmt: skip
def test_only_what_may_be_repeated_and_is_not_at_work_is_sent_again(
    tool: str, state: str, sent: int
) -> None:
    """Under the same id; another call is left to its time limit."""
    bench = called(tool)
    known(bench, Answer(state=state))  # type: ignore[arg-type]
    bench.later()
    assert sent == len(bench.outbox.calls)
    assert 1 == len({call.task_id for call in bench.outbox.calls})


def test_nothing_is_sent_for_a_cancelled_tree() -> None:
    """A cancel that came while the model was thinking."""
    bench = Bench(calling("rate"), AGENT)
    bench.engine.resume(RUN)

    def cancel(held: Held, command: Command) -> None:
        bench.journal.request_cancel(RUN)

    bench.after = cancel
    bench.deliver_all()
    bench.later()
    assert [] == bench.outbox.calls
    assert "cancelled" == bench.until_it_ends()


def test_a_task_that_does_not_answer_in_time_is_given_up() -> None:
    """The model is told that it may still happen, and workers are told not to begin it."""
    bench = called("bill")
    bench.later(599)
    assert STEP not in bench.steps
    bench.later(2)
    content, is_error = outcome(bench)
    assert is_error
    assert "billing.bill did not answer within 600 seconds. It may still take effect" in content
    assert [external_task_id(RUN, STEP, 0)] == bench.outbox.revoked
    answer(bench, "late")
    assert "late_result" == bench.journal.events(RUN)[-1].type
    assert "succeeded" == bench.until_it_ends()


def test_the_backend_is_asked_once_more_before_a_task_is_given_up() -> None:
    """Its answer may have come between two sweeps."""
    bench = called("bill")
    bench.clock.now += 601
    known(bench, Answer(state="done", content="just so"))
    bench.sweep.once()
    assert ("just so", False) == outcome(bench)
    assert [] == bench.outbox.revoked


def test_an_answer_that_comes_while_the_task_is_given_up_is_the_first() -> None:
    """Our own verdict is then no news for the record."""
    bench = called("bill", "rate")

    def unknown(task_id: str) -> Answer:
        answer(bench, "just in time")
        return Answer(state="unknown")

    bench.outbox.answer = unknown  # type: ignore[method-assign]
    bench.engine.external.time_out(RUN, STEP)
    assert ("just in time", False) == outcome(bench)
    assert "late_result" not in [event.type for event in bench.journal.events(RUN)]


@pytest.mark.parametrize(("tool", "limits", "seconds"), [
    (BILL, {}, 600.0),
    (replace(BILL, timeout_seconds=None), {"tool_timeout_seconds": 30.0}, 30.0),
    (replace(BILL, timeout_seconds=None), {}, ANSWER_SECONDS),
])  # fmt: skip
def test_there_is_always_a_time_limit(
    tool: ToolSpec, limits: dict[str, float], seconds: float
) -> None:
    """The tool's own, else the agent's, else an hour: nothing waits for ever."""
    agent = replace(AGENT, tools=(tool,), **limits)  # type: ignore[arg-type]
    bench = called("bill", agent=agent)
    bench.later(seconds - 1)
    assert STEP not in bench.steps
    bench.later(2)
    assert f"within {seconds:g} seconds" in outcome(bench)[0]


def test_a_human_decides_about_a_task_that_did_not_answer() -> None:
    """Approved, it is sent once more, as another task: the first one was revoked."""
    bench = called("wire")
    bench.later(601)
    assert "waiting" == bench.status
    answer(bench, "from one that was never sent", attempt=1)
    assert STEP not in bench.steps
    bench.decide(APPROVE)
    for _ in range(5):
        bench.later()
    ids = [external_task_id(RUN, STEP, attempt) for attempt in (0, 1)]
    assert ids[0] != ids[1]
    bench.deliver(("step", RUN, STEP))
    assert 0 == bench.begun[RUN, STEP]
    assert ids == [call.task_id for call in bench.outbox.calls]
    answer(bench, "from the first one", attempt=0)
    assert STEP not in bench.steps
    answer(bench, "wired", attempt=1)
    assert ("wired", False) == outcome(bench)
    assert "succeeded" == bench.until_it_ends()


def test_a_human_is_asked_again_if_the_second_one_does_not_answer_either() -> None:
    """A question of its own."""
    bench = called("wire")
    bench.later(601)
    bench.decide(APPROVE)
    bench.later()
    bench.later()
    bench.later(601)
    assert ["1/doubt/0", "1/doubt/0/2"] == [a.step for a in bench.journal.approvals(RUN)]
    bench.decide(DENY)
    bench.later()
    assert 2 == len(bench.outbox.calls)
    assert outcome(bench)[1]
    assert "succeeded" == bench.until_it_ends()


def test_the_end_of_a_run_recalls_its_tasks() -> None:
    """Cancelled, or out of time."""
    for agent in (AGENT, replace(AGENT, run_timeout_seconds=60)):
        bench = called("bill", "rate", agent=agent)
        if agent is AGENT:
            bench.engine.cancel(RUN)
        else:
            bench.later(61)
        bench.deliver_all()
        ids = {external_task_id(RUN, f"1/tool/{n}", 0) for n in (0, 1)}
        assert ids == set(bench.outbox.revoked)
        assert bench.status in ("cancelled", "failed")


def test_an_answered_call_leaves_nothing_behind() -> None:
    """No timer and no step for the sweep."""
    bench = called("bill", "wire")
    answer(bench)
    bench.clock.now += 599
    assert () == bench.journal.due_timers(limit=9, again_seconds=LEASE_SECONDS)
    bench.clock.now += 2
    [timer] = bench.journal.due_timers(limit=9, again_seconds=LEASE_SECONDS)
    assert "answer/1/tool/1" == timer.what
