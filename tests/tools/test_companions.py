"""What stands beside a tool's function: what it prepares, and how it asks about a lost call."""

from __future__ import annotations

import asyncio
import re
import threading
from datetime import date
from typing import Any

import pytest

import heartbit
from heartbit import ToolContext
from heartbit.core.tools import ToolOutput
from heartbit.errors import ConfigError
from heartbit.tools.function import FunctionTool
from heartbit.tools.registry import ToolOptions, with_options

CONTEXT = ToolContext(run_id="r", step="1/tool/0", attempt=2)


def booking() -> FunctionTool:
    @heartbit.tool(effect="transactional")
    def book(day: date, seats: int = 2) -> str:
        return f"{day} {seats}"

    return book


def paying() -> FunctionTool:
    @heartbit.tool
    def pay(day: date, amount: int = 2) -> str:
        return f"{day} {amount}"

    return pay


def prepared(tool: FunctionTool, **arguments: Any) -> Any:
    return asyncio.run(tool.prepare_call(arguments, CONTEXT))


def probed(tool: FunctionTool, **arguments: Any) -> ToolOutput | None:
    return asyncio.run(tool.probe_call(arguments, CONTEXT))


def test_it_gets_the_arguments_it_names_in_their_types_and_the_context() -> None:
    book = booking()

    @book.prepare
    async def embed(context: ToolContext, day: date) -> object:
        return day, context.attempt

    assert (date(2026, 1, 2), 2) == prepared(book, day="2026-01-02", seats=3)


def test_it_gets_the_defaults_of_the_tool() -> None:
    book = booking()

    @book.prepare
    async def embed(seats: int) -> int:
        return seats

    assert 2 == prepared(book, day="2026-01-02")


def test_a_plain_def_runs_in_a_thread() -> None:
    book = booking()

    @book.prepare
    def embed() -> bool:
        return threading.current_thread() is threading.main_thread()

    assert prepared(book, day="2026-01-02") is False


def test_the_function_stays_what_it_was() -> None:
    book, pay = booking(), paying()

    @book.prepare
    def embed(seats: int) -> int:
        return seats + 1

    @pay.probe
    def paid(amount: int) -> int:
        return amount + 2

    assert (2, 3) == (embed(1), paid(1))


def test_without_anything_to_prepare_there_is_nothing_prepared() -> None:
    assert prepared(booking(), day="2026-01-02") is None


@pytest.mark.parametrize(
    ("found", "output"),
    [
        (None, None),
        ("paid", ToolOutput(content="paid")),
        ("", ToolOutput(content="")),
        ({"paid": 5}, ToolOutput(content='{"paid":5}')),
        (ToolOutput(content="no", is_error=True), ToolOutput(content="no", is_error=True)),
    ],
)
def test_what_a_probe_returns_is_the_result_of_the_call_and_none_is_none(
    found: object, output: ToolOutput | None
) -> None:
    pay = paying()

    @pay.probe
    async def paid() -> object:
        return found

    assert output == probed(pay, day="2026-01-02")


def test_a_tool_says_in_its_spec_that_it_has_a_probe_also_under_other_options() -> None:
    pay = paying()
    assert not pay.spec.probe

    @pay.probe
    def paid() -> str:
        return "paid"

    assert pay.spec.probe
    renamed = with_options(pay, ToolOptions(name="pay", queue="bank"))
    assert isinstance(renamed, FunctionTool)
    assert renamed.spec.probe
    assert ToolOutput(content="paid") == probed(renamed, day="2026-01-02")


def _prepare_beside_pay() -> None:
    paying().prepare(lambda: None)


def _probe_beside_book() -> None:
    booking().probe(lambda: None)


def _unknown_parameter() -> None:
    @booking().prepare
    def embed(room: str) -> None: ...


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (_prepare_beside_pay, "Tool pay: only a transactional tool prepares its calls"),
        (_probe_beside_book, "Tool book: a call of a tool that is transactional is simply done"),
        (_unknown_parameter, "has a parameter room, which is none of its tool's (day, seats)"),
    ],
)
def test_what_makes_no_sense_is_refused_where_it_is_declared(declare: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        declare()


def test_no_option_makes_something_else_of_a_transactional_tool() -> None:
    """It would find no connection in its context."""
    with pytest.raises(ConfigError, match="no option can make it idempotent"):
        with_options(booking(), ToolOptions(name="book", effect="idempotent"))
