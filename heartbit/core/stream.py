"""The objects that a reader of a run sees: its journal as it grows, and text as it is spoken.

`on_event`, `--verbose`, and every later stream carry these same objects. An entry made from an
event has the event's name as `type` and its place in the journal as `seq`; `text_delta` and
`turn_restarted` are never stored and have the attempt of their step instead.
"""

from __future__ import annotations

from dataclasses import dataclass

from heartbit.core.agent import as_json
from heartbit.core.events import Event, RunStarted
from heartbit.core.messages import Json


@dataclass(frozen=True, kw_only=True, slots=True)
class RunIdentity:
    """Which run an entry belongs to."""

    run_id: str
    root_run_id: str
    agent: str
    parent_run_id: str | None = None


def event_entry(identity: RunIdentity, seq: int, event: Event) -> Json:
    """The entry for a journaled event; a definition is named, not repeated."""
    payload = _start_payload(event) if isinstance(event, RunStarted) else as_json(event)
    return _identity(identity) | {"seq": seq} | payload


def _start_payload(event: RunStarted) -> Json:
    definition = event.definition
    origin = {"forked_from": as_json(event.forked_from)} if event.forked_from else {}
    return {
        "type": event.type,
        "step": event.step,
        "prompt": event.prompt,
        "model": definition.model,
        "max_turns": definition.max_turns,
        "tools": [tool.name for tool in definition.tools],
        "delegates": [delegate.name for delegate in definition.delegates],
        **origin,
    }


def text_delta(identity: RunIdentity, step: str, attempt: int, text: str) -> Json:
    """A piece of a streamed reply."""
    payload = {"type": "text_delta", "step": step, "attempt": attempt, "text": text}
    return _identity(identity) | payload


def turn_restarted(identity: RunIdentity, step: str, attempt: int, reason: str) -> Json:
    """What was streamed for `step` before `attempt` is void."""
    payload = {"type": "turn_restarted", "step": step, "attempt": attempt, "reason": reason}
    return _identity(identity) | payload


def _identity(identity: RunIdentity) -> Json:
    return {
        "run_id": identity.run_id,
        "root_run_id": identity.root_run_id,
        "parent_run_id": identity.parent_run_id,
        "agent": identity.agent,
    }
