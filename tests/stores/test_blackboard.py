"""What every blackboard store promises; a store joins by adding itself to STORES."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbit.errors import ToolError
from heartbit.stores.base import Blackboard
from heartbit.stores.in_memory import InMemoryBlackboards
from tests.support.json_values import JSON_VALUES

Scopes = Callable[[str], Blackboard]
STORES: dict[str, Callable[[], Scopes]] = {"in_memory": lambda: InMemoryBlackboards().scope}

every_store = pytest.mark.parametrize("store", STORES.values(), ids=STORES)


def on_board(
    store: Callable[[], Scopes], scenario: Callable[[Blackboard], Coroutine[Any, Any, None]]
) -> None:
    """Run `scenario` on a board of its own."""

    async def main() -> None:
        await scenario(store()("run"))

    asyncio.run(main())


@every_store
def test_an_absent_key_has_version_0(store: Callable[[], Scopes]) -> None:
    async def scenario(board: Blackboard) -> None:
        assert (None, 0) == await board.read("k")
        assert () == await board.keys()

    on_board(store, scenario)


@every_store
def test_every_write_makes_the_next_version(store: Callable[[], Scopes]) -> None:
    async def scenario(board: Blackboard) -> None:
        assert [1, 2] == [await board.write("k", "a"), await board.write("k", "a")]
        assert 1 == await board.write("other", None)
        assert ("a", 2) == await board.read("k")
        assert (None, 1) == await board.read("other")

    on_board(store, scenario)


@every_store
def test_keys_are_sorted(store: Callable[[], Scopes]) -> None:
    async def scenario(board: Blackboard) -> None:
        for key in ("b", "é", "a:2", "a:10", "Z"):
            await board.write(key, 1)
        assert ("Z", "a:10", "a:2", "b", "é") == await board.keys()

    on_board(store, scenario)


@every_store
@pytest.mark.parametrize("expected", [0, 1, 3])
def test_a_write_for_another_version_changes_nothing(
    store: Callable[[], Scopes], expected: int
) -> None:
    async def scenario(board: Blackboard) -> None:
        await board.write("k", "a")
        await board.write("k", "b")
        with pytest.raises(ToolError, match=f"is at version 2, not {expected}"):
            await board.write("k", "c", expected_version=expected)
        assert ("b", 2) == await board.read("k")
        assert 3 == await board.write("k", "c", expected_version=2)

    on_board(store, scenario)


@every_store
def test_of_many_writers_for_one_version_exactly_one_wins(store: Callable[[], Scopes]) -> None:
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
    store: Callable[[], Scopes],
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
def test_nobody_changes_the_board_through_a_value_he_holds(store: Callable[[], Scopes]) -> None:
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
def test_what_is_not_json_is_refused_and_not_changed_into_it(
    store: Callable[[], Scopes], value: Any
) -> None:
    async def scenario(board: Blackboard) -> None:
        with pytest.raises(ToolError, match="A blackboard value must be JSON"):
            await board.write("k", value)
        assert (None, 0) == await board.read("k")

    on_board(store, scenario)


@every_store
@pytest.mark.parametrize("key", ["", "k" * 513, "é" * 257, "a\0b", "\ud800"], ids=ascii)
def test_a_key_that_not_every_store_can_keep_is_refused(
    store: Callable[[], Scopes], key: str
) -> None:
    async def scenario(board: Blackboard) -> None:
        for attempt in (board.write(key, 1), board.read(key)):
            with pytest.raises(ToolError, match="A blackboard key"):
                await attempt

    on_board(store, scenario)


@every_store
def test_scopes_share_nothing_and_one_name_is_one_board(store: Callable[[], Scopes]) -> None:
    async def main() -> None:
        scopes = store()
        await scopes("run").write("k", "outer")
        assert (None, 0) == await scopes("run/1/sub/0").read("k")
        assert ("outer", 1) == await scopes("run").read("k")

    asyncio.run(main())


@every_store
@given(value=JSON_VALUES, key=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_json_comes_back_as_it_was(store: Callable[[], Scopes], value: Any, key: str) -> None:
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
