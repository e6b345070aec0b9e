"""What is appended is published at once: runs as they are opened, decisions of whoever decides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from heartbit.core.events import ApprovalResolved, Decision, RunStarted
from heartbit.engines.announcer import Announcer
from heartbit.engines.durable import DurableEngine
from heartbit.engines.plan import RunPlace
from heartbit.stores.memory_journal import InMemoryJournal
from heartbit.stores.redis_client import quick_client
from heartbit.stores.streams import StreamWriter, stream_key
from tests.support.bench import RUN, SOLO, Bench, Outbox, calling


class Ear:
    """Publishes, and tells what was published."""

    def __init__(self, url: str) -> None:
        self._client = quick_client(url)
        self._writer = StreamWriter(self._client)
        self.announce = Announcer(self._writer)

    def heard(self) -> list[tuple[str, int, str]]:
        """(run, seq, agent) of everything; nothing can be published after this."""
        self._writer.close()
        with self._client:
            entries: Any = self._client.xrange(stream_key(RUN))
        return [(f[b"run"].decode(), int(f[b"seq"]), f[b"entry"].decode()) for _, f in entries]


@pytest.fixture
def ear(valkey: str) -> Iterator[Ear]:
    """On an empty Redis."""
    made = Ear(valkey)
    yield made
    made._writer.close()
    made._client.close()


def never(*_: object) -> Any:
    """A client does no step."""
    raise AssertionError


def test_every_event_of_a_whole_tree_is_published_starts_included(ear: Ear) -> None:
    """Nothing of it has to be found in a journal."""
    bench = Bench(announce=ear.announce)
    assert "succeeded" == bench.until_it_ends()
    journals = {row.run_id: bench.journal.events(row.run_id) for row in bench.journal.tree(RUN)}
    assert 3 == len(journals)
    expected = {(run, seq) for run, events in journals.items() for seq in range(1, len(events) + 1)}
    assert expected == {(run, seq) for run, seq, _ in ear.heard()}


def test_a_decision_is_published_by_who_made_it(ear: Ear) -> None:
    """A client that has never seen the run before, and does no step of it."""
    agent = replace(SOLO, approve=True)
    bench = Bench(calling("look"), agent)
    bench.start()
    client = DurableEngine(
        journal=bench.journal, outbox=Outbox(), work=never, owner="c", announce=ear.announce
    )
    approve = Decision(position=0, verdict="approve")
    client.resolve(RUN, ApprovalResolved(step="1/approval/decision", decisions=(approve,)))
    [(run, seq, entry)] = ear.heard()
    assert (RUN, 4) == (run, seq)
    assert '"approval_resolved"' in entry


def test_a_run_that_was_there_already_is_not_published_again(ear: Ear) -> None:
    engine = DurableEngine(
        journal=InMemoryJournal(), outbox=Outbox(), work=never, owner="c", announce=ear.announce
    )
    place = RunPlace(run_id=RUN, root_run_id=RUN)
    for _ in range(2):
        engine.open(place, RunStarted(prompt="Go.", definition=SOLO, blackboard=RUN), task_id=RUN)
    assert [(RUN, 1)] == [(run, seq) for run, seq, _ in ear.heard()]
