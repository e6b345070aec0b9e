"""The JSON Schema of a function's arguments, its descriptions, and that it keeps its word."""

from __future__ import annotations

import enum
import inspect
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field

from heartbit.core.messages import Json
from heartbit.core.schema import schema_problem
from heartbit.errors import ToolError
from heartbit.tools.arguments import Arguments
from heartbit.tools.base import ToolContext
from heartbit.tools.function import tool


class Size(enum.Enum):
    SMALL = "s"
    LARGE = "l"


@dataclass
class Point:
    x: int
    y: int = 0


class Person(BaseModel):
    name: str
    born: date | None = None


def schema_of(function: Callable[..., Any]) -> Json:
    return tool(function).spec.input_schema


def property_of(hint: Any) -> Json:
    def take(value: Any) -> None: ...

    take.__annotations__ = {"value": hint}
    found: Json = schema_of(take)["properties"]["value"]
    return found


def test_required_optional_and_default_are_told_apart_and_nothing_else_is_allowed() -> None:
    def take(
        needed: int, nullable: str | None, optional: str | None = None, n: int = 3
    ) -> None: ...

    null_or_text = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    expected = {
        "type": "object",
        "properties": {
            "needed": {"type": "integer"},
            "nullable": null_or_text,
            "optional": {**null_or_text, "default": None},
            "n": {"type": "integer", "default": 3},
        },
        "required": ["needed", "nullable"],
        "additionalProperties": False,
    }
    assert expected == schema_of(take)


def test_a_function_without_parameters_takes_an_empty_object() -> None:
    def take() -> None: ...

    expected = {"type": "object", "properties": {}, "additionalProperties": False}
    assert expected == schema_of(take)


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (str, {"type": "string"}),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (date, {"type": "string", "format": "date"}),
        (datetime, {"type": "string", "format": "date-time"}),
        (UUID, {"type": "string", "format": "uuid"}),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (Any, {}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (
            dict[str, list[bool]],
            {
                "type": "object",
                "additionalProperties": {"type": "array", "items": {"type": "boolean"}},
            },
        ),
        (Annotated[int, Field(ge=1)], {"type": "integer", "minimum": 1}),
    ],
)
def test_hints_become_json_schema(hint: Any, expected: Json) -> None:
    assert expected == property_of(hint)


def test_enums_dataclasses_and_models_are_described_once() -> None:
    def take(size: Size, at: Point, to: list[Point], who: Person, price: Decimal) -> None: ...

    schema = schema_of(take)
    assert ["Person", "Point", "Size"] == sorted(schema["$defs"])
    assert ["s", "l"] == schema["$defs"]["Size"]["enum"]
    assert {"$ref": "#/$defs/Point"} == schema["properties"]["to"]["items"]
    assert schema_problem(schema) is None


def test_parameters_may_be_called_like_anything() -> None:
    def take(schema: int, model_config: int, json: int, arguments: int, cls: int) -> None: ...

    assert ["schema", "model_config", "json", "arguments", "cls"] == list(
        schema_of(take)["properties"]
    )


def test_a_default_without_a_json_form_is_left_out() -> None:
    missing = object()

    def take(value: int = missing) -> None: ...  # type: ignore[assignment]

    assert {"value": {"type": "integer"}} == schema_of(take)["properties"]


def test_types_that_are_local_to_the_decorating_function_are_found() -> None:
    @dataclass
    class Local:
        number: int

    @tool(effect="pure")
    def called_with_options(local: Local) -> None: ...

    @tool
    def bare(local: Local) -> None: ...

    for found in (called_with_options, bare):
        assert ["Local"] == list(found.spec.input_schema["$defs"])


GOOGLE = """Book a room.

    It is booked at once.

    Args:
        day: When,
            in the room's time zone.
        seats (int): How many.
        nobody: Not a parameter.

    Returns:
        The booking's number.

    Raises:
        ValueError: On Sundays.

    Note:
        Sundays are closed.
    """
NUMPY = """Book a room.

    It is booked at once.

    Parameters
    ----------
    day : date
        When,
        in the room's time zone.
    seats
        How many.

    Returns
    -------
    str
        The booking's number.
    """
SPHINX = """Book a room.

    It is booked at once.

    :param day: When,
        in the room's time zone.
    :param int seats: How many.
    :returns: The booking's number.
    """


@pytest.mark.parametrize("docstring", [GOOGLE, NUMPY, SPHINX], ids=["google", "numpy", "sphinx"])
def test_descriptions_come_from_the_docstring_in_any_usual_style(docstring: str) -> None:
    def book(day: date, seats: int, notes: str = "") -> None: ...

    book.__doc__ = docstring
    spec = tool(book).spec
    assert spec.description.startswith("Book a room.\n\nIt is booked at once.\n\nReturns: The book")
    assert "Args" not in spec.description
    assert ":param" not in spec.description
    described = {
        name: " ".join(each["description"].split())
        for name, each in spec.input_schema["properties"].items()
        if "description" in each
    }
    assert {"day": "When, in the room's time zone.", "seats": "How many."} == described


def test_what_a_model_should_mind_stays_in_the_description() -> None:
    def book(day: date) -> None: ...

    book.__doc__ = GOOGLE
    assert tool(book).spec.description.endswith("Note: Sundays are closed.")


def test_the_description_of_the_hint_wins_over_the_docstring() -> None:
    def book(seats: Annotated[int, Field(description="From the hint.")]) -> None:
        """Book.

        Args:
            seats: From the docstring.
        """

    assert "From the hint." == schema_of(book)["properties"]["seats"]["description"]


@given(docstring=st.text(alphabet="Args:\n -xReturnsYields.param`*\t", max_size=200))
def test_any_docstring_makes_a_description(docstring: str) -> None:
    def take(x: int) -> None: ...

    take.__doc__ = docstring
    assert isinstance(tool(take).spec.description, str)


def test_the_docstring_parser_complains_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def book(day: date) -> None: ...

    book.__doc__ = GOOGLE
    with caplog.at_level(logging.DEBUG):
        tool(book)
    assert [] == caplog.records


def test_the_docstring_parser_is_imported_only_for_docstrings_with_sections() -> None:
    program = (
        "import sys; from heartbit.tools.function import tool\n"
        "def add(a: int) -> int:\n    'Add.'\ntool(add); print('griffe' in sys.modules)\n"
        "add.__doc__ = 'Add.\\n\\nArgs:\\n    a: One.'\ntool(add); print('griffe' in sys.modules)"
    )
    got = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "False\nTrue\n" == got.stdout


# Values of the right kind for each hint, and of kinds that are wrong for all scalars. A text for a
# number is left out on purpose: the schema refuses it, and the conversion alone would not.
KINDS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers() | st.integers(-99, 99).map(float)),
    (float, st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)),
    (str, st.text(st.characters(exclude_categories=["Cs"]))),
    (bool, st.booleans()),
    (date, st.dates().map(str)),
    (UUID, st.uuids().map(str)),
    (Literal["a", "b"], st.sampled_from(["a", "b"])),
    (Size, st.sampled_from(["s", "l"])),
    (Any, st.none() | st.integers()),
    (Point, st.fixed_dictionaries({"x": st.integers(0, 9)}, optional={"y": st.integers(0, 9)})),
    (
        Person,
        st.fixed_dictionaries({"name": st.just("Ada")}, optional={"born": st.just("1815-12-10")}),
    ),
]
FOREIGN = st.sampled_from([None, [], {}, {"q": [None]}, [[]], [{}], [None]])


@st.composite
def hints_with_values(draw: st.DrawFn) -> tuple[Any, st.SearchStrategy[Any]]:
    """A type hint, and JSON values of which most fit it."""
    hint, values = draw(st.sampled_from(KINDS))
    wrap = draw(st.sampled_from(["plain", "optional", "list", "dict"]))
    if wrap == "optional":
        return hint | None if hint is not Any else Any, values | st.none() | FOREIGN
    if wrap == "list":
        return list[hint], st.lists(values | FOREIGN, max_size=3) | FOREIGN
    if wrap == "dict":
        return dict[str, hint], st.dictionaries(st.text("kq"), values | FOREIGN) | FOREIGN
    return hint, values | FOREIGN


def function_of(hints: list[Any], defaults: int) -> Callable[..., Json]:
    """A function with these hints; the last `defaults` parameters have one."""

    def take(**arguments: Any) -> Json:
        return arguments

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    first_default = len(hints) - defaults
    take.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                f"p{at}",
                kind,
                annotation=hint,
                default=None if at >= first_default else inspect.Parameter.empty,
            )
            for at, hint in enumerate(hints)
        ]
    )
    return take


@given(data=st.data(), kinds=st.lists(hints_with_values(), max_size=4))
def test_the_schema_accepts_exactly_what_the_call_accepts(data: st.DataObject, kinds: Any) -> None:
    defaults = data.draw(st.integers(0, len(kinds)))
    subject = Arguments(
        function_of([hint for hint, _ in kinds], defaults), descriptions={}, namespace={}
    )
    given_names = data.draw(st.lists(st.sampled_from([f"p{at}" for at in range(5)]), unique=True))
    arguments = {
        name: data.draw(kinds[int(name[1])][1] if int(name[1]) < len(kinds) else FOREIGN)
        for name in given_names
    }
    valid = Draft202012Validator(subject.schema).is_valid(arguments)
    assert valid == is_converted(subject, arguments), subject.schema


def is_converted(subject: Arguments, arguments: Json) -> bool:
    try:
        subject.convert(arguments, ToolContext())
    except ToolError:
        return False
    return True


def test_every_schema_is_json() -> None:
    origin = Point(1)

    def take(day: date = date(2031, 1, 2), size: Size = Size.SMALL, at: Point = origin) -> None: ...

    schema = schema_of(take)
    assert schema == json.loads(json.dumps(schema))
    assert ["2031-01-02", "s", {"x": 1, "y": 0}] == [
        each["default"] for each in schema["properties"].values()
    ]
