"""Journals that are kept for ever: how they are written down, and what they replay to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from heartbit.core.agent import as_json
from heartbit.core.commands import CallTool, Command, StartSubRun
from heartbit.core.events import Event, RunStarted
from heartbit.core.run import replay
from heartbit.stores.codec import VERSION, encode_event

KEPT = Path(__file__).parent.parent / "journals"


def prefixes(events: Sequence[Event]) -> list[list[dict[str, Any]]]:
    """The open commands after every event."""
    return [
        [described(command) for command in replay(events[:length])[1]]
        for length in range(1, len(events) + 1)
    ]


def described(command: Command) -> dict[str, Any]:
    """A command in words that outlive its class: what is to be done, under which step, to what.

    Definitions and specs are in the journal itself; their names tell which of them is meant.
    """
    members = {name: value for name, value in as_json(command).items() if name not in LONG}
    if isinstance(command, CallTool):
        members["tool"] = command.spec.name
    if isinstance(command, StartSubRun):
        members["agent"] = command.definition.name
    return {"do": type(command).__name__} | members


LONG = frozenset({"spec", "definition"})


def kept(name: str, journals: Mapping[str, Sequence[Event]]) -> dict[str, Any]:
    """Journals as they are written down: one entry for each run of the tree."""
    start = journals[""][0]
    assert isinstance(start, RunStarted)
    return {
        "name": name,
        "rules_version": start.rules_version,
        "event_version": VERSION,
        "journals": {
            place: {
                "events": [json.loads(encode_event(event)) for event in events],
                "commands": prefixes(events),
            }
            for place, events in journals.items()
        },
    }
