"""Events as JSON and back: the form in which every journal is kept.

Text with NUL characters or lone surrogates survives: the JSON is ASCII, so that it can be stored
where such text cannot.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from heartbit.core.agent import as_json
from heartbit.core.events import Event
from heartbit.core.messages import Json
from heartbit.errors import JournalError

VERSION = 1


@cache
def _adapter() -> TypeAdapter[Event]:
    return TypeAdapter(Annotated[Event, Field(discriminator="type")])


def encode_event(event: Event) -> str:
    """The event as one line of ASCII JSON; `type` names it."""
    return json.dumps(as_json(event), separators=(",", ":"))


def decode_event(stored: str | Json, version: int = VERSION) -> Event:
    """The event that `encode_event` of this or an older version wrote, as text or parsed.

    Raises:
        JournalError: it was written by a newer heartbit, or it is no event.
    """
    if version > VERSION:
        raise JournalError(
            f"The journal has an event of version {version}, and this heartbit knows up to "
            f"{VERSION}: upgrade it."
        )
    try:
        value = json.loads(stored) if isinstance(stored, str) else stored
        return _adapter().validate_python(value)
    except (ValidationError, ValueError) as error:
        raise JournalError(f"The journal has an event that cannot be read: {error}") from error
