"""Memories as JSON objects, for people and for other databases: what is read is checked.

One object for each memory, with the names of its fields; a namespace is three of them. Vectors are
left out: another database may have another model, and computes its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from heartbit.core.memory import Memory
from heartbit.core.messages import Json
from heartbit.errors import MemoryStoreError
from heartbit.stores.memories.base import NewMemory

_NAMESPACE = ("tenant_id", "user_id", "agent")
_checked = with_config(ConfigDict(extra="forbid"))
_ADAPTER: TypeAdapter[NewMemory] = TypeAdapter(_checked(NewMemory))


def as_object(memory: Memory) -> Json:
    """A memory as a JSON object."""
    fields: Json = asdict(memory)
    whose: Json = fields.pop("namespace")
    for name in ("created_at", "last_accessed"):
        fields[name] = fields[name].isoformat()
    return whose | fields


def from_lines(lines: Iterable[str]) -> Iterator[NewMemory]:
    """The memories of an export, one JSON object a line; blank lines are nothing.

    Raises:
        MemoryStoreError: a line is no memory; which one, and why.
    """
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _from_line(line, number)


def _from_line(line: str, number: int) -> NewMemory:
    try:
        given = json.loads(line)
        if not isinstance(given, dict):
            raise ValueError("it is no JSON object")
        namespace = {name: given.pop(name, None) for name in _NAMESPACE}
        return _ADAPTER.validate_python(given | {"namespace": namespace})
    except ValidationError as error:
        raise MemoryStoreError(f"Line {number} is no memory: {_why(error)}.") from None
    except ValueError as error:
        raise MemoryStoreError(f"Line {number} is no memory: {error}.") from None


def _why(error: ValidationError) -> str:
    first: Any = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
