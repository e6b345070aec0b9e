"""Embedded servers live exactly as long as the process that started them."""

from __future__ import annotations

import os
import pwd
import signal
import site
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from heartbit.embedded import EmbeddedPostgres, EmbeddedValkey
from heartbit.embedded.account import may_execute, run_as
from heartbit.errors import ConfigError
from tests.support.embedded_owner import is_gone, owning
from tests.support.repository import ROOT

pytestmark = pytest.mark.slow

IS_ROOT = os.geteuid() == 0


def answer(postgres_url: str, valkey_url: str) -> None:
    """Fail unless both servers do."""
    with psycopg.connect(postgres_url) as connection:
        assert (1,) == connection.execute("select 1").fetchone()
    with redis.Redis.from_url(valkey_url) as client:
        assert client.ping()


@pytest.mark.parametrize("how", ["", "thread", "forked"])
def test_kill_9_of_the_owner_leaves_no_server(server_directory: Path, how: str) -> None:
    """Not either when another thread started them, or a forked child holds what the owner held."""
    with owning(server_directory, how) as owner:
        answer(owner.postgres_url, owner.valkey_url)
        owner.process.kill()
        assert [] == owner.left()


def test_an_owner_that_ends_without_stopping_leaves_no_server(server_directory: Path) -> None:
    """An unhandled exception or sys.exit is enough."""
    with owning(server_directory, "leaving") as owner:
        assert 0 == owner.process.wait()
        assert [] == owner.left()


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal is Linux's")
def test_kill_9_of_the_keeper_leaves_no_server(server_directory: Path) -> None:
    """What stands between owner and server may be killed as well."""
    with owning(server_directory) as owner:
        for keeper in owner.keepers:
            keeper.kill()
        assert [] == owner.left()


def test_ctrl_c_in_the_terminal_reaches_the_owner_only(server_directory: Path) -> None:
    """The owner stops its workers first; until then the servers must answer."""
    with owning(server_directory) as owner:
        os.killpg(owner.process.pid, signal.SIGINT)
        answer(owner.postgres_url, owner.valkey_url)


def test_after_kill_9_the_next_owner_takes_the_directory_and_finds_the_data(
    server_directory: Path,
) -> None:
    """The lock ends with those who hold it, also while they are still shutting down."""
    with owning(server_directory) as owner:
        with psycopg.connect(owner.postgres_url, autocommit=True) as connection:
            connection.execute("create table kept as select 7 as answer")
        with redis.Redis.from_url(owner.valkey_url) as client:
            client.set("kept", "7")
        owner.process.kill()
        owner.process.wait()
        with (
            EmbeddedPostgres(server_directory / "postgres") as postgres,
            EmbeddedValkey(server_directory / "valkey") as valkey,
        ):
            with psycopg.connect(postgres.url) as connection:
                assert (7,) == connection.execute("select answer from kept").fetchone()
            with redis.Redis.from_url(valkey.url) as client:
                assert b"7" == client.get("kept")


class ImpatientValkey(EmbeddedValkey):
    """Gives what a killed owner left behind no time at all."""

    grace_seconds = 0.0


def test_a_server_that_outlives_its_owner_for_a_moment_keeps_the_directory(
    server_directory: Path,
) -> None:
    """Two servers on the same files would ruin them; afterwards the next one starts."""
    with owning(server_directory) as owner:
        keeper = owner.keepers[1]
        keeper.suspend()
        owner.process.kill()
        owner.process.wait()
        try:
            with pytest.raises(ConfigError, match="has lost its owner and is still stopping;"):
                ImpatientValkey(server_directory / "valkey").start()
        finally:
            keeper.resume()
        with EmbeddedValkey(server_directory / "valkey") as valkey:
            assert valkey.pid != owner.servers[1].pid


@pytest.mark.parametrize(
    ("kind", "name"), [(EmbeddedPostgres, "postgres"), (EmbeddedValkey, "valkey")]
)
def test_a_second_process_is_told_who_has_the_directory(
    server_directory: Path, kind: type[EmbeddedPostgres | EmbeddedValkey], name: str
) -> None:
    """At once, and the first goes on undisturbed."""
    with owning(server_directory) as owner:
        with pytest.raises(ConfigError) as caught:
            kind(server_directory / name).start()
        expected = (
            f"The directory {server_directory / name} is in use by process {owner.process.pid};"
            " stop that one first or choose another directory."
        )
        assert expected == caught.value.message
        answer(owner.postgres_url, owner.valkey_url)


def test_a_server_that_dies_ends_its_keeper_and_frees_the_directory(server_directory: Path) -> None:
    """Stopping what has died already is no error, and it starts again."""
    server = EmbeddedValkey(server_directory)
    server.start()
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    server.stop()
    with server:
        assert server.url.startswith("redis://")


def test_an_ordinary_user_runs_both_servers_as_himself(server_directory: Path) -> None:
    """Root tries it as nobody, with a Python that nobody can execute."""
    options: dict[str, Any] = {}
    if IS_ROOT:
        nobody = pwd.getpwnam("nobody")
        pythons = [Path(sys.executable), Path("/usr/bin/python3")]
        reachable = [one for one in pythons if may_execute("nobody", one)]
        if not reachable:
            pytest.skip("no Python that nobody may execute: apt install python3")
        if run_as("nobody", ["ls", str(ROOT)]).returncode:
            pytest.skip(f"nobody may not read {ROOT}: chmod a+x it and what it is in")
        os.chown(server_directory, nobody.pw_uid, nobody.pw_gid)
        path = os.pathsep.join(site.getsitepackages())
        options = {
            "python": str(reachable[0]),
            "user": nobody.pw_uid,
            "group": nobody.pw_gid,
            "extra_groups": [],
            "env": os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        }
    with owning(server_directory, **options) as owner:
        answer(owner.postgres_url, owner.valkey_url)
        user = owner.keepers[0].uids().effective
        assert [user, user] == [server.uids().effective for server in owner.servers]
        assert user != 0
        assert 0o700 == (server_directory / "postgres").stat().st_mode & 0o777
        owner.process.kill()
        assert all(is_gone(server) for server in owner.servers)
