"""Events as JSON and back: the form in which every journal is kept.

Text with NUL characters or lone surrogates survives: the JSON is ASCII, so that it can be stored
where such text cannot.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Annotated, Any, cast

from pydantic import Field, TypeAdapter, ValidationError

from heartbit.core.agent import AgentDefinition, as_json
from heartbit.core.events import RULES_VERSION, Decision, Event, RunStarted
from heartbit.core.messages import Json, ToolCall
from heartbit.core.retry import Tried
from heartbit.errors import JournalError

VERSION = 1


@cache
def _adapter() -> TypeAdapter[Event]:
    return TypeAdapter(Annotated[Event, Field(discriminator="type")])


@cache
def _values(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def as_text(value: Any) -> str:
    """Plain JSON values as one line of ASCII JSON."""
    return json.dumps(value, separators=(",", ":"))


def encode_event(event: Event) -> str:
    """The event as one line of ASCII JSON; `type` names it."""
    return as_text(as_json(event))


def encode_start(start: RunStarted) -> str:
    """The first event of a run without its definition, for stores that keep that elsewhere."""
    return as_text({name: v for name, v in as_json(start).items() if name != "definition"})


def decode_definition(stored: Json) -> AgentDefinition:
    """The definition that was stored beside the first events."""
    return cast(AgentDefinition, _values(AgentDefinition).validate_python(stored))


def decode_calls(stored: list[Json]) -> tuple[ToolCall, ...]:
    """The calls of an approval."""
    return cast(tuple[ToolCall, ...], _values(tuple[ToolCall, ...]).validate_python(stored))


def decode_decisions(stored: list[Json]) -> tuple[Decision, ...]:
    """The decisions on an approval."""
    return cast(tuple[Decision, ...], _values(tuple[Decision, ...]).validate_python(stored))


def decode_tried(stored: Json | None) -> Tried:
    """What a call had come to that was put off; what nobody can read any more is forgotten."""
    try:
        return cast(Tried, _values(Tried).validate_python(stored or {}))
    except ValidationError:
        return Tried()


def decode_event(stored: str | Json, version: int = VERSION) -> Event:
    """The event that `encode_event` of this or an older version wrote, as text or parsed.

    Raises:
        JournalError: it was written by a newer heartbit, starts a run by newer rules, or is no
            event.
    """
    if version > VERSION:
        raise JournalError(
            f"The journal has an event of version {version}, and this heartbit knows up to "
            f"{VERSION}: upgrade it."
        )
    try:
        value = json.loads(stored) if isinstance(stored, str) else stored
        event = _adapter().validate_python(value)
    except (ValidationError, ValueError) as error:
        raise JournalError(f"The journal has an event that cannot be read: {error}") from error
    if isinstance(event, RunStarted) and event.rules_version > RULES_VERSION:
        raise JournalError(
            f"The run goes by rules of version {event.rules_version}, and this heartbit knows up "
            f"to {RULES_VERSION}: upgrade it."
        )
    return event
