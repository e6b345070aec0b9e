"""JSON Schema validators that fetch nothing and cannot be made slow by a regular expression.

Schemas come from tool servers and texts from models, so a `pattern` is matched in linear time by
an engine without backtracking. Patterns it does not know (look-around, back-references) are not
checked: whoever wrote the schema still can.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, cast

from jsonschema import Draft202012Validator, FormatChecker, ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend, validator_for
from pydantic_core import SchemaError, SchemaValidator, core_schema
from referencing.jsonschema import EMPTY_REGISTRY

_DATA = frozenset({"const", "default", "enum", "examples"})
_NO_FORMATS = FormatChecker(formats=())


def check_schema(schema: Any) -> None:
    """Raise jsonschema's SchemaError if the schema is not one of its dialect."""
    dialect: Any = validator_for(schema, default=Draft202012Validator)
    # Without formats: they would refuse every pattern that is not one of Python's.
    dialect.check_schema(schema, format_checker=_NO_FORMATS)


def validator(schema: Any) -> Validator:
    """The validator for a schema of any dialect, 2020-12 where it names none."""
    dialect = validator_for(schema, default=Draft202012Validator)
    has_patterns = any(name == "patternProperties" for name, _ in keywords(schema))
    return _linear(dialect, has_patterns)(schema, registry=EMPTY_REGISTRY)


def keywords(schema: Any) -> Iterator[tuple[str, Any]]:
    """Every name in the schema at any depth with its value; values that are data are not entered.

    Names of properties are among them: nothing tells them from keywords without knowing the
    dialect.
    """
    open_values = [schema]
    while open_values:
        value = open_values.pop()
        if isinstance(value, list):
            open_values.extend(value)
        elif isinstance(value, dict):
            yield from value.items()
            open_values.extend(value[name] for name in value if name not in _DATA)


def pattern_matches(pattern: str, text: str) -> bool | None:
    """Whether the pattern is found in the text; None if it cannot be told in linear time."""
    matcher = _matcher(pattern)
    if matcher is None:
        return None
    return matcher.isinstance_python(text.encode("utf-8", "replace").decode())


@lru_cache(maxsize=256)
def _matcher(pattern: str) -> SchemaValidator | None:
    try:
        return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
    except (SchemaError, UnicodeError):
        return None


@lru_cache(maxsize=16)
def _linear(dialect: type[Validator], has_patterns: bool) -> type[Validator]:
    ours: dict[str, Any] = {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
    }
    if has_patterns and "unevaluatedProperties" in dialect.VALIDATORS:
        ours["unevaluatedProperties"] = _unchecked
    return cast("type[Validator]", extend(dialect, ours))  # type: ignore[no-untyped-call]


def _pattern(validator: Any, pattern: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and pattern_matches(pattern, instance) is False:
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(
    validator: Any, patterns: Any, instance: Any, schema: Any
) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    for pattern, subschema in patterns.items():
        for name, value in instance.items():
            if pattern_matches(pattern, name):
                yield from validator.descend(value, subschema, path=name, schema_path=pattern)


def _additional_properties(
    validator: Any, subschema: Any, instance: Any, schema: Any
) -> Iterator[ValidationError]:
    """In the order of the instance: jsonschema's own goes by a set, another order per process."""
    if not isinstance(instance, dict):
        return
    extras = [name for name in instance if _is_extra(name, schema)]
    if isinstance(subschema, dict):
        for name in extras:
            yield from validator.descend(instance[name], subschema, path=name)
    elif subschema is False and extras:
        names = ", ".join(map(repr, extras))
        verb = "was" if len(extras) == 1 else "were"
        yield ValidationError(f"Additional properties are not allowed ({names} {verb} unexpected)")


def _is_extra(name: str, schema: Any) -> bool:
    if name in schema.get("properties", {}):
        return False
    patterns = schema.get("patternProperties", {})
    return all(pattern_matches(pattern, name) is False for pattern in patterns)


def _unchecked(
    validator: Any, subschema: Any, instance: Any, schema: Any
) -> Iterator[ValidationError]:
    """Beside patternProperties: jsonschema would match those with its own, backtracking engine."""
    return iter(())
