"""What `heartbit doctor` asks a database server."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from heartbit.stores.database import connect
from heartbit.stores.failures import mapped

_QUESTION = """
select current_setting('server_version_num')::integer,
       current_setting('max_connections')::integer,
       (select count(*)::integer from pg_stat_activity where backend_type = 'client backend'),
       (select default_version from pg_available_extensions where name = 'vector'),
       extract(epoch from clock_timestamp())::float8
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerFacts:
    """How a server is set up. `version` is like 180001; `vector` is the release of pgvector.

    `ahead_seconds` is how much its clock is ahead of ours, half of the way to it included.
    """

    version: int
    max_connections: int
    connections: int
    vector: str | None
    ahead_seconds: float


def examine(url: str, *, now: Callable[[], float] = time.time) -> ServerFacts:
    """Ask the server.

    Raises:
        JournalError: it cannot be asked; why, in one sentence.
    """
    with mapped(), connect(url) as connection:
        before = now()
        row = connection.execute(_QUESTION).fetchone()
        middle = (before + now()) / 2
    assert row is not None  # noqa: S101 - the question always has an answer
    version, maximum, current, vector, clock = row
    return ServerFacts(
        version=version,
        max_connections=maximum,
        connections=current,
        vector=vector,
        ahead_seconds=clock - middle,
    )
