"""Arguments made from a JSON Schema: the plainest value that it allows.

Pure. A schema that asks for more than type and bounds (patterns, formats) may refuse what is made
here; then the call gets an error for its result, as any other with bad arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

DEEPEST = 8


def example(schema: Any, root: Any = None, depth: int = 0) -> Any:
    """A value for a schema; `root` is where its references start."""
    root = schema if root is None else root
    if not isinstance(schema, dict) or depth > DEEPEST:
        return None
    for given in ("const", "default"):
        if given in schema:
            return schema[given]
    for listed in ("examples", "enum"):
        if schema.get(listed):
            return schema[listed][0]
    for branches in ("anyOf", "oneOf"):
        if schema.get(branches):
            return example(schema[branches][0], root, depth + 1)
    if "$ref" in schema:
        return example(_resolved(schema["$ref"], root), root, depth + 1)
    if "allOf" in schema:
        schema = _merged([schema, *schema["allOf"]], root)
    return _of_type(schema, root, depth)


def _of_type(schema: dict[str, Any], root: Any, depth: int) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    make = _MAKERS.get(kind) if isinstance(kind, str) else None
    return None if make is None else make(schema, root, depth)


def _object(schema: dict[str, Any], root: Any, depth: int) -> Any:
    properties = schema.get("properties", {})
    wanted = schema.get("required", [])
    return {name: example(properties.get(name, {}), root, depth + 1) for name in wanted}


def _array(schema: dict[str, Any], root: Any, depth: int) -> Any:
    return [example(schema.get("items", {}), root, depth + 1)] * schema.get("minItems", 0)


def _string(schema: dict[str, Any], root: Any, depth: int) -> Any:
    text = "example"
    least, most = schema.get("minLength", 0), schema.get("maxLength", len(text))
    return text.ljust(least, "x")[: max(least, most)]


def _number(schema: dict[str, Any], root: Any, depth: int) -> Any:
    if "exclusiveMinimum" in schema:
        return schema["exclusiveMinimum"] + 1
    least, most = schema.get("minimum", 1), schema.get("maximum", 1)
    return max(least, min(1, most))


_MAKERS: dict[str, Callable[[dict[str, Any], Any, int], Any]] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "integer": _number,
    "number": _number,
    "boolean": lambda *_: True,
}


def _resolved(reference: Any, root: Any) -> Any:
    """What a reference within the same schema points at; nothing is ever fetched."""
    found = root
    for part in str(reference).removeprefix("#").split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _merged(schemas: list[Any], root: Any) -> dict[str, Any]:
    merged: dict[str, Any] = {"properties": {}, "required": []}
    for each in schemas:
        found = _resolved(each["$ref"], root) if "$ref" in each else each
        plain = {k: v for k, v in found.items() if k not in ("allOf", "properties", "required")}
        merged |= plain
        merged["properties"] |= found.get("properties", {})
        merged["required"] += found.get("required", [])
    return merged
