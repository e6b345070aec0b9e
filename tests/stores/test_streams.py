"""What workers publish: text and events of run trees, never at the price of a run."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from heartbit.embedded import EmbeddedValkey
from heartbit.stores.redis_client import quick_client
from heartbit.stores.streams import (
    MAX_ENTRIES,
    Published,
    StreamWriter,
    parse_published,
    stream_key,
)
from tests.support.trees import ROOT, Tree

STEP = "1/model"


@pytest.fixture
def client(valkey: str) -> Iterator[redis.Redis]:
    """A client of an empty server."""
    with quick_client(valkey) as client:
        yield client


@pytest.fixture
def writer(client: redis.Redis) -> Iterator[StreamWriter]:
    """A writer to the empty server."""
    writer = StreamWriter(client)
    yield writer
    writer.close()


def published(client: redis.Redis, root: str = ROOT) -> list[Published]:
    """All that is in a stream."""
    found: Any = client.xrange(stream_key(root))
    return [parse_published(*each) for each in found]


def spoken(client: redis.Redis, run_id: str = ROOT) -> str:
    """The text in a stream."""
    return "".join(
        each.entry["text"]
        for each in published(client)
        if each.run_id == run_id and each.entry and each.entry["type"] == "text_delta"
    )


@contextmanager
def logged(words: str) -> Iterator[None]:
    """Do something, and wait until the log has these words."""
    said = threading.Event()

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if words in record.getMessage():
                said.set()

    logger, ear = logging.getLogger("heartbit.streams"), Ear()
    logger.addHandler(ear)
    try:
        yield
        assert said.wait(10)
    finally:
        logger.removeHandler(ear)


def test_a_stream_has_the_same_objects_as_every_listener(
    client: redis.Redis, writer: StreamWriter
) -> None:
    tree = Tree()
    entry = tree.grow()
    listener = writer.listener(tree.identity(), STEP, 1)
    listener.text("Hel")
    listener.restarted("cut off")
    writer.publish_events(ROOT, [entry])
    writer.close()
    kinds = [each.entry["type"] for each in published(client) if each.entry]
    assert ["text_delta", "turn_restarted", "tool_returned"] == kinds
    assert entry == published(client)[-1].entry


def test_an_entry_says_which_event_or_which_piece_of_text_it_is(
    client: redis.Redis, writer: StreamWriter
) -> None:
    tree = Tree("ada")
    listener = writer.listener(tree.identity("ada"), STEP, 3)
    listener.text("x")
    writer.publish_events(ROOT, [tree.grow("ada")])
    writer.close()
    restarted, text, event = published(client)
    assert ("ada", STEP, 3, 1) == (restarted.run_id, restarted.step, restarted.attempt, restarted.n)
    assert ("ada", STEP, 3, 2, 0) == (text.run_id, text.step, text.attempt, text.n, text.seq)
    assert ("ada", 2) == (event.run_id, event.seq)


def test_readers_are_told_that_a_later_attempt_makes_the_former_ones_void(
    client: redis.Redis, writer: StreamWriter
) -> None:
    writer.listener(Tree().identity(), STEP, 1)
    assert [] == published(client)
    writer.listener(Tree().identity(), STEP, 2)
    writer.close()
    (entry,) = [each.entry for each in published(client)]
    assert entry
    assert ("turn_restarted", 2) == (entry["type"], entry["attempt"])


def test_text_is_batched_and_none_is_lost(client: redis.Redis, writer: StreamWriter) -> None:
    listener = writer.listener(Tree().identity(), STEP, 1)
    words = [f"{n} " for n in range(5000)]
    for word in words:
        listener.text(word)
    writer.close()
    assert "".join(words) == spoken(client)
    assert len(published(client)) < 500
    assert list(range(1, len(published(client)) + 1)) == [each.n for each in published(client)]


def arrived(client: redis.Redis, root: str, count: int) -> list[str]:
    """The types of what is in a stream as soon as it has so many entries."""
    while client.xlen(stream_key(root)) < count:
        assert client.xread({stream_key(root): "$"}, block=50) is not None
    return [each.entry["type"] for each in published(client, root) if each.entry]


def test_first_text_does_not_wait_for_a_batch_and_takes_along_what_came_before(
    client: redis.Redis,
) -> None:
    writer = StreamWriter(client, batch_seconds=3600)
    tree = Tree()
    writer.publish_events(ROOT, tree.entries())
    assert ["run_started"] == arrived(client, ROOT, 1)
    writer.publish_events(ROOT, tree.entries())
    writer.publish_events("other", tree.entries())
    listener = writer.listener(tree.identity(), STEP, 1)
    listener.text("first")
    assert ["run_started", "text_delta"] == arrived(client, ROOT, 3)[1:]
    listener.text("later")
    assert (3, 0) == (client.xlen(stream_key(ROOT)), client.xlen(stream_key("other")))
    writer.close()
    assert "firstlater" == spoken(client)
    assert 1 == client.xlen(stream_key("other"))


def test_text_that_redis_could_not_keep_as_text_survives(
    client: redis.Redis, writer: StreamWriter
) -> None:
    text = "é\0\ud800 \U0001f642\n"
    writer.listener(Tree().identity(), STEP, 1).text(text)
    writer.close()
    assert text == spoken(client)


def test_an_event_too_large_for_a_stream_is_only_announced(
    client: redis.Redis, writer: StreamWriter
) -> None:
    tree = Tree()
    entry = tree.grow() | {"content": "x" * 100_000}
    writer.publish_events(ROOT, [entry])
    writer.close()
    (event,) = published(client)
    assert (2, None) == (event.seq, event.entry)


def test_a_stream_is_bounded_and_goes_away_by_itself(
    client: redis.Redis, writer: StreamWriter
) -> None:
    tree = Tree()
    for _ in range(MAX_ENTRIES + 5000):
        writer.publish_events(ROOT, [tree.entry(ROOT, 1)])
    writer.close()
    assert MAX_ENTRIES <= client.xlen(stream_key(ROOT)) <= MAX_ENTRIES + 1000
    assert 0 < client.ttl(stream_key(ROOT)) <= 24 * 3600


def test_all_keys_of_a_tree_have_one_hash_tag() -> None:
    assert "heartbit:{4711}:events" == stream_key("4711")


@pytest.mark.slow
def test_many_threads_and_runs_share_a_writer(client: redis.Redis, writer: StreamWriter) -> None:
    tree = Tree(*(f"run-{n}" for n in range(8)))

    def speak(run_id: str) -> None:
        listener = writer.listener(tree.identity(run_id), STEP, 1)
        for n in range(300):
            listener.text(f"{n},")
            writer.publish_events(ROOT, [tree.entry(run_id, 1)])

    threads = [threading.Thread(target=speak, args=[run_id]) for run_id in tree.status]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    expected = "".join(f"{n}," for n in range(300))
    assert {expected} == {spoken(client, run_id) for run_id in tree.status}


def test_without_redis_speaking_costs_a_line_in_the_log_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with quick_client("redis://127.0.0.1:1/0") as client:
        writer = StreamWriter(client, batch_seconds=0.0, pause_seconds=0.0)
        listener = writer.listener(Tree().identity(), STEP, 1)
        for _ in range(1000):
            listener.text("unheard")
            writer.publish_events(ROOT, [Tree().grow()])
        writer.close()
    assert ["heartbit.streams"] == [record.name for record in caplog.records]
    assert "runs go on" in caplog.text


def test_a_writer_finds_a_redis_that_comes_back(
    server_directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "heartbit.streams")
    ports = []
    with EmbeddedValkey(server_directory, durable=False) as server:
        ports.append(server.url)
    port = int(ports[0].rpartition(":")[2].partition("/")[0])
    back = EmbeddedValkey(server_directory, durable=False, choose_port=lambda: port)
    with quick_client(ports[0]) as client:
        writer = StreamWriter(client, pause_seconds=0.0)
        listener = writer.listener(Tree().identity(), STEP, 1)
        with logged("runs go on"):
            listener.text("unheard")
        with back:
            with logged("live events again"):
                listener.restarted("once more")
            listener.text("heard")
            writer.close()
            assert ["turn_restarted", "text_delta"] == [
                each.entry["type"] for each in published(client) if each.entry
            ]


def test_what_cannot_be_written_does_not_silence_the_others(
    client: redis.Redis, writer: StreamWriter
) -> None:
    with logged("could not be published"):
        writer.publish_events(ROOT, [{"run_id": ROOT, "seq": 1, "content": object()}])
    writer.listener(Tree().identity(), STEP, 1).text("heard")
    writer.close()
    assert "heard" == spoken(client)


def test_a_closed_writer_is_silent(client: redis.Redis, writer: StreamWriter) -> None:
    listener = writer.listener(Tree().identity(), STEP, 1)
    writer.close()
    listener.text("late")
    writer.publish_events(ROOT, [Tree().grow()])
    writer.close()
    assert [] == published(client)


@pytest.mark.parametrize(
    "fields", [{"a": "b"}, {"run": "r", "seq": "x"}, {"run": "r", "seq": "1", "entry": "{"}]
)
def test_of_what_others_put_into_a_stream_only_the_place_counts(fields: dict[str, str]) -> None:
    raw = {key.encode(): value.encode() for key, value in fields.items()}
    assert Published(id="5-0", run_id="") == parse_published(b"5-0", raw)


def test_a_process_that_gets_no_more_threads_speaks_unheard(
    writer: StreamWriter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        writer.listener(Tree().identity(), STEP, 1).text("unheard")
    assert "can't start new thread" in caplog.text
