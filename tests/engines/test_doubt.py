"""Calls in doubt on the durable engine: asked about, begun again once, or never again."""

from __future__ import annotations

import pytest

from heartbit.core.events import Decision, ToolReturned
from tests.support.bench import RUN, SOLO, Bench, Died, calling

CALL = ("step", RUN, "1/tool/0")
APPROVE = Decision(position=0, verdict="approve")


def lost(tool: str) -> Bench:
    """A run whose only call was lost with its worker, and the sweep has been there."""
    bench = Bench(calling(tool), SOLO)
    bench.engine.resume(RUN)
    bench.deliver(bench.outbox.messages.pop(0))
    lose(bench)
    return bench


def lose(bench: Bench) -> None:
    """The worker begins the call and dies; its lease runs out, and a sweep finds it."""
    bench.outbox.messages.clear()
    bench.die_in("1/tool/0")
    with pytest.raises(Died):
        bench.deliver(CALL, bench.worker())
    bench.live()
    bench.later()


def begun(bench: Bench) -> int:
    """How often a worker has begun the call."""
    return bench.begun[RUN, "1/tool/0"]


def test_the_model_is_told_and_the_call_is_never_begun_again() -> None:
    """Not by a message that comes again, either."""
    bench = lost("pay")
    returned = bench.event("1/tool/0")
    assert isinstance(returned, ToolReturned)
    assert returned.is_error
    bench.deliver(CALL)
    assert "succeeded" == bench.until_it_ends()
    assert 1 == begun(bench)


def test_a_message_that_comes_again_before_the_sweep_begins_nothing() -> None:
    """The lease has run out, and nobody has decided yet."""
    for tool in ("pay", "fire"):
        bench = Bench(calling(tool), SOLO)
        bench.engine.resume(RUN)
        bench.deliver(bench.outbox.messages.pop(0))
        bench.die_in("1/tool/0")
        with pytest.raises(Died):
            bench.deliver(CALL, bench.worker())
        bench.live()
        bench.clock.now += 100
        bench.deliver(CALL)
        assert 1 == begun(bench)


def test_the_run_waits_for_the_human_and_nothing_looks_after_it() -> None:
    """No lease, no timer, no message, however long it takes."""
    bench = lost("fire")
    assert "waiting" == bench.status
    assert {} == bench.journal._tables.timers
    for _ in range(5):
        bench.later(100_000)
        bench.deliver(CALL)
    assert [] == bench.outbox.messages
    assert 1 == begun(bench)


def test_an_approved_call_is_begun_again_though_every_message_is_lost() -> None:
    """The decision's timer resolves it, and the call's own timer sends it until it is done."""
    bench = lost("fire")
    bench.decide(APPROVE)
    for _ in range(3):
        bench.later(3)
        bench.outbox.messages.clear()
    bench.later(20)
    assert CALL in bench.outbox.messages
    assert "succeeded" == bench.until_it_ends()
    assert 2 == begun(bench)
    assert {} == bench.journal._tables.timers


def test_what_was_allowed_once_is_begun_once() -> None:
    """The second worker is lost, too: neither message nor timer begins the call again."""
    bench = lost("fire")
    bench.decide(APPROVE)
    bench.later(3)
    lose(bench)
    for _ in range(5):
        bench.deliver(CALL)
        bench.later(60)
        bench.deliver_all()
    assert 2 == begun(bench)
    [question] = bench.journal.open_approvals()
    assert "1/doubt/0/2" == question.step
    assert "waiting" == bench.status
    assert {} == bench.journal._tables.timers
    bench.decide(APPROVE)
    assert "succeeded" == bench.until_it_ends()
    assert 3 == begun(bench)


def test_a_message_after_the_second_loss_waits_for_the_question() -> None:
    """The approval of the first loss does not cover it, even before the sweep has been there."""
    bench = lost("fire")
    bench.decide(APPROVE)
    bench.later(3)
    bench.die_in("1/tool/0")
    with pytest.raises(Died):
        bench.deliver(CALL, bench.worker())
    bench.live()
    bench.clock.now += 100
    bench.deliver(CALL)
    assert 2 == begun(bench)


def test_a_denied_call_is_not_begun_again_and_the_run_goes_on() -> None:
    """The model is told that nobody knows, and why it was not repeated."""
    bench = lost("fire")
    bench.decide(Decision(position=0, verdict="deny", reason="Seen on the account"))
    assert "succeeded" == bench.until_it_ends()
    returned = bench.event("1/tool/0")
    assert isinstance(returned, ToolReturned)
    assert "Seen on the account" in returned.content
    assert 1 == begun(bench)


def test_an_edited_call_is_begun_with_what_the_human_wrote() -> None:
    """Under the same step, once."""
    bench = lost("fire")
    bench.decide(Decision(position=0, verdict="edit", arguments={"softly": True}))
    assert "succeeded" == bench.until_it_ends()
    assert 2 == begun(bench)
    result = bench.event("1/tool/0")
    assert isinstance(result, ToolReturned)
    [asked, resolved] = [e for e in bench.journal.events(RUN) if "doubt" in (e.step or "")]
    assert ["1/doubt/0", "1/doubt/0/decision"] == [asked.step, resolved.step]


def test_always_holds_for_the_rest_of_the_run() -> None:
    """The lesson is in the journal."""
    bench = lost("fire")
    bench.decide(Decision(position=0, verdict="approve", always=True))
    bench.later(3)
    [rule] = bench.engine.progress(RUN).state.learned
    assert ("fire", "allow") == (rule.tool, rule.action)


def test_the_first_worker_s_late_result_does_not_count() -> None:
    """It was frozen, and a human has been asked meanwhile."""
    bench = Bench(calling("fire"), SOLO)
    bench.engine.resume(RUN)
    bench.deliver(bench.outbox.messages.pop(0))
    bench.after = lambda held, command: bench.later()
    bench.deliver(CALL, bench.worker())
    bench.live()
    assert "waiting" == bench.status
    assert "1/tool/0" not in bench.steps
