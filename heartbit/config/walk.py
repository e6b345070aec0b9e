"""Where a key path leads in the tables: for messages, origins and the reference.

A path is a tuple of keys and positions: ("agents", 0, "max_turns").
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from heartbit.config.fields import Table
from heartbit.config.models import Config

KeyPath = tuple[str | int, ...]
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def tables_in(annotation: Any) -> list[type[Table]]:
    """The tables a value may be: through unions, not through lists and mappings."""
    if inspect.isclass(annotation) and issubclass(annotation, Table):
        return [annotation]
    if get_origin(annotation) in (tuple, dict):
        return []
    return [table for part in get_args(annotation) for table in tables_in(part)]


def item_of(annotation: Any) -> Any:
    """What a list or mapping holds; None if the annotation is neither."""
    origin = get_origin(annotation)
    if origin is tuple:
        return get_args(annotation)[0]
    if origin is dict:
        return get_args(annotation)[1]
    return next(filter(None, map(item_of, get_args(annotation))), None)


def annotation_at(path: KeyPath) -> Any:
    """The type of the value at `path`; None where the tables know of none."""
    current: Any = Config
    for step in path:
        fields = fields_in(current) if isinstance(step, str) else {}
        current = fields[step] if step in fields else item_of(current)
    return current


def fields_in(annotation: Any) -> dict[int | str, Any]:
    """The keys of the tables a value may be, with their types."""
    return {
        name: field.annotation
        for table in tables_in(annotation)
        for name, field in table.model_fields.items()
    }


def dotted(path: KeyPath) -> str:
    """The path as text: `agents[0].max_turns`, `pricing."a.b".input_per_million`."""
    return "".join(_step(step) for step in path).removeprefix(".")


def _step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step if _BARE.fullmatch(step) else json.dumps(step)}"


def leaves(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Every setting below a value with its path: all that is not a table or a list of tables."""
    inner = _inner(value)
    if inner is None:
        yield path, value
        return
    for step, part in inner:
        yield from leaves(part, (*path, step))


def _inner(value: Any) -> list[tuple[str | int, Any]] | None:
    if isinstance(value, Table):
        return [(name, getattr(value, name)) for name in type(value).model_fields]
    if isinstance(value, tuple) and any(isinstance(part, Table) for part in value):
        return list(enumerate(value))
    if isinstance(value, dict) and any(isinstance(part, Table) for part in value.values()):
        return list(value.items())
    return None
