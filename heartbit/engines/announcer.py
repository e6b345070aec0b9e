"""Tells the readers of a run tree what was appended to its journals, as soon as it is committed."""

from __future__ import annotations

from collections.abc import Sequence

from heartbit.core.events import Event
from heartbit.core.stream import RunIdentity, event_entry
from heartbit.engines.plan import Plan, RunPlace
from heartbit.stores.records import NewRun
from heartbit.stores.streams import StreamWriter


class Announcer:
    """An `Announce` that publishes to the stream of the tree; sub-runs with what opens them."""

    def __init__(self, streams: StreamWriter) -> None:
        self._streams = streams

    def __call__(self, place: RunPlace, plan: Plan) -> None:
        """Publish the events of an append, and the starts of the sub-runs that it has opened."""
        append = plan.append
        identity = RunIdentity(
            run_id=place.run_id,
            root_run_id=place.root_run_id,
            parent_run_id=place.parent_run_id,
            agent=plan.after.state.definition.name,
        )
        self._publish(identity, append.expected, append.events)
        for run in append.runs:
            self._publish(_identity_of(run), 1, (run.start,))

    def _publish(self, identity: RunIdentity, first: int, events: Sequence[Event]) -> None:
        entries = [event_entry(identity, seq, event) for seq, event in enumerate(events, first)]
        self._streams.publish_events(identity.root_run_id, entries)


def _identity_of(run: NewRun) -> RunIdentity:
    return RunIdentity(
        run_id=run.run_id,
        root_run_id=run.root_run_id,
        parent_run_id=run.parent_run_id,
        agent=run.definition.name,
    )
