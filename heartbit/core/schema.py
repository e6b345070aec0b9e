"""Whether a value is valid for a JSON Schema, and if not, every reason with its place.

Most values are valid and most schemas simple: those are accepted by compiled closures in
microseconds. Everything else goes to jsonschema. Nothing is ever fetched, and a schema that is
itself broken is not held against the value.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from itertools import islice
from typing import Any

from jsonschema import SchemaError, ValidationError
from jsonschema.protocols import Validator
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012, EMPTY_REGISTRY

from heartbit.core.accept import quick_accept
from heartbit.core.dialects import check_schema, keywords, pattern_matches, validator
from heartbit.core.messages import Json
from heartbit.core.tools import ToolSpec

MAX_VIOLATIONS = 10
MAX_VIOLATION_LENGTH = 300
MAX_REASONS = 5


def violations(spec: ToolSpec, arguments: Json) -> tuple[str, ...]:
    """What is wrong with the arguments of a call, each as `$.path: reason`; () if they are valid.

    At most ten violations, long ones shortened in the middle. A tool whose schema is broken
    accepts everything: `schema_problem` tells its author when the tool is defined.
    """
    return value_violations(spec.input_schema, arguments, spec.memo)


def value_violations(schema: Any, value: Any, memo: dict[str, Any]) -> tuple[str, ...]:
    """What is wrong with any value; `memo` belongs to the schema and keeps what it compiles to."""
    if "accept" not in memo:
        memo["accept"] = quick_accept(schema)
    if memo["accept"](value):
        return ()
    if "validator" not in memo:
        memo["validator"] = None if _structure_problem(schema) else validator(schema)
    return _refusal(memo["validator"], value) if memo["validator"] else ()


def schema_problem(schema: Any) -> str | None:
    """Why the schema is broken, in one line; None if it is sound."""
    problem = _structure_problem(schema)
    if problem:
        return problem
    found = list(keywords(schema))
    if problem := _reference_problem(schema, found) or _pattern_problem(found):
        return problem
    return "the schema refers to itself without end" if _is_endless(validator(schema)) else None


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate that `name` was probably meant to be, for a "did you mean"; never to be run."""
    by_folded = {candidate.casefold(): candidate for candidate in candidates}
    close = difflib.get_close_matches(name.casefold(), by_folded, n=1)
    return by_folded[close[0]] if close else None


def _refusal(validator: Validator, value: Any) -> tuple[str, ...]:
    try:
        errors = list(islice(validator.iter_errors(value), MAX_VIOLATIONS + 1))
    except Unresolvable:
        return ()
    except RecursionError:
        return () if _is_endless(validator) else ("$: is nested too deeply to be checked",)
    except Exception as error:
        # Numbers beyond a float, for one: what cannot be checked is not run, and the model is told.
        return (_shortened(f"$: cannot be checked against the schema: {error}"),)
    found = [_shortened(_described(error)) for error in errors[:MAX_VIOLATIONS]]
    more = ("and more",) if len(errors) > MAX_VIOLATIONS else ()
    return (*found, *more)


def _is_endless(validator: Validator) -> bool:
    """Whether the schema refers to itself without looking at anything smaller."""
    try:
        validator.is_valid(None)
    except RecursionError:
        return True
    except Unresolvable:
        return False
    return False


def _described(error: ValidationError | SchemaError) -> str:
    inner = islice(error.context or (), MAX_REASONS)
    reasons = "; ".join(f"{each.json_path}: {each.message}" for each in inner)
    return f"{error.json_path}: {error.message}" + (f" ({reasons})" if reasons else "")


def _shortened(text: str) -> str:
    if len(text) <= MAX_VIOLATION_LENGTH:
        return text
    half = (MAX_VIOLATION_LENGTH - 5) // 2
    return f"{text[:half]} ... {text[-half:]}"


def _structure_problem(schema: Any) -> str | None:
    if not isinstance(schema, dict):
        return "the schema is not an object"
    try:
        check_schema(schema)
    except SchemaError as error:
        return _shortened(_described(error))
    except Exception as error:
        return _shortened(f"the schema cannot be read: {error!r}")
    return None


def _reference_problem(schema: Any, found: list[tuple[str, Any]]) -> str | None:
    if any(keyword == "$id" for keyword, _ in found):
        return None  # references are relative to it; the validator meets them when they matter
    resolver = EMPTY_REGISTRY.resolver_with_root(DRAFT202012.create_resource(schema))
    for reference in (value for keyword, value in found if keyword == "$ref"):
        if isinstance(reference, str):
            try:
                resolver.lookup(reference)
            except Exception:
                return f"the reference {reference!r} leads nowhere"
    return None


def _pattern_problem(found: list[tuple[str, Any]]) -> str | None:
    patterns = (value for keyword, value in found if keyword == "pattern")
    broken = (value for value in patterns if isinstance(value, str) and not _is_regex(value))
    return next((f"the pattern {pattern!r} is no regular expression" for pattern in broken), None)


def _is_regex(pattern: str) -> bool:
    if pattern_matches(pattern, "") is not None:
        return True
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True
