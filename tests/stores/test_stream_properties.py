"""Whatever is published, lost, doubled or flushed while they look, readers get the journals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heartbit.core.messages import Json
from heartbit.core.stream import text_delta
from heartbit.stores.stream_place import Offset, Place, parse_offset
from heartbit.stores.stream_reader import Pace, StreamReader
from heartbit.stores.streams import Published, spoken_fields, stream_key
from tests.support.trees import ROOT, Tree, publish

RUNS = (ROOT, "ada", "bob")
Act = Callable[["World"], None]


@dataclass
class World:
    """A tree, its stream, and how often that was lost."""

    tree: Tree
    url: str
    client: redis.Redis
    flushes: int = 0

    def grow(self, run_id: str) -> None:
        """Something happens that nobody publishes yet."""
        if self.tree.status[run_id] == "running":
            self.tree.grow(run_id)

    def publish(self, run_id: str, back: int) -> None:
        """Publish the last event of a run, or one `back` from there."""
        seq = max(1, len(self.tree.journals[run_id]) - back)
        publish(self.url, self.tree.entry(run_id, seq))

    def end(self, run_id: str) -> None:
        """A sub-run ends, which is reported to the root."""
        if run_id != ROOT and self.tree.status[run_id] == "running":
            self.tree.end(run_id)
            self.tree.report(run_id)

    def say(self, run_id: str, n: int) -> None:
        """A piece of text comes by, perhaps not the next one."""
        delta = text_delta(self.tree.identity(run_id), "9/model", 1, f"{n};")
        self.client.xadd(stream_key(ROOT), spoken_fields(n, delta))

    def flush(self) -> None:
        """The stream is lost."""
        self.client.flushall()
        self.flushes += 1

    def trim(self) -> None:
        """The beginning of the stream is dropped."""
        self.flushes += self.client.xtrim(stream_key(ROOT), maxlen=3, approximate=False)

    def finish(self) -> None:
        """All that is open ends, the root last."""
        for run_id in RUNS[1:]:
            self.end(run_id)
        if not self.tree.is_over:
            self.tree.end()

    def journals(self) -> list[Json]:
        """Every event of the tree."""
        return list(chain.from_iterable(map(self.tree.entries, RUNS)))


a_run = st.sampled_from(RUNS)
acts: st.SearchStrategy[Act] = st.one_of(
    st.builds(lambda run: lambda world: world.grow(run), a_run),
    st.builds(lambda run: lambda world: world.grow(run), a_run),
    st.builds(lambda run, back: lambda world: world.publish(run, back), a_run, st.integers(0, 3)),
    st.builds(lambda run, back: lambda world: world.publish(run, back), a_run, st.integers(0, 3)),
    st.builds(lambda run, n: lambda world: world.say(run, n), a_run, st.integers(1, 4)),
    st.builds(lambda run: lambda world: world.end(run), a_run),
)
losses: st.SearchStrategy[Act] = st.sampled_from([World.flush, World.trim])
bursts = st.lists(st.lists(acts, max_size=6), max_size=6)
lossy = st.lists(st.lists(acts | losses, max_size=6), max_size=6)

on_one_server = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Life:
    """A tree that lives on, burst by burst, whenever a reader looks at it or gets something."""

    def __init__(self, url: str, bursts: list[list[Act]]) -> None:
        self.world = World(Tree("ada", "bob"), url, redis.Redis.from_url(url))
        self.world.client.flushall()
        self._bursts = iter(bursts)
        self._turn()
        self.world.tree.on_look = self._turn
        self._reader = StreamReader(url, self.world.tree, Pace(poll_seconds=0.003))

    def _turn(self) -> None:
        for act in next(self._bursts, [World.finish]):
            act(self.world)

    def read(self, pauses: list[int]) -> Iterator[list[Json]]:
        """What each of several readers is given: the next begins where the last was cut off."""
        offset = "0-0"
        for pause in [*pauses, 1000]:
            given = []
            for item in self._reader.iterate(ROOT, offset):
                self._turn()
                given.append(item.entry)
                offset = item.offset
                if len(given) == pause:
                    break
            yield given
        self.world.client.close()


def events(entries: list[Json]) -> list[Json]:
    """The entries that are in a journal."""
    return [each for each in entries if "seq" in each]


def is_in_order(entries: list[Json]) -> bool:
    """Whether the events of each run come in their order."""
    seqs = [[e["seq"] for e in events(entries) if e["run_id"] == run_id] for run_id in RUNS]
    return all(each == sorted(set(each)) for each in seqs)


def same(some: list[Json], others: list[Json]) -> bool:
    """Whether these are the same entries, in whatever order."""
    return sorted(map(repr, some)) == sorted(map(repr, others))


@on_one_server
@given(bursts=lossy)
def test_a_reader_gets_every_event_once_and_in_order(valkey: str, bursts: list[list[Act]]) -> None:
    life = Life(valkey, bursts)
    (given,) = life.read([])
    assert same(life.world.journals(), events(given))
    assert is_in_order(given)
    assert (ROOT, "run_finished") == (given[-1]["run_id"], given[-1]["type"])


@pytest.mark.slow
@on_one_server
@given(bursts=bursts, pauses=st.lists(st.integers(1, 6), max_size=6))
def test_a_reader_that_comes_back_gets_every_event_once(
    valkey: str, bursts: list[list[Act]], pauses: list[int]
) -> None:
    life = Life(valkey, bursts)
    given = list(chain.from_iterable(life.read(pauses)))
    assert same(life.world.journals(), events(given))
    assert is_in_order(given)


@pytest.mark.slow
@on_one_server
@given(bursts=lossy, pauses=st.lists(st.integers(1, 6), max_size=6))
def test_a_reader_that_comes_back_after_a_loss_misses_nothing(
    valkey: str, bursts: list[list[Act]], pauses: list[int]
) -> None:
    life = Life(valkey, bursts)
    visits = list(life.read(pauses))
    given = list(chain.from_iterable(visits))
    assert {repr(each) for each in life.world.journals()} == {repr(e) for e in events(given)}
    assert all(map(is_in_order, visits))


@pytest.mark.slow
@on_one_server
@given(bursts=lossy)
def test_the_text_of_a_turn_is_a_prefix_of_what_was_said(
    valkey: str, bursts: list[list[Act]]
) -> None:
    (given,) = Life(valkey, bursts).read([])
    for run_id in RUNS:
        texts = [e["text"] for e in given if e["type"] == "text_delta" and e["run_id"] == run_id]
        assert "1;2;3;4;".startswith("".join(texts))


RUN_IDS = st.uuids().map(str) | st.text("abcdefghijklmnopqrstuvwxyz-0123456789", min_size=1)


@given(
    milliseconds=st.integers(0, 2**64 - 1),
    number=st.integers(0, 2**64 - 1),
    beyond=st.dictionaries(RUN_IDS, st.integers(1, 10**9 - 1), max_size=4),
)
def test_every_offset_is_read_as_it_was_written(
    milliseconds: int, number: int, beyond: dict[str, int]
) -> None:
    offset = Offset(id=f"{milliseconds}-{number}", beyond=beyond)
    assert offset == parse_offset(str(offset))


@given(
    st.lists(
        st.builds(
            Published,
            id=st.just("1-0"),
            run_id=st.just(ROOT),
            step=st.just("1/model"),
            attempt=st.integers(1, 3),
            n=st.integers(1, 5),
            entry=st.just({"type": "text_delta"}),
        )
    )
)
def test_text_is_heard_in_one_attempt_at_a_time_and_without_holes(said: list[Published]) -> None:
    place = Place(Offset())
    heard = [each for each in said if place.hears(each)]
    attempts = [each.attempt for each in heard]
    assert sorted(attempts) == attempts
    for attempt in set(attempts):
        numbers = [each.n for each in heard if each.attempt == attempt]
        assert list(range(1, len(numbers) + 1)) == numbers


@pytest.mark.parametrize("shown", [0, 3, 5])
def test_an_offset_names_only_what_the_stream_does_not_show(shown: int) -> None:
    place = Place(Offset())
    for seq in range(1, 6):
        place.given({"run_id": ROOT, "seq": seq, "step": None})
    place.passed(Published(id="7-0", run_id=ROOT, seq=shown))
    assert ("7-0" if shown == 5 else "7-0,root:5") == str(place.offset())
