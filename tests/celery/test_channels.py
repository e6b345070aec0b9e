"""The channels of a worker keep their client of Redis, as long as its connections are the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kombu import Connection
from kombu.transport import redis

from heartbit.consumer import Channel


@pytest.fixture
def channel(valkey: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A channel as a worker opens it."""
    monkeypatch.setattr(redis.Transport, "Channel", Channel)
    with Connection(valkey) as connection:
        yield connection.default_channel


def test_commands_share_a_client(channel: Any) -> None:
    """Making one costs more than most commands."""
    with channel.conn_or_acquire() as first, channel.conn_or_acquire() as second:
        assert first is second
        assert first.ping()


def test_who_blocks_has_a_client_of_its_own(channel: Any) -> None:
    """It has a connection to itself, where a command would wait for the next message."""
    with channel.conn_or_acquire() as shared:
        assert channel.client is not shared


def test_a_new_pool_has_a_new_client(channel: Any) -> None:
    """What was lost with a connection is not used again."""
    with channel.conn_or_acquire() as lost:
        channel._disconnect_pools()
    with channel.conn_or_acquire() as found:
        assert found is not lost
        assert found.ping()
