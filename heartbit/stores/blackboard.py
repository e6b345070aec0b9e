"""Blackboards of durable runs: PostgreSQL decides, Redis serves.

A write counts when it is in the journal's database; the copy in Redis only saves reading it from
there. The writes of a board are numbered without gaps, the copy knows the number of the last one it
has, and every read asks the database for those after it. So a copy that is lost, late or older than
a write still gives the newest value, and is whole again afterwards.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import redis

from heartbit.errors import JournalError
from heartbit.stores.board_values import checked_key
from heartbit.stores.records import BoardEntry
from heartbit.stores.redis_client import PAUSE_SECONDS, Outage

TTL_SECONDS = 24 * 3600
SEQ = "#seq"  # every other field is a key behind a prefix of its own

# Takes up the writes that follow on what the hash has, and none behind a gap: the hash always is
# the board as it was after write #seq.
TAKE_UP = """
local seq = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
for i = 3, #ARGV, 3 do
    local number = tonumber(ARGV[i])
    if number == seq + 1 then
        redis.call('HSET', KEYS[1], ARGV[i + 1], ARGV[i + 2], ARGV[1], ARGV[i])
        seq = number
    end
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
"""

T = TypeVar("T")

_logger = logging.getLogger("heartbit.blackboard")


class BoardAccess(Protocol):
    """What agents do with blackboards: part of `Boards`, with its promises."""

    def board_read(self, scope: str, key: str) -> tuple[Any, int]:
        """The value of a key and its version; (None, 0) if there is none."""

    def board_keys(self, scope: str) -> tuple[str, ...]:
        """All keys of a scope, sorted."""

    def board_write(
        self, scope: str, key: str, value: Any, *, run_id: str, expected: int | None = None
    ) -> int:
        """Write a key and give its new version."""


class NumberedBoards(BoardAccess, Protocol):
    """The boards that decide."""

    def board_after(self, scope: str, seq: int) -> Sequence[BoardEntry]:
        """The writes of a scope after number `seq`, in order."""


class DurableBlackboard:
    """The `Blackboard` of one scope, written on behalf of one run."""

    def __init__(self, boards: BoardAccess, scope: str, run_id: str) -> None:
        self._boards = boards
        self._scope = scope
        self._run_id = run_id

    async def read(self, key: str) -> tuple[Any, int]:
        """The value of `key` and its version; (None, 0) if there is none."""
        return await asyncio.to_thread(self._boards.board_read, self._scope, key)

    async def write(self, key: str, value: Any, *, expected_version: int | None = None) -> int:
        """Set `key` and return its new version.

        Raises:
            ToolError: `expected_version` is given and is not the current version.
        """
        return await asyncio.to_thread(
            self._boards.board_write,
            self._scope,
            key,
            value,
            run_id=self._run_id,
            expected=expected_version,
        )

    async def keys(self) -> tuple[str, ...]:
        """All keys, sorted."""
        return await asyncio.to_thread(self._boards.board_keys, self._scope)


class ServedBoards:
    """`BoardAccess` with copies in Redis; without Redis, that of the boards that decide."""

    def __init__(
        self,
        boards: NumberedBoards,
        client: redis.Redis,
        *,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        """After a failure Redis is left alone for `pause_seconds`."""
        self._boards = boards
        self._client = client
        self._take_up = client.register_script(TAKE_UP)
        self._outage = Outage(
            _logger,
            gone="Redis serves no blackboards, so they are read from the database",
            back="Redis serves blackboards again.",
            pause_seconds=pause_seconds,
        )

    def board_read(self, scope: str, key: str) -> tuple[Any, int]:
        """The value of a key and its version; (None, 0) if there is none."""
        field = _field(checked_key(key))
        found = self._ask(lambda: self._value(scope, field))
        if found is None:
            return self._boards.board_read(scope, key)
        seq, stored = found
        newer = [each for each in self._missing(scope, seq) if each.key == key]
        return (newer[-1].value, newer[-1].version) if newer else stored

    def board_keys(self, scope: str) -> tuple[str, ...]:
        """All keys of a scope, sorted."""
        found = self._ask(lambda: self._keys(scope))
        if found is None:
            return self._boards.board_keys(scope)
        seq, keys = found
        return tuple(sorted(keys.union(each.key for each in self._missing(scope, seq))))

    def board_write(
        self, scope: str, key: str, value: Any, *, run_id: str, expected: int | None = None
    ) -> int:
        """Write a key and give its new version.

        Raises:
            ToolError: the key is not at version `expected`, it cannot be a key, or the value is
                not JSON.
        """
        version = self._boards.board_write(scope, key, value, run_id=run_id, expected=expected)
        self.refresh(scope)
        return version

    def refresh(self, scope: str) -> None:
        """Bring the copy of a board up to date, after a commit that wrote to it. Never raises:
        whoever reads next would do the same.
        """
        found = self._ask(lambda: _number(self._client.hget(board_key(scope), SEQ)))
        if found is None:
            return
        try:
            self._missing(scope, found)
        except JournalError as error:
            _logger.warning("The copy of a blackboard stays behind: %s", error)

    def _missing(self, scope: str, seq: int) -> Sequence[BoardEntry]:
        """What a copy that has the writes up to `seq` has not seen, and now has."""
        entries = self._boards.board_after(scope, seq)
        if entries:
            arguments = [SEQ, TTL_SECONDS, *(part for each in entries for part in _parts(each))]
            self._ask(lambda: self._take_up(keys=[board_key(scope)], args=arguments))
        return entries

    def _value(self, scope: str, field: str) -> tuple[int, tuple[Any, int]]:
        found: list[Any] = self._client.hmget(board_key(scope), [SEQ, field])
        return _number(found[0]), _decoded(found[1])

    def _keys(self, scope: str) -> tuple[int, set[str]]:
        with self._client.pipeline(transaction=True) as pipeline:
            pipeline.hget(board_key(scope), SEQ)
            pipeline.hkeys(board_key(scope))
            seq, fields = pipeline.execute()
        return _number(seq), {field.decode()[1:] for field in fields if field != SEQ.encode()}

    def _ask(self, question: Callable[[], T]) -> T | None:
        """What Redis says; None if it does not, or nothing that makes sense."""
        if self._outage.is_on:
            return None
        try:
            answer = question()
        except (redis.RedisError, OSError, ValueError) as error:
            self._outage.failed(error)
            return None
        self._outage.worked()
        return answer


def board_key(scope: str) -> str:
    """Where the copy of a board is; a scope begins with the id of the root run."""
    return f"heartbit:{{{scope.partition('/')[0]}}}:board:{scope}"


def _field(key: str) -> str:
    return f"={key}"


def _parts(entry: BoardEntry) -> tuple[int, str, str]:
    """A write as the script takes it; the JSON is ASCII, so that any text survives."""
    text = json.dumps(entry.value, separators=(",", ":"))
    return entry.seq, _field(entry.key), f"{entry.version} {text}"


def _number(stored: bytes | str | None) -> int:
    return int(stored or 0)


def _decoded(stored: bytes | None) -> tuple[Any, int]:
    if stored is None:
        return None, 0
    version, _, text = stored.decode().partition(" ")
    return json.loads(text), int(version)
