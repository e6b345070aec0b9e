"""What the rows and events of a journal mean to those who only look at them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from heartbit.core.events import Event
from heartbit.core.messages import Json, Usage
from heartbit.core.result import RunOutput
from heartbit.core.stream import RunIdentity, event_entry
from heartbit.stores.records import ENDED, RunRow


def only_waits(tree: Sequence[RunRow]) -> bool:
    """Whether nothing below a run, itself included, goes on before a human has decided."""
    still_open = [row for row in tree if row.status not in ENDED]
    parents = {row.parent_run_id for row in still_open}
    return bool(still_open) and all(
        row.status == "waiting" or row.run_id in parents for row in still_open
    )


def decode_output(stored: Json) -> RunOutput:
    """The output of an ended run, as the journal keeps it."""
    return RunOutput(**stored | {"usage": Usage(**stored["usage"])})


def entries_of(row: RunRow, events: Sequence[Event]) -> Iterator[Json]:
    """The events of one run as entries."""
    identity = RunIdentity(
        run_id=row.run_id,
        root_run_id=row.root_run_id,
        parent_run_id=row.parent_run_id,
        agent=row.agent,
    )
    for seq, event in enumerate(events, 1):
        yield event_entry(identity, seq, event)
