"""Blackboards that Redis serves: whatever becomes of the copies, the database decides."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heartbit.embedded import EmbeddedValkey
from heartbit.errors import JournalError, ToolError
from heartbit.stores.blackboard import DurableBlackboard, ServedBoards, board_key
from heartbit.stores.memory_journal import InMemoryJournal
from heartbit.stores.postgres import PostgresJournal
from heartbit.stores.records import BoardEntry
from heartbit.stores.redis_client import quick_client

RUN = str(uuid.uuid4())
NOWHERE = "redis://127.0.0.1:1/0"


@dataclass
class Decider:
    """The boards that decide, and what was asked of them."""

    journal: Any
    asked: list[str] = field(default_factory=list)
    after: Callable[[], object] = lambda: None

    def board_read(self, scope: str, key: str) -> tuple[Any, int]:
        self.asked.append("read")
        value: tuple[Any, int] = self.journal.board_read(scope, key)
        return value

    def board_keys(self, scope: str) -> tuple[str, ...]:
        self.asked.append("keys")
        keys: tuple[str, ...] = self.journal.board_keys(scope)
        return keys

    def board_after(self, scope: str, seq: int) -> Sequence[BoardEntry]:
        entries: tuple[BoardEntry, ...] = self.journal.board_after(scope, seq)
        self.asked.append(f"{len(entries)} after {seq}")
        self.after()
        return entries

    def board_write(
        self, scope: str, key: str, value: Any, *, run_id: str, expected: int | None = None
    ) -> int:
        version: int = self.journal.board_write(scope, key, value, run_id=run_id, expected=expected)
        return version


@pytest.fixture
def journal(postgres: str) -> Iterator[PostgresJournal]:
    """A journal whose boards are empty."""
    journal = PostgresJournal(postgres)
    yield journal
    journal.close()


@pytest.fixture
def client(valkey: str) -> Iterator[redis.Redis]:
    """A client of an empty Valkey."""
    with quick_client(valkey) as client:
        yield client


@pytest.fixture
def boards(journal: PostgresJournal, client: redis.Redis) -> ServedBoards:
    """The boards under test."""
    return ServedBoards(journal, client)


def write(boards: Any, key: str, value: Any, expected: int | None = None) -> int:
    """Write a key of the run's board."""
    version: int = boards.board_write(RUN, key, value, run_id=RUN, expected=expected)
    return version


def test_what_the_copy_has_is_not_read_from_the_database(
    journal: PostgresJournal, client: redis.Redis
) -> None:
    decider = Decider(journal)
    boards = ServedBoards(decider, client)
    write(boards, "k", "v" * 1000)
    decider.asked.clear()
    assert ("v" * 1000, 1) == boards.board_read(RUN, "k")
    assert (None, 0) == boards.board_read(RUN, "other")
    assert ("k",) == boards.board_keys(RUN)
    assert ["0 after 1"] * 3 == decider.asked


def test_a_crash_between_commit_and_copy_is_healed_by_the_next_read(
    journal: PostgresJournal, client: redis.Redis, boards: ServedBoards
) -> None:
    write(boards, "k", "old")
    write(journal, "k", "new")
    write(journal, "other", 1)
    assert ("new", 2) == boards.board_read(RUN, "k")
    assert b"3" == client.hget(board_key(RUN), "#seq")
    assert ("k", "other") == boards.board_keys(RUN)


def test_every_look_heals_a_copy_that_is_behind(
    journal: PostgresJournal, boards: ServedBoards
) -> None:
    write(boards, "a", 1)
    write(journal, "b", 1)
    assert ("a", "b") == boards.board_keys(RUN)
    write(journal, "b", 2)
    assert (1, 1) == boards.board_read(RUN, "a")
    assert 3 == write(boards, "b", 3)
    assert (3, 3) == boards.board_read(RUN, "b")


@pytest.mark.parametrize("lost_after", range(5))
def test_a_flush_at_any_point_loses_nothing(
    boards: ServedBoards, client: redis.Redis, lost_after: int
) -> None:
    for n in range(4):
        if n == lost_after:
            client.flushall()
        assert n + 1 == write(boards, "k", n, expected=n)
        write(boards, f"k{n}", n)
    if lost_after == 4:
        client.flushall()
    assert (3, 4) == boards.board_read(RUN, "k")
    assert ("k", "k0", "k1", "k2", "k3") == boards.board_keys(RUN)


def test_a_flush_between_a_look_and_taking_up_leaves_no_hole(
    journal: PostgresJournal, client: redis.Redis
) -> None:
    decider = Decider(journal)
    boards = ServedBoards(decider, client)
    write(boards, "early", "kept")
    decider.after = client.flushall
    write(boards, "late", "kept")  # its copy has no early any more
    decider.after = lambda: None
    assert ("kept", 1) == boards.board_read(RUN, "early")
    assert ("kept", 1) == boards.board_read(RUN, "late")


def test_a_stale_replica_is_brought_up_to_date(boards: ServedBoards, client: redis.Redis) -> None:
    write(boards, "k", "old")
    replica = client.dump(board_key(RUN))
    write(boards, "k", "new")
    assert replica
    client.restore(board_key(RUN), 0, replica, replace=True)
    assert ("new", 2) == boards.board_read(RUN, "k")
    assert 3 == write(boards, "k", "newer", expected=2)


def test_who_is_late_does_not_bring_old_values_back(
    journal: PostgresJournal, client: redis.Redis, boards: ServedBoards
) -> None:
    write(boards, "k", "old")
    client.flushall()
    slow = Decider(journal)

    def overtake() -> None:
        slow.after = lambda: None
        write(boards, "k", "new")

    slow.after = overtake
    assert ("old", 1) == ServedBoards(slow, client).board_read(RUN, "k")
    assert ("new", 2) == boards.board_read(RUN, "k")
    assert b'2 "new"' == client.hget(board_key(RUN), "=k")


def test_a_copy_decides_nothing(
    journal: PostgresJournal, boards: ServedBoards, client: redis.Redis
) -> None:
    write(boards, "k", 1)
    client.hset(board_key(RUN), "=k", "7 9")
    with pytest.raises(ToolError, match="is at version 1, not 7"):
        write(boards, "k", 2, expected=7)
    assert (1, 1) == journal.board_read(RUN, "k")


def test_boards_work_without_redis(
    journal: PostgresJournal, caplog: pytest.LogCaptureFixture
) -> None:
    with quick_client(NOWHERE) as client:
        boards = ServedBoards(journal, client, pause_seconds=0.0)
        for n in range(5):
            assert n + 1 == write(boards, "k", n)
            assert (n, n + 1) == boards.board_read(RUN, "k")
            assert ("k",) == boards.board_keys(RUN)
    assert 1 == len(caplog.records)
    assert "Redis serves no blackboards" in caplog.text


def test_boards_outlive_redis_and_use_it_again(
    journal: PostgresJournal, server_directory: Path
) -> None:
    server = EmbeddedValkey(server_directory, durable=False)
    with server:
        url = server.url
        port = int(url.rpartition(":")[2].partition("/")[0])
        with quick_client(url) as client:
            boards = ServedBoards(journal, client, pause_seconds=0.0)
            write(boards, "k", 1)
            server.stop()
            assert 2 == write(boards, "k", 2)
            assert (2, 2) == boards.board_read(RUN, "k")
            again = EmbeddedValkey(server_directory, durable=False, choose_port=lambda: port)
            with again:
                assert (2, 2) == boards.board_read(RUN, "k")
                assert b"2" == client.hget(board_key(RUN), "#seq")


def test_a_redis_that_is_full_changes_nothing(boards: ServedBoards, client: redis.Redis) -> None:
    client.config_set("maxmemory", 1)
    try:
        assert 1 == write(boards, "k", "v")
        assert ("v", 1) == boards.board_read(RUN, "k")
    finally:
        client.config_set("maxmemory", 0)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda client: client.set(board_key(RUN), "surprise"),
        lambda client: client.hset(board_key(RUN), "#seq", "surprise"),
        lambda client: client.hset(board_key(RUN), "=k", "surprise"),
        lambda client: client.hset(board_key(RUN), "=k", b"\xff"),
    ],
    ids=["another type", "no number", "no value", "no text"],
)
def test_a_copy_that_makes_no_sense_is_not_used(
    boards: ServedBoards, client: redis.Redis, spoil: Callable[[redis.Redis], object]
) -> None:
    write(boards, "k", "v")
    spoil(client)
    assert ("v", 1) == boards.board_read(RUN, "k")
    assert ("k",) == boards.board_keys(RUN)
    assert 2 == write(boards, "k", "w")


def test_a_write_that_counts_does_not_fail_because_the_copy_does(
    journal: PostgresJournal, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    decider = Decider(journal)

    def fail() -> None:
        raise JournalError("The database is restarting.")

    decider.after = fail
    assert 1 == write(ServedBoards(decider, client), "k", "v")
    assert "stays behind: The database is restarting." in caplog.text


def test_no_key_is_mistaken_for_the_number_of_the_last_write(boards: ServedBoards) -> None:
    for key in ("#seq", "=", "=k", "k"):
        write(boards, key, key)
    for key in ("#seq", "=", "=k", "k"):
        assert (key, 1) == boards.board_read(RUN, key)
    assert ("#seq", "=", "=k", "k") == boards.board_keys(RUN)


def test_text_that_neither_store_keeps_as_text_survives_in_values(
    boards: ServedBoards, client: redis.Redis
) -> None:
    value = {"a\0b": ["\ud800", "\U0001f642", "é\u2028"]}
    write(boards, "ключ \U0001f642", value)
    assert (value, 1) == boards.board_read(RUN, "ключ \U0001f642")
    client.flushall()
    assert (value, 1) == boards.board_read(RUN, "ключ \U0001f642")


def test_all_copies_of_a_tree_have_its_hash_tag_and_go_away(
    boards: ServedBoards, client: redis.Redis
) -> None:
    for scope in (RUN, f"{RUN}/3/tool/0"):
        boards.board_write(scope, "k", 1, run_id=RUN)
        assert board_key(scope).startswith(f"heartbit:{{{RUN}}}:board:")
        assert 0 < client.ttl(board_key(scope)) <= 24 * 3600
    assert 2 == len(list(client.scan_iter("heartbit:*")))


def test_readers_beside_writers_never_go_back(
    journal: PostgresJournal, boards: ServedBoards, client: redis.Redis
) -> None:
    writes, readers = 60, 3
    other = ServedBoards(journal, client)

    def writer(mine: Any) -> None:
        for n in range(writes):
            write(mine, "k", n)

    def reader(_: int) -> list[int]:
        versions = [boards.board_read(RUN, "k")[1]]
        while versions[-1] < 3 * writes:
            if len(versions) % 20 == 0:
                client.flushall()
            versions.append(boards.board_read(RUN, "k")[1])
        return versions

    with ThreadPoolExecutor(3 + readers) as threads:
        writing = [threads.submit(writer, each) for each in (boards, other, journal)]
        for versions in threads.map(reader, range(readers)):
            assert sorted(versions) == versions
        for each in writing:
            each.result()


def test_a_blackboard_of_a_run_is_served_without_blocking_its_loop(boards: ServedBoards) -> None:
    async def main() -> None:
        board = DurableBlackboard(boards, RUN, RUN)
        assert [1, 1, 1] == await asyncio.gather(*(board.write(key, 1) for key in "abc"))
        assert ("a", "b", "c") == await board.keys()
        assert (1, 1) == await board.read("b")

    asyncio.run(main())


KEYS = st.sampled_from("abc")
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), KEYS),
        st.tuples(st.just("write elsewhere"), KEYS),
        st.tuples(st.just("crash after commit"), KEYS),
        st.tuples(st.just("read"), KEYS),
        st.tuples(st.just("flush"), KEYS),
        st.tuples(st.just("keep a replica"), KEYS),
        st.tuples(st.just("fail over"), KEYS),
    ),
    max_size=25,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=ACTS)
def test_whatever_becomes_of_the_copy_reads_give_the_last_write(
    client: redis.Redis, acts: list[tuple[str, str]]
) -> None:
    client.flushall()
    journal = InMemoryJournal()
    here, elsewhere = ServedBoards(journal, client), ServedBoards(journal, client)
    expected: dict[str, tuple[int, int]] = {}
    replica: bytes | None = None
    writers: dict[str, Any] = {
        "write": here,
        "write elsewhere": elsewhere,
        "crash after commit": journal,
    }
    for n, (act, key) in enumerate(acts):
        if act in writers:
            expected[key] = (n, write(writers[act], key, n))
        elif act == "flush":
            client.flushall()
        elif act == "keep a replica":
            replica = client.dump(board_key(RUN))
        elif act == "fail over" and replica:
            client.restore(board_key(RUN), 0, replica, replace=True)
        elif act == "read":
            assert expected.get(key, (None, 0)) == here.board_read(RUN, key)
    assert tuple(sorted(expected)) == elsewhere.board_keys(RUN)
    assert [expected.get(key, (None, 0)) for key in "abc"] == [
        here.board_read(RUN, key) for key in "abc"
    ]
