"""Memories as JSON objects, for people and for other databases: what is read is checked.

One object for each memory, with the names of its fields; a namespace is three of them. Vectors are
left out: another database may have another model, and computes its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    with_config,
)
from pydantic_core import PydanticCustomError

from heartbit.core.memory import Memory, Namespace
from heartbit.core.messages import Json
from heartbit.errors import MemoryStoreError
from heartbit.stores.memories.base import NewMemory

LONGEST_ID = 200
LONGEST_NAME = 600
"""Bytes of a tenant, a user or an agent: all three are in one index of a database."""
MOST_ACCESSES = 2**31 - 1
_NAMESPACE = ("tenant_id", "user_id", "agent")


def _indexable(namespace: Namespace) -> Namespace:
    for field in _NAMESPACE:
        if len((getattr(namespace, field) or "").encode("utf-8", "replace")) > LONGEST_NAME:
            raise PydanticCustomError(
                "too_long",
                "the name of its {who} has more than {most} bytes",
                {"who": field.removesuffix("_id"), "most": LONGEST_NAME},
            )
    return namespace


_Id = Annotated[str, Field(max_length=LONGEST_ID)]
_Time = Annotated[  # in every time zone it is a date that Python knows
    AwareDatetime, Field(ge=datetime(1900, 1, 1, tzinfo=UTC), lt=datetime(9000, 1, 1, tzinfo=UTC))
]


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, kw_only=True, slots=True)
class _Line(NewMemory):
    """A memory as files have it: whatever a store could not keep is refused."""

    id: _Id
    namespace: Annotated[Namespace, AfterValidator(_indexable)]
    strength: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    related_ids: tuple[_Id, ...] = ()
    source_ids: tuple[_Id, ...] = ()
    created_at: _Time | None = None
    last_accessed: _Time | None = None
    access_count: Annotated[int, Field(ge=0, le=MOST_ACCESSES)] = 0


_ADAPTER: TypeAdapter[_Line] = TypeAdapter(_Line)


def as_object(memory: Memory) -> Json:
    """A memory as a JSON object."""
    fields: Json = asdict(memory)
    whose: Json = fields.pop("namespace")
    for name in ("created_at", "last_accessed"):
        fields[name] = fields[name].isoformat()
    return whose | fields


def from_lines(lines: Iterable[str | bytes]) -> Iterator[NewMemory]:
    """The memories of an export, one JSON object a line; blank lines are nothing, bytes are UTF-8.

    Raises:
        MemoryStoreError: a line is no memory; which one, and why.
    """
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _from_line(line, number)


def _from_line(line: str | bytes, number: int) -> NewMemory:
    try:
        given = json.loads(line if isinstance(line, str) else line.decode("utf-8-sig"))
        if not isinstance(given, dict):
            raise ValueError("it is no JSON object")
        namespace = {name: given.pop(name, None) for name in _NAMESPACE}
        return _ADAPTER.validate_python(given | {"namespace": namespace})
    except ValidationError as error:
        raise MemoryStoreError(f"Line {number} is no memory: {_why(error)}.") from None
    except UnicodeDecodeError:
        raise MemoryStoreError(f"Line {number} is no memory: it is not in UTF-8.") from None
    except RecursionError:
        raise MemoryStoreError(f"Line {number} is no memory: it is nested too deeply.") from None
    except ValueError as error:
        raise MemoryStoreError(f"Line {number} is no memory: {error}.") from None


def _why(error: ValidationError) -> str:
    first: Any = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
