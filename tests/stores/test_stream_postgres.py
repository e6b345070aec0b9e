"""Writer, stream, journal and reader together, on PostgreSQL and Valkey."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from heartbit.core.events import Event, ToolReturned
from heartbit.core.messages import Json
from heartbit.core.stream import RunIdentity, event_entry
from heartbit.errors import RunNotFound
from heartbit.stores.postgres import PostgresJournal
from heartbit.stores.redis_client import quick_client
from heartbit.stores.stream_reader import Pace, StreamReader
from heartbit.stores.streams import StreamWriter
from tests.support.stages import Stage, replied, returned

NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture
def stage(postgres: str) -> Iterator[Stage]:
    """A journal whose events are published by nobody."""
    journal = PostgresJournal(postgres)
    yield Stage(journal)
    journal.close()


def entries(stage: Stage, run_id: str) -> list[Json]:
    """The journal of a run as a reader gets it."""
    identity = RunIdentity(run_id=run_id, root_run_id=run_id, agent="solo")
    events: tuple[Event, ...] = stage.journal.events(run_id)
    return [event_entry(identity, seq, event) for seq, event in enumerate(events, 1)]


@pytest.mark.parametrize("published", [True, False])
def test_a_journal_in_postgres_is_followed_to_its_end(
    stage: Stage, valkey: str, published: bool
) -> None:
    run_id = stage.open()
    odd = ToolReturned(step="1/tool/0", content="a\0b \ud800 é")
    stage.append(run_id, replied(), odd, returned("1/tool/1"))
    stage.finish(run_id, expected=5)
    expected = entries(stage, run_id)
    if published:
        with quick_client(valkey) as client:
            writer = StreamWriter(client)
            writer.publish_events(run_id, expected)
            writer.close()
    reader = StreamReader(valkey, stage.journal, Pace(poll_seconds=0.01))
    assert expected == [item.entry for item in reader.iterate(run_id)]


def test_readers_that_attach_while_a_run_goes_on_get_the_same(stage: Stage, valkey: str) -> None:
    run_id = stage.open()
    reader = StreamReader(valkey, stage.journal, Pace(poll_seconds=0.01))

    def follow(_: int) -> list[Json]:
        return [item.entry for item in reader.iterate(run_id) if "seq" in item.entry]

    with quick_client(valkey) as client, ThreadPoolExecutor(4) as readers:
        writer = StreamWriter(client)
        following = [readers.submit(follow, 1)]
        for n in range(2, 40):
            stage.append(run_id, returned(f"{n}/tool/0"), expected=n)
            if n % 3:
                writer.publish_events(run_id, entries(stage, run_id)[-1:])
            if n % 15 == 0:
                following.append(readers.submit(follow, n))
        stage.finish(run_id, expected=40)
        got = [each.result() for each in following]
        writer.close()
    assert [entries(stage, run_id)] * 3 == got


def test_another_tenants_run_cannot_be_followed(stage: Stage) -> None:
    run_id = stage.open(tenant_id="ours")
    stage.finish(run_id)
    reader = StreamReader(NOWHERE, stage.journal, Pace(poll_seconds=0.01))
    with pytest.raises(RunNotFound):
        list(reader.iterate(run_id, tenant="theirs"))
    assert 2 == len(list(reader.iterate(run_id, tenant="ours")))


@pytest.mark.parametrize("run_id", [str(uuid.UUID(int=0)), "nonsense", ""])
def test_a_run_that_no_journal_knows_is_not_found(stage: Stage, run_id: str) -> None:
    with pytest.raises(RunNotFound):
        list(StreamReader(NOWHERE, stage.journal).iterate(run_id))
