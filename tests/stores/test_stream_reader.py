"""What readers of a run tree are given: every event once, whatever becomes of its stream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

from heartbit.core.events import ToolReturned
from heartbit.core.messages import Json
from heartbit.core.stream import text_delta, turn_restarted
from heartbit.embedded import EmbeddedValkey
from heartbit.errors import ConfigError, RunNotFound
from heartbit.stores.stream_reader import Pace, StreamItem, StreamReader
from heartbit.stores.streams import MAX_ENTRIES, event_fields, spoken_fields, stream_key
from tests.support.trees import ROOT, Tree, publish

STEP = "1/model"
NOWHERE = "redis://127.0.0.1:1/0"


@dataclass
class Watch:
    """A clock that goes on by itself, and on by leaps when somebody sleeps."""

    now: float = 0.0
    slept: list[float] = field(default_factory=list)

    def clock(self) -> float:
        self.now += 0.001
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    def pace(self, **seconds: float) -> Pace:
        return Pace(clock=self.clock, sleep=self.sleep, **seconds)


def reading(
    url: str, tree: Tree, *, poll_seconds: float = 0.005, grace_seconds: float = 0.05
) -> StreamReader:
    """A reader that waits for nobody: it looks at the journals every few milliseconds."""
    pace = Pace(poll_seconds=poll_seconds, grace_seconds=grace_seconds)
    return StreamReader(url, tree, pace)


def everything(reader: StreamReader, after: str = "0-0") -> list[StreamItem]:
    """All that is given until the root has ended."""
    return list(reader.iterate(ROOT, after))


def entries(items: list[StreamItem]) -> list[Json]:
    """What was given."""
    return [item.entry for item in items]


def say(url: str, *entries: Json, first: int = 1) -> None:
    """Publish pieces of text that are numbered on from `first`."""
    with redis.Redis.from_url(url) as client:
        for n, entry in enumerate(entries, first):
            client.xadd(stream_key(ROOT), spoken_fields(n, entry))


def text_of(items: list[StreamItem]) -> str:
    """The text that was given."""
    return "".join(each["text"] for each in entries(items) if each["type"] == "text_delta")


@asynccontextmanager
async def live(reader: StreamReader) -> AsyncIterator[asyncio.Queue[Json]]:
    """What a reader gets while the test goes on."""
    heard: asyncio.Queue[Json] = asyncio.Queue()

    async def listen() -> None:
        async with aclosing(reader.follow(ROOT)) as items:
            async for item in items:
                heard.put_nowait(item.entry)

    task = asyncio.create_task(listen())
    try:
        yield heard
    finally:
        task.cancel()
        await asyncio.wait([task])


async def next_of(heard: asyncio.Queue[Json], count: int) -> list[Json]:
    """The next things that are heard."""
    async with asyncio.timeout(20):
        return [await heard.get() for _ in range(count)]


def test_events_and_text_come_as_they_were_published(valkey: str) -> None:
    tree = Tree()
    deltas = [text_delta(tree.identity(), STEP, 1, word) for word in ("Hel", "lo")]
    publish(valkey, *tree.entries())
    say(valkey, *deltas)
    publish(valkey, tree.grow(), tree.end())
    first, *rest, last = entries(everything(reading(valkey, tree)))
    assert ["run_started", "run_finished"] == [first["type"], last["type"]]
    assert [*deltas, tree.entry(ROOT, 2)] == rest


def test_what_the_stream_never_had_comes_from_the_journal(valkey: str) -> None:
    tree = Tree()
    tree.grow()
    tree.end()
    assert tree.entries() == entries(everything(reading(valkey, tree)))


def test_journals_alone_are_enough(caplog: pytest.LogCaptureFixture) -> None:
    tree = Tree("ada")
    tree.grow("ada")
    watch = Watch()
    ends = iter([lambda: tree.end("ada"), lambda: tree.report("ada"), lambda: tree.end()])
    tree.on_look = lambda: next(ends, lambda: None)()
    got = entries(everything(StreamReader(NOWHERE, tree, watch.pace())))
    assert ["ada", "ada", "ada"] == [each["run_id"] for each in got if each["run_id"] != ROOT]
    assert tree.entries() == [each for each in got if each["run_id"] == ROOT]
    assert sum(watch.slept) > 0
    assert 1 == caplog.text.count("Redis gives no live events")


def test_gaps_are_filled_and_duplicates_dropped(valkey: str) -> None:
    tree = Tree()
    for _ in range(6):
        tree.grow()
    tree.end()
    for seq in (1, 2, 2, 5, 5, 1, 7):
        publish(valkey, tree.entry(ROOT, seq))
    assert tree.entries() == entries(everything(reading(valkey, tree)))


def test_what_two_workers_published_the_wrong_way_round_is_given_in_order(valkey: str) -> None:
    tree = Tree()
    for _ in range(5):
        tree.grow()
    tree.end()
    publish(valkey, *reversed(tree.entries()))
    assert tree.entries() == entries(everything(reading(valkey, tree)))


@pytest.mark.parametrize("published", ["nothing", "all", "the wrong way round"])
def test_the_events_of_a_sub_run_come_before_its_end_is_reported(
    valkey: str, published: str
) -> None:
    tree = Tree("ada", "bob")
    for child in ("bob", "ada"):
        tree.grow(child)
        tree.end(child)
        tree.report(child)
    tree.end()
    all_entries = [*tree.entries(ROOT), *tree.entries("ada"), *tree.entries("bob")]
    if published != "nothing":
        publish(valkey, *(all_entries if published == "all" else reversed(all_entries)))
    got = entries(everything(reading(valkey, tree)))
    assert sorted(map(str, all_entries)) == sorted(map(str, got))
    for child in ("ada", "bob"):
        assert got.index(tree.entries(child)[-1]) < got.index(
            next(each for each in got if each.get("sub_run_id") == child)
        )
    assert tree.entries()[-1] == got[-1]


def test_the_end_of_the_root_waits_for_sub_runs_that_are_ending(valkey: str) -> None:
    tree = Tree("ada")
    publish(valkey, *tree.entries(), *tree.entries("ada"), tree.end(ROOT, "cancelled"))
    looks = iter(range(100))
    tree.on_look = lambda: next(looks) == 3 and publish(valkey, tree.end("ada", "cancelled"))
    got = entries(everything(reading(valkey, tree, grace_seconds=60)))
    assert [tree.entries("ada")[-1], tree.entries()[-1]] == got[-2:]


def test_who_leaves_before_the_held_back_end_of_the_root_gets_it_on_return(valkey: str) -> None:
    tree = Tree("ada")
    publish(valkey, *tree.entries(), *tree.entries("ada"), tree.end(ROOT, "cancelled"))
    publish(valkey, tree.grow("ada"), tree.grow("ada"))
    items = everything(reading(valkey, tree))
    assert ["ada", "ada", "ada", ROOT] == [each["run_id"] for each in entries(items)][1:]
    for n, item in enumerate(items, 1):
        assert items[n:] == everything(reading(valkey, tree), item.offset)


def test_the_end_does_not_wait_for_the_next_look_at_the_journals(valkey: str) -> None:
    async def main() -> None:
        tree = Tree("ada")
        async with live(reading(valkey, tree, poll_seconds=3600, grace_seconds=3600)) as heard:
            await next_of(heard, 2)
            publish(valkey, tree.end(ROOT, "cancelled"), tree.end("ada", "cancelled"))
            assert ["ada", ROOT] == [each["run_id"] for each in await next_of(heard, 2)]

    asyncio.run(main())


def test_all_the_text_of_a_turn_is_given_before_its_outcome(valkey: str) -> None:
    tree = Tree()
    publish(valkey, *tree.entries())
    say(valkey, *(text_delta(tree.identity(), STEP, 1, f"{n};") for n in range(1500)))
    publish(valkey, tree.grow(ROOT, ToolReturned(step=STEP, content="")), tree.end())
    got = everything(reading(valkey, tree, poll_seconds=3600))
    assert "".join(f"{n};" for n in range(1500)) == text_of(got)


def test_a_sub_run_that_never_ends_does_not_hold_up_the_end_of_the_root(valkey: str) -> None:
    tree = Tree("ada")
    tree.end(ROOT, "failed")
    watch = Watch()
    reader = StreamReader(NOWHERE, tree, watch.pace(poll_seconds=1, grace_seconds=7))
    assert tree.entries()[-1] == entries(everything(reader))[-1]
    assert 7 <= watch.now < 10


@pytest.mark.parametrize("known", range(4))
def test_no_event_is_missed_when_the_stream_is_lost_at_any_point(valkey: str, known: int) -> None:
    async def main() -> None:
        tree = Tree()
        async with live(reading(valkey, tree)) as heard:
            for n in range(1, 5):
                entry = tree.grow() if n < 4 else tree.end()
                publish(valkey, entry)
                if n == known:
                    with redis.Redis.from_url(valkey) as client:
                        client.flushall()
            assert tree.entries() == await next_of(heard, 5)
            await asyncio.sleep(0)
            assert heard.empty()

    asyncio.run(main())


def test_readers_outlive_redis_and_find_it_again(server_directory: Path) -> None:
    async def main() -> None:
        tree = Tree()
        with EmbeddedValkey(server_directory, durable=False) as server:
            url = server.url
            port = int(url.rpartition(":")[2].partition("/")[0])
            async with live(reading(url, tree)) as heard:
                publish(url, *tree.entries())
                assert tree.entries() == await next_of(heard, 1)
                await asyncio.to_thread(server.stop)
                unpublished = tree.grow()
                assert [unpublished] == await next_of(heard, 1)
                again = EmbeddedValkey(server_directory, durable=False, choose_port=lambda: port)
                await asyncio.to_thread(again.start)
                delta = text_delta(tree.identity(), STEP, 1, "back")
                say(url, delta)
                assert [delta] == await next_of(heard, 1)
                end = tree.end()
                assert [end] == await next_of(heard, 1)
                await asyncio.to_thread(again.stop)

    asyncio.run(main())


def test_a_stream_that_begins_again_with_lower_ids_is_read(valkey: str) -> None:
    async def main() -> None:
        tree = Tree()
        async with live(reading(valkey, tree)) as heard:
            publish(valkey, *tree.entries())
            await next_of(heard, 1)
            delta = text_delta(tree.identity(), STEP, 1, "by a slow clock")
            with redis.Redis.from_url(valkey) as client:
                client.flushall()
                client.xadd(stream_key(ROOT), spoken_fields(1, delta), id="5-0")
            assert [delta] == await next_of(heard, 1)

    asyncio.run(main())


def test_an_offset_of_a_stream_that_began_again_knows_what_was_before(valkey: str) -> None:
    tree = Tree("ada")
    items = reading(valkey, tree).iterate(ROOT)
    publish(valkey, *tree.entries("ada"), *tree.entries())
    before = [next(items), next(items)]
    with redis.Redis.from_url(valkey) as client:
        client.flushall()
        client.xadd(stream_key(ROOT), event_fields(tree.grow()), id="3-0")
    after = next(items)
    said = text_delta(tree.identity(), STEP, 1, "x")
    with redis.Redis.from_url(valkey) as client:
        client.xadd(stream_key(ROOT), spoken_fields(1, said), id="4-0")
    last = next(items)
    tree.end("ada")
    tree.end()
    assert ("4-0,ada:1", said) == (last.offset, last.entry)
    rest = everything(reading(valkey, tree), last.offset)
    assert [*tree.entries("ada"), *tree.entries()] == [
        before[0].entry,
        rest[0].entry,
        before[1].entry,
        after.entry,
        rest[1].entry,
    ]


def grown(url: str) -> Tree:
    """A tree of which the stream lacks some events."""
    tree = Tree("ada")
    identity = tree.identity()
    publish(url, *tree.entries())
    say(url, *(text_delta(identity, STEP, 1, word) for word in "abc"))
    tree.grow()
    publish(url, tree.grow(), *tree.entries("ada"), tree.grow())
    tree.grow("ada")
    tree.end("ada")
    say(url, text_delta(identity, "2/model", 1, "x"), turn_restarted(identity, "2/model", 1, "cut"))
    tree.report("ada")
    publish(url, tree.grow())
    tree.end()
    return tree


def test_every_offset_gives_exactly_the_rest(valkey: str) -> None:
    tree = grown(valkey)
    items = everything(reading(valkey, tree))
    assert len({item.offset for item in items}) == len(items)
    for n, item in enumerate(items, 1):
        rest = everything(reading(valkey, tree), item.offset)
        assert items[n:] == rest


def test_an_offset_is_the_id_in_the_stream_while_the_stream_has_everything(valkey: str) -> None:
    tree = Tree()
    tree.grow()
    tree.end()
    ids = publish(valkey, *tree.entries())
    assert ids == [item.offset for item in everything(reading(valkey, tree))]


def test_nothing_is_missed_from_an_offset_that_the_stream_has_forgotten(valkey: str) -> None:
    tree = grown(valkey)
    items = everything(reading(valkey, tree))
    with redis.Redis.from_url(valkey) as client:
        client.flushall()
    for n, item in enumerate(items, 1):
        rest = entries(everything(reading(valkey, tree), item.offset))
        missing = [each.entry for each in items[n:] if "seq" in each.entry]
        assert all(each in rest for each in missing)
        seqs = [each["seq"] for each in rest if each["run_id"] == ROOT]
        assert list(range(seqs[0], seqs[-1] + 1)) == seqs if seqs else n == len(items)


def test_an_offset_of_the_journals_alone_survives_a_redis_that_comes_and_goes(valkey: str) -> None:
    tree = grown(valkey)
    events = [each for each in everything(reading(NOWHERE, tree)) if "seq" in each.entry]
    for n, item in enumerate(events, 1):
        rest = [e for e in entries(everything(reading(valkey, tree), item.offset)) if "seq" in e]
        assert sorted(map(str, entries(events[n:]))) == sorted(map(str, rest))


def test_an_offset_from_the_future_starts_at_the_beginning(valkey: str) -> None:
    tree = Tree()
    tree.end()
    publish(valkey, *tree.entries())
    assert tree.entries() == entries(everything(reading(valkey, tree), "9999999999999-0"))


@pytest.mark.parametrize(
    "offset", ["", "5", "5-", "a-b", "1-2,", "1-2,x", "1-2,x:y", f"{2**64}-0", "1-2\n"]
)
def test_what_is_no_offset_is_an_error(offset: str) -> None:
    with pytest.raises(ConfigError, match="is no offset of a stream"):
        everything(reading(NOWHERE, Tree()), offset)


def test_an_unknown_run_is_an_error() -> None:
    with pytest.raises(RunNotFound, match="There is no run nobody"):
        list(reading(NOWHERE, Tree()).iterate("nobody"))


@pytest.mark.slow
def test_ten_thousand_events_are_given_once_each(valkey: str) -> None:
    tree = Tree()
    for _ in range(10_000):
        tree.grow()
    tree.end()
    publish(valkey, *tree.entries())
    assert tree.entries() == entries(everything(reading(valkey, tree, poll_seconds=2.0)))
    assert 5 > tree.questions


def test_the_start_of_a_stream_that_was_trimmed_comes_from_the_journal(valkey: str) -> None:
    tree = Tree()
    for _ in range(400):
        tree.grow()
    tree.end()
    publish(valkey, *tree.entries())
    with redis.Redis.from_url(valkey) as client:
        client.xtrim(stream_key(ROOT), maxlen=5, approximate=False)
    assert tree.entries() == entries(everything(reading(valkey, tree)))
    assert MAX_ENTRIES > 400


def test_an_event_that_was_only_announced_comes_from_the_journal(valkey: str) -> None:
    tree = Tree()
    tree.grow(ROOT, ToolReturned(step="1/tool/0", content="x" * 100_000))
    publish(valkey, *tree.entries())
    tree.end()
    assert tree.entries() == entries(everything(reading(valkey, tree)))


def test_events_with_odd_text_are_the_same_from_both_sources(valkey: str) -> None:
    tree = Tree()
    odd = ToolReturned(step="1/tool/0", content="é\0\ud800 \U0001f642\u2028")
    publish(valkey, *tree.entries(), tree.grow(ROOT, odd))
    tree.end()
    from_stream = entries(everything(reading(valkey, tree)))
    assert from_stream == entries(everything(reading(NOWHERE, tree))) == tree.entries()


def test_text_of_a_superseded_attempt_is_dropped(valkey: str) -> None:
    tree = Tree()
    publish(valkey, *tree.entries())
    frozen = [text_delta(tree.identity(), STEP, 1, word) for word in "abc"]
    say(valkey, *frozen[:2])
    say(valkey, turn_restarted(tree.identity(), STEP, 2, "taken over"))
    say(valkey, frozen[2], first=3)
    say(valkey, text_delta(tree.identity(), STEP, 2, "new"), first=2)
    tree.end()
    got = everything(reading(valkey, tree))
    assert "abnew" == text_of(got)
    assert ["text_delta", "text_delta", "turn_restarted", "text_delta"] == [
        item.entry["type"] for item in got[1:-1]
    ]


def test_text_of_a_turn_that_has_its_outcome_is_dropped(valkey: str) -> None:
    tree = Tree()
    outcome = ToolReturned(step=STEP, content="said")
    publish(valkey, *tree.entries(), tree.grow(ROOT, outcome))
    say(valkey, text_delta(tree.identity(), STEP, 1, "late"))
    say(valkey, text_delta(tree.identity(), "2/model", 1, "next"))
    tree.end()
    assert "next" == text_of(everything(reading(valkey, tree)))


def test_text_of_a_run_that_has_ended_is_dropped(valkey: str) -> None:
    tree = Tree("ada")
    publish(valkey, *tree.entries(), *tree.entries("ada"), tree.end("ada", "cancelled"))
    say(valkey, text_delta(tree.identity("ada"), STEP, 1, "late"))
    tree.end()
    assert "" == text_of(everything(reading(valkey, tree)))


def test_what_is_heard_of_a_turn_is_always_the_beginning_of_it(valkey: str) -> None:
    tree = Tree()
    deltas = [text_delta(tree.identity(), STEP, 1, word) for word in "abcdef"]
    publish(valkey, *tree.entries())
    for n in (1, 2, 2, 4, 5, 3):  # published twice, lost, and late
        say(valkey, deltas[n - 1], first=n)
    tree.end()
    assert "abc" == text_of(everything(reading(valkey, tree)))


def test_a_restart_is_heard_even_when_the_text_before_it_was_lost(valkey: str) -> None:
    tree = Tree()
    publish(valkey, *tree.entries())
    say(valkey, turn_restarted(tree.identity(), STEP, 1, "cut"), first=4)
    say(valkey, text_delta(tree.identity(), STEP, 1, "again"), first=5)
    tree.end()
    assert "again" == text_of(everything(reading(valkey, tree)))


def test_text_never_comes_before_the_start_of_its_run(valkey: str) -> None:
    tree = Tree("ada")
    say(valkey, text_delta(tree.identity("ada"), STEP, 1, "early"))
    tree.end("ada")
    tree.report("ada")
    tree.end()
    got = [each["type"] for each in entries(everything(reading(valkey, tree)))]
    assert ["run_started", "run_finished"] == got[:2]


def test_what_others_put_into_the_stream_is_passed_over(valkey: str) -> None:
    tree = Tree()
    with redis.Redis.from_url(valkey) as client:
        client.xadd(stream_key(ROOT), {"noise": "\0"})
        client.xadd(stream_key(ROOT), {"run": "stranger", "seq": "7"})
    publish(valkey, *tree.entries(), tree.end())
    assert tree.entries() == entries(everything(reading(valkey, tree)))


def test_an_event_that_no_journal_has_is_not_believed(valkey: str) -> None:
    tree = Tree()
    publish(valkey, *tree.entries(), tree.entry(ROOT, 1) | {"seq": 9, "type": "run_finished"})
    tree.grow()
    tree.end()
    assert tree.entries() == entries(everything(reading(valkey, tree)))


def test_a_key_that_is_no_stream_leaves_the_journals(valkey: str) -> None:
    tree = Tree()
    tree.end()
    with redis.Redis.from_url(valkey) as client:
        client.set(stream_key(ROOT), "surprise")
    assert tree.entries() == entries(everything(reading(valkey, tree)))


def test_a_journal_that_is_away_for_a_while_is_waited_for(
    valkey: str, caplog: pytest.LogCaptureFixture
) -> None:
    tree = Tree()
    tree.grow()
    publish(valkey, tree.entry(ROOT, 2))
    tree.end()
    looks: Iterator[Callable[[], None]] = iter([lambda: setattr(tree, "broken", 3)])
    tree.on_look = lambda: next(looks, lambda: None)()
    assert tree.entries() == entries(everything(reading(valkey, tree)))
    assert "waits for its journal: The database is restarting." in caplog.text


def test_a_reader_without_a_loop_may_stop_early(valkey: str) -> None:
    tree = Tree()
    publish(valkey, *tree.entries())
    items = reading(valkey, tree).iterate(ROOT)
    assert tree.entry(ROOT, 1) == next(items).entry
    items.close()  # type: ignore[attr-defined]


def test_a_parked_run_is_looked_at_once_per_poll(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    tree = Tree()
    watch = Watch()
    looks = iter(range(100))
    tree.on_look = lambda: next(looks) == 50 and tree.end()
    everything(StreamReader(NOWHERE, tree, watch.pace(poll_seconds=2.0)))
    assert 48 * 2 <= watch.now <= 52 * 2
