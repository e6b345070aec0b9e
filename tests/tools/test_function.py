"""A function made a tool: what the model sees of it, and what a call of it does."""

from __future__ import annotations

import asyncio
import contextvars
import enum
import functools
import inspect
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict

from heartbit.core.tools import ToolOutput
from heartbit.errors import ConfigError, ToolError
from heartbit.tools import threads
from heartbit.tools.base import Tool, ToolContext
from heartbit.tools.function import FunctionTool, tool

if TYPE_CHECKING:
    from nowhere import Unknown


@tool(effect="idempotent", timeout_seconds=30, queue="slow", on_doubt="ask_human")
async def book_room(day: date, seats: int = 2) -> str:
    """Book a meeting room."""
    return f"{type(day).__name__} {day:%d.%m.%Y}, {seats} seats"


def call(found: Tool, context: ToolContext | None = None, /, **arguments: Any) -> ToolOutput:
    return asyncio.run(found.call(arguments, context or ToolContext()))


def test_the_spec_says_what_the_decorator_was_told() -> None:
    spec = book_room.spec
    assert ("book_room", "Book a meeting room.") == (spec.name, spec.description)
    assert ("idempotent", "ask_human", 30, "slow") == (
        spec.effect,
        spec.on_doubt,
        spec.timeout_seconds,
        spec.queue,
    )
    assert f"python:{__name__}:book_room" == spec.ref


def test_bare_decoration_is_at_most_once_and_names_can_be_chosen() -> None:
    @tool
    def plain() -> None: ...

    @tool(name="other", description="Something else.")
    def named() -> None:
        """This."""

    assert ("plain", "at_most_once") == (plain.spec.name, plain.spec.effect)
    assert ("other", "Something else.") == (named.spec.name, named.spec.description)


def test_the_decorated_function_is_still_the_function() -> None:
    assert "date 02.01.2031, 3 seats" == asyncio.run(book_room(day=date(2031, 1, 2), seats=3))
    function: Any = book_room
    assert "book_room" == function.__name__
    assert "Book a meeting room." == function.__doc__
    assert ["day", "seats"] == list(inspect.signature(function).parameters)
    assert inspect.iscoroutinefunction(function.__wrapped__)


def test_arguments_arrive_as_the_types_of_the_hints() -> None:
    assert ToolOutput(content="date 02.01.2031, 2 seats") == call(book_room, day="2031-01-02")


def test_a_strict_model_takes_its_date_from_json() -> None:
    class Stay(BaseModel):
        model_config = ConfigDict(strict=True)
        day: date

    @tool
    def stay(at: Stay) -> str:
        return at.day.strftime("%A")

    assert ToolOutput(content="Thursday") == call(stay, at={"day": "2031-01-02"})


def test_every_violation_of_the_arguments_is_named_in_an_error_result() -> None:
    got = call(book_room, day="soon", seat=3, seats=[])
    assert got.is_error
    assert got.content.startswith("Input validation failed: day: ")
    assert "seats: Input should be a valid integer" in got.content
    assert "seat: is not an argument of this tool" in got.content
    missing = "Input validation failed: day: is required"
    assert ToolOutput(content=missing, is_error=True) == call(book_room)


def test_arguments_that_are_no_unicode_text_are_an_error_result() -> None:
    assert call(book_room, day="\ud800").is_error


def test_a_plain_def_runs_in_a_thread_with_the_callers_context_variables() -> None:
    tenant = contextvars.ContextVar("tenant", default="nobody")

    @tool
    def where() -> str:
        return f"{threading.current_thread() is threading.main_thread()} {tenant.get()}"

    tenant.set("acme")
    assert "False acme" == call(where).content


def test_an_async_def_runs_in_the_loop() -> None:
    @tool
    async def where() -> bool:
        return threading.current_thread() is threading.main_thread()

    assert "true" == call(where).content


def test_a_plain_def_around_a_coroutine_function_is_awaited() -> None:
    def traced(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    @tool
    @traced
    async def twice(number: int) -> int:
        return number * 2

    assert ["number"] == list(twice.spec.input_schema["properties"])
    assert "8" == call(twice, number=4).content


def test_the_context_is_injected_and_not_shown_to_the_model() -> None:
    @tool
    def who(of: str, ctx: ToolContext, again: ToolContext | None = None) -> str:
        assert ctx is again
        return f"{of} {ctx.idempotency_key}"

    assert ["of"] == list(who.spec.input_schema["properties"])
    assert "x r/1/tool/0" == call(who, ToolContext(run_id="r", step="1/tool/0"), of="x").content


class Colour(str, enum.Enum):  # noqa: UP042 - the older kind, whose str() is its name
    RED = "red"


@dataclass
class Room:
    name: str
    since: date


class Priced(BaseModel):
    price: Decimal


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is\n", "as it is\n"),
        (None, ""),
        (True, "true"),
        ([1, 2.5, None], "[1,2.5,null]"),
        ({"ä": date(2031, 1, 2)}, '{"ä":"2031-01-02"}'),
        (Room(name="A", since=date(2031, 1, 2)), '{"name":"A","since":"2031-01-02"}'),
        ([Priced(price=Decimal("1.20"))], '[{"price":"1.20"}]'),
        (UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (datetime(2031, 1, 2, tzinfo=UTC), '"2031-01-02T00:00:00Z"'),
        (Colour.RED, "red"),
        (b"t\xc3\xa4xt", "täxt"),
        (b"\xff\xfe\x00", "[binary data, 3 bytes]"),
    ],
)
def test_the_result_is_text_or_else_json(value: Any, text: str) -> None:
    @tool
    def give() -> Any:
        return value

    assert ToolOutput(content=text) == call(give)


def test_a_tool_output_is_passed_on_as_it_is() -> None:
    output = ToolOutput(content="no", is_error=True)

    @tool
    def give() -> ToolOutput:
        return output

    assert output is call(give)


@pytest.mark.parametrize("value", [object(), {"bytes": b"\xff"}, ["\ud800"], threading])
def test_a_result_that_is_no_json_is_an_error_that_says_the_call_was_done(value: Any) -> None:
    @tool
    def give() -> Any:
        return value

    got = call(give)
    assert got.is_error
    assert got.content.startswith("give was executed, but its result cannot be written as JSON: ")


@pytest.mark.parametrize("error", [ToolError("Room taken."), ValueError("odd"), KeyError("x")])
def test_what_the_function_raises_reaches_the_engine(error: Exception) -> None:
    @tool
    def plain() -> None:
        raise error

    @tool
    async def coroutine() -> None:
        raise error

    for found in (plain, coroutine):
        with pytest.raises(type(error)) as caught:
            call(found)
        assert error is caught.value


def test_a_stop_iteration_in_a_thread_does_not_hang_the_run() -> None:
    @tool
    def first() -> int:
        nothing: Iterator[int] = iter([])
        return next(nothing)

    with pytest.raises(RuntimeError, match="StopIteration was raised"):
        asyncio.run(asyncio.wait_for(first.call({}, ToolContext()), 10))


def test_a_blocking_tool_that_is_given_up_keeps_neither_the_loop_nor_other_tools_waiting() -> None:
    release = threading.Event()

    @tool
    def block() -> None:
        release.wait()

    @tool
    def quick() -> str:
        return "done"

    async def scenario() -> str:
        blocked = [asyncio.create_task(block.call({}, ToolContext())) for _ in range(64)]
        output = await quick.call({}, ToolContext())
        for task in blocked:
            task.cancel()
        await asyncio.wait(blocked)
        return output.content

    try:
        assert "done" == asyncio.run(asyncio.wait_for(scenario(), 10))
    finally:
        release.set()


def test_the_late_end_of_a_tool_that_was_given_up_disturbs_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threads, "IDLE_SECONDS", 0)  # its thread ends with the call
    started, release = threading.Event(), threading.Event()

    @tool
    def late() -> None:
        started.set()
        release.wait()

    async def scenario() -> list[dict[str, Any]]:
        complaints: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, complaint: complaints.append(complaint))
        call = asyncio.create_task(late.call({}, ToolContext()))
        await asyncio.to_thread(started.wait)
        call.cancel()
        await asyncio.wait([call])
        release.set()
        for thread in [each for each in threading.enumerate() if each.name == "late"]:
            await asyncio.to_thread(thread.join)
        return complaints

    assert [] == asyncio.run(scenario())


def test_a_tool_that_blocks_for_ever_does_not_keep_the_process_from_ending() -> None:
    program = """
import asyncio, threading
from heartbit.tools.base import ToolContext
from heartbit.tools.function import tool

started = threading.Event()

@tool
def block() -> None:
    started.set()
    threading.Event().wait()

async def main() -> None:
    call = asyncio.create_task(block.call({}, ToolContext()))
    await asyncio.to_thread(started.wait)
    call.cancel()

asyncio.run(main())
print("ended")
"""
    got = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30
    )
    assert ("ended\n", "") == (got.stdout, got.stderr)


def test_async_def_is_refused_for_a_transactional_tool() -> None:
    async def write() -> None: ...

    with pytest.raises(ConfigError, match="a transactional tool must be a plain def"):
        tool(effect="transactional")(write)

    @tool(effect="transactional")
    def allowed() -> None: ...

    assert "transactional" == allowed.spec.effect


def harmless() -> None: ...
def star(*names: str) -> None: ...
def stars(**names: str) -> None: ...
def positional(name: str, /) -> None: ...
def untyped(name) -> None: ...  # type: ignore[no-untyped-def]
def unknown(name: Unknown) -> None: ...
def no_json(name: Callable[[], int]) -> None: ...
def no_schema(name: threading.Thread) -> None: ...
def generator() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (star, r"Tool star: \*names cannot be described to a model; write each parameter out"),
        (stars, r"Tool stars: \*\*names cannot be described"),
        (positional, "Tool positional: name is positional-only"),
        (untyped, "Tool untyped: give the parameter name a type hint"),
        (unknown, r"a type hint cannot be resolved .*'Unknown'.* outside `if TYPE_CHECKING`"),
        (no_json, "Tool no_json: its type hints have no JSON form"),
        (no_schema, "Tool no_schema: its type hints have no JSON form: .*Thread"),
        (generator, "Tool generator: return the result, do not yield it"),
        (Room, "makes tools of functions, and this is a class"),
        (functools.partial(star), "makes tools of functions, and this is a partial"),
        (lambda: None, "A tool cannot be called '<lambda>'"),
    ],
)
def test_a_function_that_cannot_be_a_tool_is_refused_in_one_sentence(
    function: Callable[..., Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        tool(function)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "book room"}, "A tool cannot be called 'book room': providers take 1 to 64"),
        ({"name": "é"}, "cannot be called"),
        ({"name": "x" * 65}, "cannot be called"),
        ({"name": "__respond__"}, "heartbit uses this name itself"),
        ({"effect": "idempotant"}, r"effect is 'idempotant', but must be pure \| idempotent"),
        ({"on_doubt": "shrug"}, r"on_doubt is 'shrug', but must be tell_model \| ask_human"),
        ({"timeout_seconds": 0}, "timeout_seconds must be greater than 0"),
        ({"timeout_seconds": float("nan")}, "timeout_seconds must be greater than 0"),
    ],
)
def test_an_option_that_does_not_exist_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tool(**options)(harmless)


def test_a_method_of_an_object_is_a_tool() -> None:
    class Desk:
        name = "front"

        def ring(self, times: int) -> str:
            return f"{self.name} {times}"

    ring: FunctionTool[..., Any] = tool(Desk().ring)
    assert ["times"] == list(ring.spec.input_schema["properties"])
    assert "front 2" == call(ring, times=2).content


def test_the_type_of_the_result_may_be_known_to_type_checkers_only() -> None:
    @tool
    def give(which: Literal["a"]) -> Unknown:
        return which

    assert "a" == call(give, which="a").content


def elsewhere(source: str) -> Callable[..., Any]:
    """The function `take` of another module with this source."""
    names: dict[str, Any] = {"__name__": "elsewhere"}
    exec(f"from __future__ import annotations\n{source}", names)
    found: Callable[..., Any] = names["take"]
    return found


def test_names_of_the_decorating_code_mean_nothing_to_a_function_of_another_module() -> None:
    take = elsewhere("Size = int\ndef take(size: Size) -> None: ...")

    Size = str
    assert Size is str
    assert {"size": {"type": "integer"}} == tool(take).spec.input_schema["properties"]


def test_the_context_may_be_imported_for_type_checkers_only() -> None:
    take = elsewhere("def take(ctx: ToolContext) -> str: return ctx.agent")
    assert "writer" == call(tool(take), ToolContext(agent="writer")).content


def test_a_mutable_default_is_new_for_every_call() -> None:
    @tool
    def add(item: int, to: list[int] = []) -> list[int]:  # noqa: B006 - the trap itself
        to.append(item)
        return to

    assert ["[1]", "[2]"] == [call(add, item=1).content, call(add, item=2).content]
