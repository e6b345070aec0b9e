"""Run trees that grow by hand, with their journals in plain lists, for whoever follows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import redis

from heartbit.core.events import (
    Event,
    RunCancelled,
    RunFinished,
    RunStatus,
    SubRunFinished,
    ToolReturned,
)
from heartbit.core.messages import Json
from heartbit.core.state import ENDED
from heartbit.core.stream import RunIdentity, event_entry
from heartbit.errors import JournalError
from heartbit.stores.records import EVERY_TENANT, Tenant
from heartbit.stores.streams import event_fields, stream_key
from tests.support.journals import started

ROOT = "root"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A run of a tree."""

    run_id: str
    parent_run_id: str | None
    agent: str
    status: RunStatus


class Tree:
    """The journals of a root and its sub-runs. `on_look` is called whenever the tree is asked for.

    `broken` is how many questions fail before the journal can be read again.
    """

    def __init__(self, *children: str) -> None:
        self.on_look: Callable[[], object] = lambda: None
        self.broken = 0
        self.questions = 0
        self.status: dict[str, RunStatus] = {ROOT: "running"}
        self.journals: dict[str, list[Event]] = {ROOT: [started()]}
        for child in children:
            self.open(child)

    def open(self, child: str) -> Json:
        """Start a sub-run; gives the entry of its first event."""
        self.status[child] = "running"
        self.journals[child] = []
        return self.grow(child, started())

    def grow(self, run_id: str = ROOT, event: Event | None = None) -> Json:
        """Append an event; gives its entry."""
        journal = self.journals[run_id]
        journal.append(event or ToolReturned(step=f"{len(journal)}/tool/0", content="seen"))
        return self.entry(run_id, len(journal))

    def end(self, run_id: str = ROOT, status: RunStatus = "succeeded") -> Json:
        """Append the end of a run; gives its entry."""
        self.status[run_id] = status
        event: Event = RunFinished(result="done") if status == "succeeded" else RunCancelled()
        return self.grow(run_id, event)

    def report(self, child: str) -> Json:
        """Tell the root of the end of a sub-run; gives the entry."""
        event = SubRunFinished(
            step=f"1/sub/{child}", sub_run_id=child, sub_agent=child, status="succeeded"
        )
        return self.grow(ROOT, event)

    def entry(self, run_id: str, seq: int) -> Json:
        """The entry of a journaled event."""
        return event_entry(self.identity(run_id), seq, self.journals[run_id][seq - 1])

    def entries(self, run_id: str = ROOT) -> list[Json]:
        """All entries of a run."""
        return [self.entry(run_id, seq) for seq in range(1, len(self.journals[run_id]) + 1)]

    def identity(self, run_id: str = ROOT) -> RunIdentity:
        """Who a run is."""
        parent = None if run_id == ROOT else ROOT
        return RunIdentity(run_id=run_id, root_run_id=ROOT, agent=run_id, parent_run_id=parent)

    def tree(self, run_id: str, *, tenant: Tenant = EVERY_TENANT) -> Sequence[Row]:
        """As `Journal.tree`."""
        self._ask()
        self.on_look()
        if run_id != ROOT:
            return ()
        return [
            Row(
                run_id=each,
                parent_run_id=self.identity(each).parent_run_id,
                agent=each,
                status=status,
            )
            for each, status in self.status.items()
        ]

    def events(
        self, run_id: str, after: int = 0, *, tenant: Tenant = EVERY_TENANT
    ) -> tuple[Event, ...]:
        """As `Journal.events`."""
        self._ask()
        return tuple(self.journals[run_id][after:])

    @property
    def is_over(self) -> bool:
        """Whether every run has ended."""
        return all(status in ENDED for status in self.status.values())

    def _ask(self) -> None:
        self.questions += 1
        if self.broken:
            self.broken -= 1
            raise JournalError("The database is restarting.")


def publish(url: str, *entries: Json, root: str = ROOT) -> list[str]:
    """Put events into a stream as they are given; gives the ids of the entries."""
    with redis.Redis.from_url(url) as client:
        return [client.xadd(stream_key(root), event_fields(each)).decode() for each in entries]
