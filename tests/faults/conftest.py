"""Lines to real servers that a test can cut, and fleets of real worker processes behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.fleet import Fleet
from tests.support.proxy import Proxy

MakeFleet = Callable[..., Fleet]
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of them are slow, for they start processes, but not those of the proxy alone."""
    for item in items:
        if item.path.parent == HERE and item.path.name != "test_proxy.py":
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def make_fleet(tmp_path: Path, postgres: str, valkey: str) -> Iterator[MakeFleet]:
    """Makes a fleet on empty servers, without workers yet; it is gone after the test."""
    with ExitStack() as made:

        def make(**options: Any) -> Fleet:
            places = {"database": postgres, "broker": valkey} | options
            fleet = Fleet(tmp_path, **places)
            made.callback(fleet.stop)
            return fleet

        yield make


@pytest.fixture
def to_postgres(postgres: str) -> Iterator[Proxy]:
    """A line to the database."""
    proxy = Proxy.before(postgres)
    yield proxy
    proxy.close()


@pytest.fixture
def to_redis(valkey: str) -> Iterator[Proxy]:
    """A line to the broker."""
    proxy = Proxy.before(valkey)
    yield proxy
    proxy.close()
