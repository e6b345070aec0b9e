"""`heartbit.stream` and what clients publish, beside a worker that does the work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest
import redis

import heartbit
from heartbit import runtime as process
from heartbit.client import Client
from heartbit.config import load
from heartbit.core.messages import Json
from heartbit.errors import ConfigError, RunNotFound
from heartbit.outbox import CeleryOutbox
from heartbit.stores.streams import stream_key
from heartbit.tasks import run_agent
from tests.celery.test_client import AGENT
from tests.support.canvas import SECONDS, until

NOBODY = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def url(fleet: Any, valkey_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The Redis of a program that is configured by its environment, as `heartbit.stream` wants."""
    monkeypatch.setenv("HEARTBIT_DATABASE_URL", "postgresql://the/one/of/the/worker")
    monkeypatch.setenv("CELERY_BROKER_URL", valkey_server)
    yield valkey_server
    process._close_streams()


def connected(fleet: Any, url: str) -> Client:
    """The client of such a program."""
    config = load(None, {"CELERY_BROKER_URL": url}, text=AGENT).config
    announce = process.announcer(config)
    return Client(fleet.journal, config, CeleryOutbox(), announce=announce)


def finished(prompt: str = "use the tool", agent: str | None = "worker") -> str:
    """The id of a run that has ended."""
    return str(run_agent.delay(prompt, agent=agent).get(timeout=SECONDS)["run_id"])


def types(entries: list[Json]) -> list[str]:
    """What kinds of entries these are."""
    return [each["type"] for each in entries]


async def all_of(events: AsyncIterator[Json]) -> list[Json]:
    """Everything that is told until the end."""
    async with asyncio.timeout(SECONDS):
        return [event async for event in events]


WHOLE = [
    "run_started",
    "model_replied",
    "tool_returned",
    "model_replied",
    "run_finished",
]


def test_a_stream_is_the_whole_run_and_then_ends(url: str) -> None:
    assert WHOLE == types(asyncio.run(all_of(aiter(heartbit.stream(finished())))))


def test_without_a_loop_it_is_the_same(url: str) -> None:
    events = heartbit.stream(finished())
    assert WHOLE == types(list(events))
    assert asyncio.run(all_of(aiter(events))) == list(events)


def test_a_loop_is_never_blocked_by_it(url: str) -> None:
    async def mistaken() -> None:
        for _ in heartbit.stream(NOBODY):
            raise AssertionError

    with pytest.raises(RuntimeError, match="want `async for`"):
        asyncio.run(mistaken())


def test_each_offset_is_where_another_reader_may_go_on(url: str) -> None:
    run_id = finished()
    every = list(heartbit.stream(run_id))
    for place, entry in enumerate(every, 1):
        rest = list(heartbit.stream(run_id, after=entry["offset"]))
        assert [_bare(each) for each in every[place:]] == [_bare(each) for each in rest]


def _bare(entry: Json) -> Json:
    return {name: value for name, value in entry.items() if name != "offset"}


def test_a_sub_run_is_told_with_its_whole_tree(fleet: Any, url: str) -> None:
    """As `heartbit watch` does."""
    root = finished("delegate say one; say two", None)
    child = fleet.journal.tree(root)[-1].run_id
    assert child != root
    whole = {(each["run_id"], each["seq"]) for each in heartbit.stream(root) if "seq" in each}
    assert whole == {(e["run_id"], e["seq"]) for e in heartbit.stream(child) if "seq" in e}


def test_a_run_that_is_none_and_an_offset_that_is_none_are_said_at_the_first_entry(
    url: str,
) -> None:
    with pytest.raises(RunNotFound):
        next(iter(heartbit.stream(NOBODY)))
    with pytest.raises(RunNotFound):
        asyncio.run(all_of(aiter(heartbit.stream(NOBODY))))
    with pytest.raises(ConfigError, match="offset"):
        next(iter(heartbit.stream(finished(), after="nonsense")))


def test_who_leaves_early_takes_nothing_along(fleet: Any, url: str) -> None:
    """A run that is not over is told as far as it has come."""
    handle = connected(fleet, url).submit("wait", agent="worker")
    assert "run_started" == next(iter(handle.events()))["type"]

    async def first() -> str:
        async with aclosing(aiter(handle.events())) as events:
            async for event in events:
                return str(event["type"])
        return ""

    assert "run_started" == asyncio.run(first())
    fleet.scene.gate.set()
    assert "waited" == handle.result(timeout=SECONDS).result


def test_a_handle_hears_what_comes_while_it_listens(fleet: Any, url: str) -> None:
    handle = connected(fleet, url).submit("wait", agent="worker")
    told: list[Json] = []
    for event in handle.events():
        told.append(event)
        if event["type"] == "run_started":
            fleet.scene.gate.set()
    assert ["run_started", "model_replied", "run_finished"] == types(told)


def published(url: str, root: str) -> list[tuple[str, int]]:
    """(run, seq) of what the stream of a tree has of its journals."""
    with redis.Redis.from_url(url) as client:
        entries: Any = client.xrange(stream_key(root))
    return [(f[b"run"].decode(), int(f[b"seq"])) for _, f in entries if b"seq" in f]


def test_a_run_is_published_by_who_opens_it(fleet: Any, url: str) -> None:
    """Before any worker has seen it."""
    client = connected(fleet, url)
    handle = client.submit("wait", agent="worker")
    assert [(handle.id, 1)] == until(lambda: published(url, handle.id))
    fleet.scene.gate.set()
    handle.result(timeout=SECONDS)
