"""A quick yes: closures that accept a value only if it is certainly valid for a JSON Schema.

A no means "not certain": the real validator decides and finds the words. The closures know the
keywords most tools use; a schema with any other keyword gets no closure at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from heartbit.core.dialects import pattern_matches

Check = Callable[[Any], bool]
_ANNOTATIONS = frozenset(
    {
        "$comment",
        "$defs",
        "default",
        "definitions",
        "deprecated",
        "description",
        "examples",
        "format",
        "readOnly",
        "title",
        "writeOnly",
    }
)
_DIALECTS = (
    "https://json-schema.org/draft/2020-12/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "http://json-schema.org/draft-07/schema",
    "http://json-schema.org/draft-06/schema",
)
_REFERENCES = ("#/$defs/", "#/definitions/")


class _Uncertain(Exception):
    """The schema says something the closures do not know."""


def quick_accept(schema: Any) -> Check:
    """A check that is true only for valid values: always false if the schema is beyond it."""
    try:
        return _Compiler(schema).root()
    except (_Uncertain, RecursionError):
        return _never


def _never(value: Any) -> bool:
    return False


def _always(value: Any) -> bool:
    return True


class _Compiler:
    """Turns one schema into closures; remembers its definitions, which may be used repeatedly."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self._definitions: dict[str, Check | None] = {}

    def root(self) -> Check:
        schema = self._schema
        if isinstance(schema, dict) and "$schema" in schema:
            _require(str(schema["$schema"]).rstrip("#") in _DIALECTS)
            schema = {key: value for key, value in schema.items() if key != "$schema"}
        return self.compile(schema)

    def compile(self, schema: Any) -> Check:
        if schema is True:
            return _always
        _require(isinstance(schema, dict))
        keywords = {key: schema[key] for key in schema if key not in _ANNOTATIONS}
        checks = [
            build(self, keywords) for keyword, build in _BUILDERS.items() if keyword in keywords
        ]
        _require(not keywords)
        return _all(checks)

    def reference(self, keywords: dict[str, Any]) -> Check:
        reference = keywords.pop("$ref")
        # Neighbours of a reference count in some dialects and not in others.
        _require(not keywords and isinstance(reference, str))
        if reference not in self._definitions:
            self._definitions[reference] = None
            self._definitions[reference] = self.compile(self._definition(reference))
        check = self._definitions[reference]
        if check is None:
            raise _Uncertain
        return check

    def _definition(self, reference: str) -> Any:
        prefix = next((p for p in _REFERENCES if reference.startswith(p)), None)
        if prefix is None:
            raise _Uncertain
        section = self._schema.get(prefix.strip("#/"))
        name = reference.removeprefix(prefix)
        _require(isinstance(section, dict) and name in section and not set(name) & set("/~%"))
        return section[name]

    def enum(self, keywords: dict[str, Any]) -> Check:
        return _one_of(keywords.pop("enum"))

    def const(self, keywords: dict[str, Any]) -> Check:
        return _one_of([keywords.pop("const")])

    def any_of(self, keywords: dict[str, Any]) -> Check:
        checks = self._several(keywords.pop("anyOf"))
        return lambda value: any(check(value) for check in checks)

    def all_of(self, keywords: dict[str, Any]) -> Check:
        return _all(self._several(keywords.pop("allOf")))

    def _several(self, schemas: Any) -> list[Check]:
        _require(isinstance(schemas, list) and bool(schemas))
        return [self.compile(schema) for schema in schemas]

    def type(self, keywords: dict[str, Any]) -> Check:
        name = keywords.pop("type")
        if not isinstance(name, list):
            return self._typed(name, keywords)
        checks = [self._typed(each, {}) for each in name]
        return lambda value: any(check(value) for check in checks)

    def _typed(self, name: Any, keywords: dict[str, Any]) -> Check:
        if name == "object":
            return self._object(keywords)
        if name == "array":
            return self._array(keywords)
        if name == "string":
            return _string(keywords)
        if name in ("integer", "number"):
            return _number((int,) if name == "integer" else (int, float), keywords)
        if name == "boolean":
            return lambda value: value is True or value is False
        _require(name == "null")
        return lambda value: value is None

    def _object(self, keywords: dict[str, Any]) -> Check:
        required = keywords.pop("required", [])
        properties = keywords.pop("properties", {})
        more = keywords.pop("additionalProperties", True)
        _require(isinstance(required, list) and all(isinstance(name, str) for name in required))
        _require(isinstance(properties, dict))
        checks = {name: self.compile(schema) for name, schema in properties.items()}
        return _members(tuple(required), checks, _never if more is False else self.compile(more))

    def _array(self, keywords: dict[str, Any]) -> Check:
        low, high = _bounds(keywords, "minItems", "maxItems")
        item = self.compile(keywords.pop("items", True))
        return lambda value: (
            isinstance(value, list) and low <= len(value) <= high and all(map(item, value))
        )


_BUILDERS: Mapping[str, Callable[[_Compiler, dict[str, Any]], Check]] = {
    "$ref": _Compiler.reference,
    "enum": _Compiler.enum,
    "const": _Compiler.const,
    "anyOf": _Compiler.any_of,
    "allOf": _Compiler.all_of,
    "type": _Compiler.type,
}


def _require(known: bool) -> None:
    if not known:
        raise _Uncertain


def _all(checks: list[Check]) -> Check:
    if len(checks) == 1:
        return checks[0]
    return lambda value: all(check(value) for check in checks)


def _one_of(values: Any) -> Check:
    """Texts and null only: for Python 1, 1.0 and True are equal, for JSON Schema they are not."""
    _require(isinstance(values, list))
    _require(all(value is None or isinstance(value, str) for value in values))
    known = frozenset(values)
    return lambda value: (value is None or isinstance(value, str)) and value in known


def _members(required: tuple[str, ...], checks: dict[str, Check], more: Check) -> Check:
    def check(value: Any) -> bool:
        if not isinstance(value, dict):
            return False
        for name in required:
            if name not in value:
                return False
        # A loop and not all(): this runs for every tool call, and a generator costs half of it.
        for name, member in value.items():  # noqa: SIM110
            if not checks.get(name, more)(member):
                return False
        return True

    return check


def _string(keywords: dict[str, Any]) -> Check:
    low, high = _bounds(keywords, "minLength", "maxLength")
    pattern = keywords.pop("pattern", None)
    if pattern is not None:
        _require(isinstance(pattern, str))
        return lambda value: (
            isinstance(value, str)
            and low <= len(value) <= high
            and pattern_matches(pattern, value) is not False
        )
    if (low, high) == (0, float("inf")):
        return lambda value: isinstance(value, str)
    return lambda value: isinstance(value, str) and low <= len(value) <= high


def _number(types: tuple[type, ...], keywords: dict[str, Any]) -> Check:
    low, high = _bounds(keywords, "minimum", "maximum", default=float("-inf"))
    above, below = _bounds(keywords, "exclusiveMinimum", "exclusiveMaximum", default=float("-inf"))
    unbounded = {low, above} == {float("-inf")} and {high, below} == {float("inf")}
    if unbounded:
        return lambda value: type(value) in types
    return lambda value: type(value) in types and low <= value <= high and above < value < below


def _bounds(
    keywords: dict[str, Any], lower: str, upper: str, default: float = 0
) -> tuple[float, float]:
    low, high = keywords.pop(lower, default), keywords.pop(upper, float("inf"))
    _require(type(low) in (int, float) and type(high) in (int, float))
    return low, high
