"""JSON Schema: every violation is named, valid values are accepted at once, nothing is fetched."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from jsonschema.validators import validator_for

from heartbit.core.accept import quick_accept
from heartbit.core.dialects import pattern_matches
from heartbit.core.schema import (
    MAX_VIOLATION_LENGTH,
    MAX_VIOLATIONS,
    nearest,
    schema_problem,
    value_violations,
    violations,
)
from heartbit.core.tools import ToolSpec

BOOKING: dict[str, Any] = {
    "type": "object",
    "properties": {
        "day": {"type": "string", "description": "When", "minLength": 1},
        "seats": {"type": "integer", "minimum": 1, "maximum": 9},
        "price": {"type": "number", "exclusiveMinimum": 0},
        "window": {"type": "boolean", "default": False},
        "kind": {"enum": ["table", "bar", None]},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 3},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "code": {"type": "string", "pattern": "^[a-z]+$"},
        "who": {
            "type": "object",
            "properties": {"name": {"type": ["string", "null"]}},
            "required": ["name"],
        },
        "extra": {"type": "object", "additionalProperties": {"$ref": "#/$defs/point"}},
    },
    "required": ["day", "seats"],
    "additionalProperties": False,
    "$defs": {"point": {"type": "object", "properties": {"x": {"type": "number"}}}},
}
BOOKED: dict[str, Any] = {
    "day": "Monday",
    "seats": 2,
    "price": 9.5,
    "window": True,
    "kind": None,
    "tags": ["a", "b"],
    "note": None,
    "code": "abc",
    "who": {"name": "Ann", "age": 3},
    "extra": {"left": {"x": 1}, "right": {"x": 0.5}},
}


def tool(schema: Any) -> ToolSpec:
    return ToolSpec(name="book", description="", input_schema=schema, ref="python:x")


def check(schema: Any, value: Any) -> tuple[str, ...]:
    return value_violations(schema, value, {})


# Violations


def test_valid_arguments_have_no_violations() -> None:
    assert violations(tool(BOOKING), BOOKED) == ()
    assert violations(tool(BOOKING), {"day": "x", "seats": 1}) == ()


def test_every_violation_is_named_with_its_path() -> None:
    wrong = {"seats": "two", "who": {"name": 3}, "tags": ["a", 1], "colour": "red"}
    assert sorted(violations(tool(BOOKING), wrong)) == [
        "$.seats: 'two' is not of type 'integer'",
        "$.tags[1]: 1 is not of type 'string'",
        "$.who.name: 3 is not of type 'string', 'null'",
        "$: 'day' is a required property",
        "$: Additional properties are not allowed ('colour' was unexpected)",
    ]


def test_a_value_that_fits_no_alternative_is_told_why() -> None:
    (found,) = violations(tool(BOOKING), {"day": "x", "seats": 1, "note": 3})
    assert found == (
        "$.note: 3 is not valid under any of the given schemas "
        "($.note: 3 is not of type 'string'; $.note: 3 is not of type 'null')"
    )


@pytest.mark.parametrize("seats", [1, 9, 2.0])
def test_an_integer_is_a_number_without_a_fraction(seats: float) -> None:
    assert violations(tool(BOOKING), {"day": "x", "seats": seats}) == ()


@pytest.mark.parametrize("seats", [True, 1.5, "1", None, 0, 10])
def test_other_values_are_not_integers_in_range(seats: object) -> None:
    assert len(violations(tool(BOOKING), {"day": "x", "seats": seats})) == 1


def test_true_is_not_one_and_one_is_not_true() -> None:
    assert check({"enum": [1]}, True) == ("$: True is not one of [1]",)
    assert check({"const": True}, 1) == ("$: True was expected",)
    assert check({"enum": [1]}, 1.0) == ()


def test_the_number_and_the_length_of_violations_are_bounded() -> None:
    schema = {"type": "array", "items": {"type": "integer"}}
    found = check(schema, ["x" * 10_000] * 1_000)
    assert len(found) == MAX_VIOLATIONS + 1
    assert found[-1] == "and more"
    assert all(len(each) <= MAX_VIOLATION_LENGTH for each in found)
    assert found[0].startswith("$[0]: 'xxx")
    assert found[0].endswith("is not of type 'integer'")


def test_violations_come_in_the_order_of_the_arguments_in_every_process() -> None:
    names = [f"name{n}" for n in range(8)]
    schema = {"type": "object", "additionalProperties": {"type": "integer"}}
    found = check(schema, dict.fromkeys(names, "x"))
    assert found == tuple(f"$.{name}: 'x' is not of type 'integer'" for name in names)
    (refused,) = check({"additionalProperties": False}, dict.fromkeys(reversed(names), 1))
    assert refused.index("name7") < refused.index("name0")


def test_a_schema_is_compiled_once() -> None:
    spec = tool({"type": "object", "required": ["a"]})
    violations(spec, {})
    compiled = dict(spec.memo)
    violations(spec, {})
    assert compiled
    assert all(spec.memo[key] is value for key, value in compiled.items())


def test_arguments_nested_beyond_reason_are_refused_and_nothing_crashes() -> None:
    schema = {"additionalProperties": {"$ref": "#"}}
    value: dict[str, Any] = {}
    for _ in range(2_000):
        value = {"in": value}
    assert check(schema, value) == ("$: is nested too deeply to be checked",)


def test_a_number_the_checker_cannot_take_is_a_violation() -> None:
    (found,) = check({"multipleOf": 0.5}, 10**400)
    assert found.startswith("$: cannot be checked against the schema")


def test_the_dialect_of_the_schema_counts() -> None:
    draft4 = {"$schema": "http://json-schema.org/draft-04/schema#", "type": "integer"}
    assert check(draft4, 1.0) == ("$: 1.0 is not of type 'integer'",)
    unknown = {"$schema": "urn:nobody:knows", "type": "integer"}
    assert check(unknown, 1.0) == ()


# Broken schemas

BROKEN = [
    {"type": "strin"},
    {"type": "object", "properties": 3},
    {"required": "name"},
    {"$ref": "#/nowhere"},
    {"properties": {"a": {"$ref": "#/$defs/gone"}}},
    {"$ref": "#"},
    {"anyOf": [{"$ref": "#/anyOf/0"}]},
    {"$schema": []},
    True,
    None,
    [],
]


@pytest.mark.parametrize("schema", BROKEN, ids=str)
def test_a_broken_schema_is_reported_once_and_never_held_against_a_call(schema: Any) -> None:
    assert isinstance(schema_problem(schema), str)
    assert check(schema, {"a": 1}) == ()


@pytest.mark.parametrize("schema", [BOOKING, {}, {"pattern": "(?=a)b"}, {"$schema": "urn:x"}])
def test_a_sound_schema_has_no_problem(schema: Any) -> None:
    assert schema_problem(schema) is None


def test_a_pattern_that_is_no_regular_expression_is_a_problem_and_goes_unchecked() -> None:
    schema = {"properties": {"a": {"type": "string", "pattern": "("}, "b": {"type": "integer"}}}
    assert schema_problem(schema) == "the pattern '(' is no regular expression"
    assert check(schema, {"a": "x", "b": "y"}) == ("$.b: 'y' is not of type 'integer'",)


def test_data_within_a_schema_is_not_read_as_schema() -> None:
    assert schema_problem({"default": {"$ref": "#/gone"}, "enum": [{"pattern": "("}]}) is None


def test_a_remote_reference_is_never_fetched() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        schema = {"$ref": f"http://127.0.0.1:{server.getsockname()[1]}/schema.json"}
        assert schema_problem(schema) is not None
        assert check(schema, {"a": 1}) == ()
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


# Patterns

HOSTILE = ["^(a+)+$", "^(a|a)*$", "(.*a){25}", "^(a|aa)+$", "a*a*a*a*a*b$"]


@pytest.mark.parametrize("pattern", HOSTILE)
def test_a_hostile_pattern_costs_no_more_than_any_other(pattern: str) -> None:
    text = "a" * 5_000 + "!"
    schemas: list[dict[str, Any]] = [
        {"type": "string", "pattern": pattern},
        {"properties": {"x": {"pattern": pattern}}},
        {"propertyNames": {"pattern": pattern}},
        {"patternProperties": {pattern: {"type": "null"}}, "additionalProperties": False},
        {"patternProperties": {pattern: {"type": "null"}}, "unevaluatedProperties": False},
    ]
    started = time.process_time()
    for schema in schemas:
        check(schema, text)
        check(schema, {"x": text, text: 1})
    assert time.process_time() - started < 5


def test_a_pattern_is_searched_for_and_not_anchored() -> None:
    assert check({"pattern": "b+"}, "abba") == ()
    assert check({"pattern": "^b"}, "abba") == ("$: 'abba' does not match '^b'",)
    assert check({"pattern": "a$"}, "a\n") == ("$: 'a\\n' does not match 'a$'",)
    assert check({"pattern": "a"}, 3) == ()


def test_a_pattern_that_needs_backtracking_is_not_checked() -> None:
    assert pattern_matches("(?=a)b", "x") is None
    assert check({"pattern": "(?=a)b"}, "x") == ()
    unknown = {"patternProperties": {"(?=a)": {"type": "null"}}, "additionalProperties": False}
    assert check(unknown, {"b": 1}) == ()


def test_lone_surrogates_can_be_matched() -> None:
    assert check({"pattern": "^a"}, "a\ud800") == ()
    assert len(check({"pattern": "^a"}, "\ud800")) == 1


def test_pattern_properties_are_checked_and_are_not_additional() -> None:
    schema = {
        "properties": {"n": True},
        "patternProperties": {"^x-": {"type": "string"}},
        "additionalProperties": False,
    }
    assert check(schema, {"n": 1, "x-a": "b"}) == ()
    assert check(schema, {"x-a": 1, "y": 2}) == (
        "$['x-a']: 1 is not of type 'string'",
        "$: Additional properties are not allowed ('y' was unexpected)",
    )


def test_unevaluated_properties_are_refused_where_no_patterns_are() -> None:
    schema = {"properties": {"a": True}, "unevaluatedProperties": False}
    assert check(schema, {"a": 1}) == ()
    assert len(check(schema, {"b": 1})) == 1


# The quick yes


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (BOOKING, BOOKED),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "type": "null"}, None),
        ({"allOf": [{"type": "object"}, {"type": "object", "required": ["a"]}]}, {"a": 1}),
        ({"type": "array", "minItems": 1}, [{}]),
        ({"const": "a"}, "a"),
        ({"type": "string", "maxLength": 3, "title": "T", "examples": ["x"]}, "abc"),
        ({"type": "object", "additionalProperties": {"type": "number"}}, {"a": 1.5}),
        ({"$ref": "#/definitions/a", "definitions": {"a": {"type": "integer"}}}, 3),
        ({}, {"anything": [1]}),
    ],
    ids=str,
)
def test_common_schemas_are_accepted_without_the_slow_checker(schema: Any, value: Any) -> None:
    assert quick_accept(schema)(value) is True


@pytest.mark.parametrize(
    "change",
    [
        {"day": ""},
        {"day": None},
        {"seats": True},
        {"seats": 1.0},
        {"seats": 0},
        {"seats": 10},
        {"price": 0},
        {"price": "1"},
        {"window": 1},
        {"kind": "roof"},
        {"kind": 1},
        {"tags": ["a"] * 4},
        {"tags": ["a", None]},
        {"tags": {}},
        {"note": 1},
        {"code": "ABC"},
        {"who": {}},
        {"who": {"name": 1}},
        {"extra": {"left": {"x": "1"}}},
        {"extra": []},
        {"colour": "red"},
    ],
    ids=str,
)
def test_a_value_that_is_not_certainly_valid_is_not_accepted_quickly(change: Any) -> None:
    assert quick_accept(BOOKING)({**BOOKED, **change}) is False


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "object", "required": ["a", "b"]}, {"a": 1}),
        ({"allOf": [{"type": "object"}, {"type": "object", "required": ["a"]}]}, {"b": 1}),
        ({"allOf": [{"type": "object", "required": ["a"]}, {"type": "object"}]}, {"b": 1}),
        ({"type": "array", "minItems": 1}, []),
        ({"type": "number", "maximum": 1}, 1.5),
        ({"type": "integer", "exclusiveMaximum": 1}, 1),
        ({"type": "string", "const": "a"}, "b"),
        ({"type": "array", "items": False}, [1]),
    ],
    ids=str,
)
def test_every_keyword_of_the_quick_check_counts(schema: Any, value: Any) -> None:
    assert quick_accept(schema)(value) is False


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "minProperties": 1},
        {"oneOf": [{"type": "object"}]},
        {"$schema": "http://json-schema.org/draft-04/schema#"},
        {"$ref": "#"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
        {"$ref": "#/$defs/a", "required": ["b"], "$defs": {"a": {}}},
        {"type": "object", "x-unknown": 1},
        {"$id": "urn:x", "type": "object"},
        {"enum": [{}]},
        False,
        None,
    ],
    ids=str,
)
def test_a_schema_beyond_the_quick_check_is_left_to_the_slow_one(schema: Any) -> None:
    assert quick_accept(schema)({}) is False


scalars = st.sampled_from([None, True, False, 0, 1, 1.0, -1, 2.5, 10**30, "", "a", "bb", "A1"])
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYWORDS: dict[str, list[str]] = {
    "object": ["required", "minProperties"],
    "array": ["minItems", "maxItems", "uniqueItems"],
    "string": ["minLength", "maxLength", "pattern"],
    "number": ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"],
    "integer": ["minimum", "exclusiveMaximum", "multipleOf"],
    "boolean": [],
    "null": [],
}
SETTINGS: dict[str, list[Any]] = {
    "required": [[], ["a"], ["b", "c"]],
    "uniqueItems": [True, False],
    "pattern": ["a", "b", "A"],
    "multipleOf": [1, 0.5],
}
LIMITS = [0, 1, 2, 3]
names = st.sampled_from(sorted(KEYWORDS))


@st.composite
def schemas(draw: st.DrawFn, depth: int = 2) -> Any:
    """A schema of the kinds that tools have, and a few of the kinds they rarely have."""
    shapes = ["type", "type", "types", "enum", "const", "ref", "any", "title"]
    shape = draw(st.sampled_from([*shapes, *["of", "object"] * 2, "array"]))
    inner = schemas(depth - 1) if depth else st.booleans()
    if shape == "type":
        return draw_typed(draw)
    if shape == "types":
        return {"type": draw(st.lists(names, min_size=1, max_size=2, unique=True))}
    if shape == "enum":
        return {"enum": draw(st.lists(scalars, min_size=1, max_size=3))}
    if shape == "ref":
        return {"$ref": "#/$defs/d", **draw(st.sampled_from([{}, {"type": "string"}]))}
    if shape == "of":
        keyword = draw(st.sampled_from(["anyOf", "allOf", "oneOf"]))
        return {keyword: draw(st.lists(inner, min_size=1, max_size=2))}
    if shape == "array":
        return {**draw_typed(draw, "array"), "items": draw(inner)}
    if shape == "object":
        members = draw(st.dictionaries(st.sampled_from("abc"), inner, max_size=2))
        more = draw(st.sampled_from([{}, {"additionalProperties": draw(inner)}]))
        return {**draw_typed(draw, "object"), "properties": members, **more}
    return {"const": draw(scalars)} if shape == "const" else {"title": "T"}


def draw_typed(draw: st.DrawFn, name: str | None = None) -> dict[str, Any]:
    name = name or draw(names)
    keywords = draw(st.sets(st.sampled_from(KEYWORDS[name]), max_size=2)) if KEYWORDS[name] else ()
    given = {key: draw(st.sampled_from(SETTINGS.get(key, LIMITS))) for key in sorted(keywords)}
    return {"type": name, **given}


dialects = st.sampled_from(
    [
        None,
        "https://json-schema.org/draft/2020-12/schema",
        "https://json-schema.org/draft/2019-09/schema",
        "http://json-schema.org/draft-07/schema#",
        "http://json-schema.org/draft-06/schema#",
        "http://json-schema.org/draft-04/schema#",
    ]
)


definitions = st.sampled_from([True, {"type": "string"}, {"type": "object", "required": ["a"]}])


def in_dialect(schema: Any, definition: Any, dialect: str | None) -> Any:
    root = {**schema, "$defs": {"d": definition}} if isinstance(schema, dict) else schema
    return {**root, "$schema": dialect} if dialect and isinstance(root, dict) else root


@settings(max_examples=400)
@given(schemas(), definitions, dialects, values)
def test_the_quick_check_never_accepts_what_jsonschema_refuses(
    schema: Any, definition: Any, dialect: str | None, value: Any
) -> None:
    root = in_dialect(schema, definition, dialect)
    if quick_accept(root)(value):
        judge = validator_for(root, default=Draft202012Validator)
        judge.check_schema(root)
        assert judge(root).is_valid(value)


@settings(max_examples=100)
@given(schemas(), definitions, values)
def test_the_verdict_is_that_of_jsonschema(schema: Any, definition: Any, value: Any) -> None:
    root = in_dialect(schema, definition, None)
    if isinstance(root, dict) and schema_problem(root) is None:
        assert (check(root, value) == ()) is Draft202012Validator(root).is_valid(value)


json_like = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=9), inner)
)
keyword_names = st.sampled_from(sorted(Draft202012Validator.VALIDATORS))
wild = st.dictionaries(keyword_names | st.just("$schema"), json_like, max_size=4)


@settings(max_examples=100)
@given(wild, values)
def test_no_schema_however_broken_makes_the_checks_fail(schema: Any, value: Any) -> None:
    problem = schema_problem(schema)
    assert problem is None or "\n" not in problem or len(problem) <= MAX_VIOLATION_LENGTH
    assert all(isinstance(found, str) for found in check(schema, value))


# Did you mean


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bosh", "bash"),
        ("Web_Search", "web_search"),
        ("web_serch", "web_search"),
        ("zzz", None),
        ("", None),
    ],
)
def test_the_nearest_name_is_suggested_if_it_is_near(name: str, expected: str | None) -> None:
    assert nearest(name, ["read", "bash", "web_search"]) == expected


def test_the_suggestion_does_not_depend_on_the_order_of_the_candidates() -> None:
    assert nearest("reax", ["read", "real"]) == nearest("reax", ["real", "read"])


def test_an_endless_name_is_no_work() -> None:
    assert nearest("bash" * 1_000_000, ["bash"]) is None
    assert nearest("x", []) is None
