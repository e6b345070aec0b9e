"""Calls in doubt whose tools can be asked: begun again only if they certainly did not happen."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import heartbit
from heartbit import ToolContext
from heartbit.core.events import ApprovalRequested, RunFailed
from heartbit.core.tools import OnDoubt, ToolOutput
from heartbit.engines.recovery import Sweep
from heartbit.errors import StepHandedBack
from heartbit.providers.scripted import call
from heartbit.tools.base import Tool
from heartbit.tools.function import FunctionTool
from tests.support.workshop import Workshop, execute, workshop

EXPIRE = "update steps set lease_expires_at = heartbit_now() - interval '1 second'"
CALL = "1/tool/0"


class Bank:
    """Payments, and what can be found out about them."""

    def __init__(self, on_doubt: OnDoubt = "tell_model") -> None:
        self.paid: list[tuple[int, int]] = []
        self.asked: list[tuple[int, int]] = []
        self.answer: object = None

        @heartbit.tool(on_doubt=on_doubt)
        def pay(amount: int, context: ToolContext) -> str:
            self.paid.append((amount, context.attempt))
            return f"paid {amount}"

        @pay.probe
        def paid(amount: int, context: ToolContext) -> object:
            self.asked.append((amount, context.attempt))
            if isinstance(self.answer, BaseException):
                raise self.answer
            return self.answer

        self.tool: FunctionTool = pay


def in_doubt(shop: Workshop, database: str) -> None:
    """A worker was lost in the call; the sweep has seen it and sent the step again."""
    shop.deliver()
    shop.lose(CALL)
    sweep(shop, database)


def sweep(shop: Workshop, database: str) -> None:
    """A second sweep within a second would not be admitted."""
    execute(database, "delete from sweeps")
    execute(database, "update steps set dispatch_after = heartbit_now() where state = 'running'")
    Sweep(shop.journal, shop.engine, lease_seconds=15).once()


@pytest.fixture
def bank() -> Bank:
    return Bank()


@pytest.fixture
def shop(postgres: str, bank: Bank) -> Iterator[Workshop]:
    """A run whose payment is in doubt."""
    with workshop(postgres, [bank.tool], call("pay", amount=5)) as made:
        in_doubt(made, postgres)
        yield made


def test_a_call_that_has_happened_gets_its_result_and_is_not_begun_again(
    shop: Workshop, bank: Bank
) -> None:
    """The probe has the arguments, and knows that it is another attempt."""
    bank.answer = "paid 5, as the bank says"
    assert [] == bank.asked  # not by the sweep: a probe may take its time
    shop.deliver_all()
    assert [(5, 2)] == bank.asked
    assert [] == bank.paid
    assert "paid 5, as the bank says" == shop.engine.output(shop.run_id).result


def test_a_call_that_has_certainly_not_happened_is_begun_again(shop: Workshop, bank: Bank) -> None:
    """Under the same lease as the question, as a new attempt."""
    shop.deliver_all()
    assert [(5, 2)] == bank.asked == bank.paid
    assert "paid 5" == shop.engine.output(shop.run_id).result


def test_what_the_probe_finds_may_be_a_failure(shop: Workshop, bank: Bank) -> None:
    """The call has happened, and went wrong."""
    bank.answer = ToolOutput(content="declined", is_error=True)
    shop.deliver_all()
    assert ("declined", True) == (shop.result().content, shop.result().is_error)
    assert [] == bank.paid


@pytest.mark.parametrize("answer", [OSError("the bank is closed"), SystemExit(1), object()])
def test_without_an_answer_the_model_is_told_and_nothing_is_begun_again(
    shop: Workshop, bank: Bank, answer: object
) -> None:
    """Whatever the probe raises, and whatever it returns that is no result."""
    bank.answer = answer
    shop.deliver_all()
    assert shop.result().is_error
    assert [] == bank.paid
    assert "succeeded" == shop.engine.output(shop.run_id).status


def test_without_an_answer_a_human_is_asked_if_that_is_wanted(postgres: str) -> None:
    """The run waits, and nothing looks after it."""
    bank = Bank(on_doubt="ask_human")
    bank.answer = OSError("the bank is closed")
    with workshop(postgres, [bank.tool], call("pay", amount=5)) as shop:
        in_doubt(shop, postgres)
        shop.deliver_all()
        assert "waiting" == shop.engine.output(shop.run_id).status
        assert [e for e in shop.events if isinstance(e, ApprovalRequested)]
        shop.engine.step(shop.run_id, CALL)
    assert [] == bank.paid


def test_a_message_before_the_sweep_asks_as_well(postgres: str, bank: Bank) -> None:
    """Whoever claims the step asks."""
    with workshop(postgres, [bank.tool], call("pay", amount=5)) as shop:
        shop.deliver()
        shop.lose(CALL)
        shop.engine.step(shop.run_id, CALL)
        shop.deliver_all()
        assert [(5, 2)] == bank.asked == bank.paid


def test_a_second_loss_is_asked_about_again(shop: Workshop, bank: Bank, postgres: str) -> None:
    """The worker that asked may have begun the call: nobody knows but the tool."""
    shop.journal.claim(shop.run_id, CALL, owner="lost, too", lease_seconds=-1, known=0, doubt=1)
    bank.answer = "paid after all"
    shop.deliver_all()
    assert [(5, 3)] == bank.asked
    assert [] == bank.paid


def test_a_step_that_kills_whoever_asks_fails_the_run(
    shop: Workshop, bank: Bank, postgres: str
) -> None:
    """As any other step does that is lost again and again."""
    for attempt in (1, 2):
        claim = shop.journal.claim(
            shop.run_id, CALL, owner=f"lost {attempt}", lease_seconds=-1, known=0, doubt=attempt
        )
        assert claim.why_not is None
    shop.outbox.messages.clear()
    sweep(shop, postgres)
    shop.deliver_all()
    assert isinstance(shop.events[-1], RunFailed)
    assert [] == bank.asked == bank.paid


def test_a_process_that_was_frozen_after_the_answer_begins_nothing(
    shop: Workshop, bank: Bank, postgres: str
) -> None:
    """Its lease is over; the step stays in doubt, and is asked about again."""
    checked: list[object] = []
    check = shop.runtime.leases.check

    def frozen(held: object) -> None:
        checked.append(held)
        if len(checked) == 2:
            raise StepHandedBack
        check(held)  # type: ignore[arg-type]

    shop.runtime.leases.check = frozen  # type: ignore[method-assign]
    shop.deliver_all()
    assert [(5, 2)] == bank.asked
    assert [] == bank.paid
    execute(postgres, EXPIRE)
    bank.answer = "somebody has paid meanwhile"
    sweep(shop, postgres)
    shop.deliver_all()
    assert [] == bank.paid
    assert "somebody has paid meanwhile" == shop.engine.output(shop.run_id).result


def test_a_tool_whose_probe_was_deployed_away_is_a_call_in_doubt(postgres: str) -> None:
    """The run was opened when there was one."""
    bank = Bank()
    with workshop(postgres, [bank.tool], call("pay", amount=5)) as shop:
        bank.tool._probe = None
        in_doubt(shop, postgres)
        shop.deliver_all()
        assert shop.result().is_error
    assert [] == bank.paid


def test_every_attempt_has_its_number_and_all_have_one_key(postgres: str) -> None:
    """For whoever refuses to do the same thing twice."""

    @heartbit.tool(effect="idempotent")
    def send(context: ToolContext) -> str:
        return f"{context.attempt} {context.idempotency_key}"

    tools: list[Tool] = [send]
    with workshop(postgres, tools, call("send")) as shop:
        shop.deliver()
        shop.lose(CALL)
        shop.lose(CALL)
        shop.engine.step(shop.run_id, CALL)
        assert f"3 {shop.run_id}/1/tool/0" == shop.result().content
