"""Fixtures with real servers: PostgreSQL and Valkey from the wheels of the `embedded` extra.

Nothing is assumed on the machine and nothing is skipped. A test that stops or restarts a server
starts one of its own.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
import redis
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from heartbit.embedded import EmbeddedValkey
from heartbit.stores.migrate import migrate
from tests.support.shared_postgres import (
    TEMPLATE,
    SharedPostgres,
    create_database,
    delete_all_rows,
    drop_database,
)

DatabaseMaker = Callable[..., str]


@pytest.fixture
def server_directory() -> Iterator[Path]:
    """A directory where embedded servers can keep their data, whoever runs the tests.

    Not below pytest's: as root a server is another user, who may not enter that.
    """
    with tempfile.TemporaryDirectory(prefix="heartbit-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.fixture(scope="session")
def postgres_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The url of the session's PostgreSQL server; its database is nobody's, leave it empty."""
    base = tmp_path_factory.getbasetemp()
    shared = SharedPostgres(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)
    # Not at the end of the fixture: waiting for the other processes is not part of the last test.
    request.config.add_cleanup(shared.leave)
    return shared.join()


@pytest.fixture(scope="session")
def _postgres_database(postgres_server: str) -> str:
    name = f"tests_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
    return create_database(postgres_server, name, template=TEMPLATE)


@pytest.fixture
def postgres(_postgres_database: str) -> str:
    """The url of a database with our tables, all of them empty."""
    delete_all_rows(_postgres_database)
    return _postgres_database


@pytest.fixture
def make_database(postgres_server: str) -> Iterator[DatabaseMaker]:
    """Makes databases without our tables, gone after the test.

    From template1 they have pgvector; with `template="template0"` they don't.
    """
    with ExitStack() as made:

        def make(template: str = "template1") -> str:
            name = f"made_{uuid.uuid4().hex}"
            url = create_database(postgres_server, name, template=template)
            made.callback(drop_database, postgres_server, name)
            return url

        yield make


@pytest.fixture
def postgres_without_vectors(make_database: DatabaseMaker) -> Iterator[str]:
    """The url of a database with our tables and without pgvector, for a role that cannot add it."""
    url, role = make_database("template0"), f"role_{uuid.uuid4().hex}"
    names = {
        "role": sql.Identifier(role),
        "password": sql.Literal(conninfo_to_dict(url)["password"]),
    }
    migrate(url)
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in (
            "create role {role} login password {password}",
            "grant usage on schema public to {role}",
            "grant all on all tables in schema public to {role}",
        ):
            connection.execute(sql.SQL(statement).format(**names))
        yield make_conninfo(url, user=role)
        for statement in ("drop owned by {role}", "drop role {role}"):
            connection.execute(sql.SQL(statement).format(**names))


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The url of this process's Valkey server."""
    with EmbeddedValkey(tmp_path_factory.mktemp("valkey"), durable=False) as server:
        yield server.url


@pytest.fixture
def valkey(valkey_server: str) -> str:
    """The url of a Valkey server that holds nothing."""
    with redis.Redis.from_url(valkey_server) as client:
        client.flushall()
    return valkey_server
