"""What every blackboard store promises; a store joins by becoming a fixture named in STORES."""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Callable, Coroutine, Iterator
from datetime import date
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heartbit.errors import ToolError
from heartbit.stores.base import Blackboard
from heartbit.stores.blackboard import BoardAccess, DurableBlackboard, ServedBoards
from heartbit.stores.in_memory import InMemoryBlackboards
from heartbit.stores.memory_journal import InMemoryJournal
from heartbit.stores.postgres import PostgresJournal
from heartbit.stores.redis_client import quick_client
from tests.support.json_values import JSON_VALUES

Scopes = Callable[[str], Blackboard]
Store = Callable[[], Scopes]
STORES = ("in_memory", "journal_in_memory", "journal_in_postgres", "served_by_redis")

every_store = pytest.mark.parametrize("store", STORES, indirect=True)
any_number_of_boards = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def store(request: pytest.FixtureRequest) -> Store:
    """Makes scopes that nobody has used."""
    made: Store = request.getfixturevalue(request.param)
    return made


@pytest.fixture
def in_memory() -> Store:
    """Blackboards of the standalone path."""
    return lambda: InMemoryBlackboards().scope


@pytest.fixture
def journal_in_memory() -> Store:
    """Blackboards of a journal in memory."""
    return lambda: unused_scopes(InMemoryJournal())


@pytest.fixture
def journal_in_postgres(postgres: str) -> Iterator[Store]:
    """Blackboards of a journal in PostgreSQL."""
    journal = PostgresJournal(postgres)
    yield lambda: unused_scopes(journal)
    journal.close()


@pytest.fixture
def served_by_redis(postgres: str, valkey: str) -> Iterator[Store]:
    """The same with copies in Redis."""
    journal = PostgresJournal(postgres)
    with quick_client(valkey) as client:
        yield lambda: unused_scopes(ServedBoards(journal, client))
    journal.close()


def unused_scopes(boards: BoardAccess) -> Scopes:
    """The blackboards of a run tree of its own."""
    root = str(uuid.uuid4())
    return lambda name: DurableBlackboard(boards, f"{root}/{name}", root)


def on_board(store: Store, scenario: Callable[[Blackboard], Coroutine[Any, Any, None]]) -> None:
    """Run `scenario` on a board of its own."""

    async def main() -> None:
        await scenario(store()("run"))

    asyncio.run(main())


@every_store
def test_an_absent_key_has_version_0(store: Store) -> None:
    async def scenario(board: Blackboard) -> None:
        assert (None, 0) == await board.read("k")
        assert () == await board.keys()

    on_board(store, scenario)


@every_store
def test_every_write_makes_the_next_version(store: Store) -> None:
    async def scenario(board: Blackboard) -> None:
        assert [1, 2] == [await board.write("k", "a"), await board.write("k", "a")]
        assert 1 == await board.write("other", None)
        assert ("a", 2) == await board.read("k")
        assert (None, 1) == await board.read("other")

    on_board(store, scenario)


@every_store
def test_keys_are_sorted(store: Store) -> None:
    async def scenario(board: Blackboard) -> None:
        for key in ("b", "é", "a:2", "a:10", "Z"):
            await board.write(key, 1)
        assert ("Z", "a:10", "a:2", "b", "é") == await board.keys()

    on_board(store, scenario)


@every_store
@pytest.mark.parametrize("expected", [0, 1, 3])
def test_a_write_for_another_version_changes_nothing(store: Store, expected: int) -> None:
    async def scenario(board: Blackboard) -> None:
        await board.write("k", "a")
        await board.write("k", "b")
        with pytest.raises(ToolError, match=f"is at version 2, not {expected}"):
            await board.write("k", "c", expected_version=expected)
        assert ("b", 2) == await board.read("k")
        assert 3 == await board.write("k", "c", expected_version=2)

    on_board(store, scenario)


@every_store
def test_of_many_writers_for_one_version_exactly_one_wins(store: Store) -> None:
    async def scenario(board: Blackboard) -> None:
        results = await asyncio.gather(
            *(board.write("k", n, expected_version=0) for n in range(20)), return_exceptions=True
        )
        winners = [n for n, result in enumerate(results) if result == 1]
        assert 1 == len(winners)
        assert (winners[0], 1) == await board.read("k")

    on_board(store, scenario)


@every_store
def test_a_counter_loses_no_increment_under_concurrent_retries(
    store: Store,
) -> None:
    async def increment(board: Blackboard) -> None:
        while True:
            value, version = await board.read("n")
            await asyncio.sleep(0)  # lets every other writer in between reading and writing
            try:
                await board.write("n", (value or 0) + 1, expected_version=version)
            except ToolError:
                continue
            return

    async def scenario(board: Blackboard) -> None:
        await asyncio.gather(*(increment(board) for _ in range(20)))
        assert (20, 20) == await board.read("n")

    on_board(store, scenario)


@every_store
def test_nobody_changes_the_board_through_a_value_he_holds(store: Store) -> None:
    async def scenario(board: Blackboard) -> None:
        value = {"list": [1]}
        await board.write("k", value)
        value["list"].append(2)
        read, _ = await board.read("k")
        read["list"].append(3)
        assert ({"list": [1]}, 1) == await board.read("k")

    on_board(store, scenario)


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)


@every_store
@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, date(2031, 1, 2), b"x", {1}, (1, 2), {1: "a"}, [object()], ENDLESS],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_json_is_refused_and_not_changed_into_it(store: Store, value: Any) -> None:
    async def scenario(board: Blackboard) -> None:
        with pytest.raises(ToolError, match="A blackboard value must be JSON"):
            await board.write("k", value)
        assert (None, 0) == await board.read("k")

    on_board(store, scenario)


@every_store
@pytest.mark.parametrize("key", ["", "k" * 513, "é" * 257, "a\0b", "\ud800"], ids=ascii)
def test_a_key_that_not_every_store_can_keep_is_refused(store: Store, key: str) -> None:
    async def scenario(board: Blackboard) -> None:
        for attempt in (board.write(key, 1), board.read(key)):
            with pytest.raises(ToolError, match="A blackboard key"):
                await attempt

    on_board(store, scenario)


@every_store
def test_scopes_share_nothing_and_one_name_is_one_board(store: Store) -> None:
    async def main() -> None:
        scopes = store()
        await scopes("run").write("k", "outer")
        assert (None, 0) == await scopes("run/1/sub/0").read("k")
        assert ("outer", 1) == await scopes("run").read("k")

    asyncio.run(main())


@every_store
@any_number_of_boards
@given(value=JSON_VALUES, key=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_json_comes_back_as_it_was(store: Store, value: Any, key: str) -> None:
    key = key.replace("\0", "0")[:100]

    async def scenario(board: Blackboard) -> None:
        await board.write(key, value)
        got, _ = await board.read(key)
        assert repr(value) == repr(got)
        assert (key,) == await board.keys()

    on_board(store, scenario)


def test_a_forgotten_scope_is_empty_again() -> None:
    async def main() -> None:
        boards = InMemoryBlackboards()
        await boards.scope("run").write("k", 1)
        boards.forget("run")
        boards.forget("never there")
        assert () == await boards.scope("run").keys()

    asyncio.run(main())
