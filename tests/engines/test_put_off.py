"""A model call that must wait for long is put off: a row waits, and nobody else does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from heartbit.core.agent import AgentDefinition
from heartbit.core.commands import Command, Summarise
from heartbit.core.events import Event, ModelReplied, RunFailed
from heartbit.core.messages import Usage
from heartbit.core.retry import RetryPolicy, Tried
from heartbit.core.state import RunState
from heartbit.engines.leases import Held
from heartbit.engines.patience import Patience
from heartbit.engines.perform import Outside, perform
from heartbit.engines.plan import RunPlace
from heartbit.engines.ports import Done
from heartbit.engines.steps import identity_of
from heartbit.errors import CallPutOff, JournalUnavailable, RateLimited
from heartbit.providers.base import Provider
from heartbit.providers.retry import RetryingProvider
from heartbit.providers.scripted import Reply, ScriptedProvider, call
from heartbit.stores.memory_journal import InMemoryJournal
from tests.support.bench import LEASE_SECONDS, LOOK, RUN, Bench, Clock, Died

WAIT = 60.0
USED = Usage(input_tokens=3)
AGENT = AgentDefinition(name="solo", system_prompt="Act.", tools=(LOOK,))
FIRST = ("step", RUN, "1/model")


def busy(seconds: float = WAIT) -> RateLimited:
    """The provider wants nobody to come back before so long."""
    return RateLimited("Slow down.", retry_after=seconds, usage=USED)


class Limited(Bench):
    """A workbench whose model is asked through the wrapper that tries again."""

    def __init__(
        self,
        *replies: Reply,
        max_retries: int = 3,
        agent: AgentDefinition = AGENT,
        batched: bool = False,
        journal: Callable[[Clock], InMemoryJournal] = InMemoryJournal,
        patience: Patience | None = None,
    ) -> None:
        self.model = ScriptedProvider(replies)
        self.slept: list[float] = []
        self.provider: Provider = RetryingProvider(
            self.model, RetryPolicy(max_retries=max_retries), self._sleep, jitter=lambda: 0.5
        )
        super().__init__(agent=agent, batched=batched, journal=journal, patience=patience)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def _work(self, command: Command, state: RunState, place: RunPlace, held: Held) -> Done:
        if command.step.endswith(("/model", "/summary")):
            self.before(held, command)
            outside = self.outside(state, place, held.tried)
            event = asyncio.run(perform(command, state, outside))
            assert event is not None
            self.after(held, command)
            return Done(event=event)
        return super()._work(command, state, place, held)

    def outside(self, state: RunState, place: RunPlace, tried: Tried | None) -> Outside:
        """What a model turn may reach."""
        return Outside(
            identity=identity_of(state, place),
            provider=lambda name: self.provider,
            tool=lambda spec: None,
            blackboard=lambda scope: pytest.fail("no blackboard here"),
            sub_run=lambda command: pytest.fail("no sub-agents here"),
            listener=lambda step: None,
            tried=tried,
        )

    def wait(self, seconds: float = WAIT + 1) -> None:
        """Let time pass, sweep, and deliver."""
        self.later(seconds)
        self.deliver_all()

    @property
    def asked(self) -> int:
        """How often the model was asked."""
        return len(self.model.requests)


@pytest.mark.parametrize("batched", [False, True], ids=["each", "batched"])
def test_a_run_whose_model_must_wait_waits_as_a_row(batched: bool) -> None:
    """No message, no lease and no sleep; when the time is over, it goes on by itself."""
    bench = Limited(call("look"), busy(), "Done.", batched=batched)
    bench.start()
    bench.wait(1)
    assert (2, "running", []) == (bench.asked, bench.status, bench.outbox.messages)
    bench.wait(WAIT - 2)
    assert (2, ()) == (bench.asked, bench.journal.expired_steps(limit=9, again_seconds=1))
    bench.wait(2)
    assert (3, "succeeded", []) == (bench.asked, bench.status, bench.slept)
    [_, _, _, replied, *_] = bench.journal.events(RUN)
    assert isinstance(replied, ModelReplied)
    assert USED.input_tokens < replied.completion.usage.input_tokens


def test_a_message_that_comes_twice_does_not_cut_the_wait_short() -> None:
    """Neither does somebody who looks after the run meanwhile."""
    bench = Limited(busy(), "Done.")
    bench.start()
    bench.deliver(FIRST)
    bench.deliver(FIRST, bench.worker())
    bench.deliver(("look", RUN))
    assert (1, []) == (bench.asked, bench.outbox.messages)
    bench.wait()
    assert (2, "succeeded") == (bench.asked, bench.status)


def test_a_short_wait_is_waited_for_in_the_worker() -> None:
    """A message and a claim cost more than a few seconds."""
    bench = Limited(busy(5), "Done.")
    bench.start()
    assert ([5], "succeeded") == (bench.slept, bench.status)


def test_a_call_is_not_put_off_more_often_than_it_may_be_tried() -> None:
    """And fails with the usage of all attempts, no worker being suspected of anything."""
    bench = Limited(*[busy() for _ in range(9)], max_retries=3)
    bench.start()
    for _ in range(9):
        bench.wait()
    failed = bench.journal.events(RUN)[-1]
    assert isinstance(failed, RunFailed)
    assert (4, "model_call_failed") == (bench.asked, failed.code)
    assert Usage(input_tokens=4 * USED.input_tokens) == bench.engine.output(RUN).usage
    assert {"heartbit.start"} == {q for m, q in bench.outbox.queues.items() if m == FIRST}


def test_a_wait_beyond_what_the_policy_allows_ends_the_run_at_once() -> None:
    """A row could wait for a day; the rule is the same as in a process of one's own."""
    bench = Limited(busy(86_400), "Never")
    bench.start()
    assert (1, "failed") == (bench.asked, bench.status)


def test_a_worker_that_is_lost_after_the_wait_has_not_lost_the_count() -> None:
    """Whoever follows goes on counting where it was put off."""
    bench = Limited(busy(), busy(), "Never", max_retries=1)
    bench.start()
    bench.die_in("1/model")
    bench.later(WAIT + 1)
    with pytest.raises(Died):
        bench.deliver_all()
    bench.live()
    bench.wait(LEASE_SECONDS + 1)
    bench.wait()
    assert (2, "failed") == (bench.asked, bench.status)


def test_a_cancel_ends_a_run_that_waits() -> None:
    """At once, and nobody is asked again."""
    bench = Limited(busy(), "Never")
    bench.start()
    bench.engine.cancel(RUN)
    bench.deliver_all()
    assert "cancelled" == bench.status
    bench.wait()
    assert 1 == bench.asked


def test_a_deadline_ends_a_run_that_waits() -> None:
    """Its time goes on, too."""
    bench = Limited(busy(), "Never", agent=replace(AGENT, run_timeout_seconds=30))
    bench.start()
    bench.wait(31)
    assert ("failed", "run_timed_out") == (bench.status, _code(bench.journal.events(RUN)))
    bench.wait()
    assert 1 == bench.asked


def _code(events: Sequence[Event]) -> str:
    failed = events[-1]
    assert isinstance(failed, RunFailed)
    return failed.code


def test_a_summary_is_put_off_like_a_turn() -> None:
    """Where that is possible: an engine without rows waits."""
    bench = Limited(busy(), busy(), "All.")
    state, place = bench.engine.progress(RUN).state, RunPlace(run_id=RUN, root_run_id=RUN)
    command = Summarise(step="1/summary", upto=1)
    with pytest.raises(CallPutOff):
        asyncio.run(perform(command, state, bench.outside(state, place, Tried())))
    assert [] == bench.slept
    asyncio.run(perform(command, state, bench.outside(state, place, None)))
    assert ([WAIT], 3) == (bench.slept, bench.asked)


def test_the_wait_itself_is_kept_while_the_database_is_away() -> None:
    """Or what was tried and used by then would be forgotten."""
    failures = [JournalUnavailable("Restarting.")]

    class Away(InMemoryJournal):
        def put_off(
            self, run_id: str, step: str, attempt: int, *, seconds: float, tried: Tried
        ) -> None:
            if failures:
                raise failures.pop()
            super().put_off(run_id, step, attempt, seconds=seconds, tried=tried)

    patience = Patience(sleep=lambda seconds: None)
    bench = Limited(busy(), "Done.", journal=Away, patience=patience)
    bench.start()
    bench.wait()
    assert (2, "succeeded", []) == (bench.asked, bench.status, failures)
