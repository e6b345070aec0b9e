"""Embedded servers start from nothing, keep what they were given, and let nobody else in."""

from __future__ import annotations

import os
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import psycopg
import pytest
import redis

from heartbit.embedded import EmbeddedPostgres, EmbeddedValkey
from heartbit.embedded.account import run_as
from heartbit.errors import ConfigError
from tests.support.repository import ROOT

Kind = type[EmbeddedPostgres] | type[EmbeddedValkey]
KINDS = pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedValkey])


def fetch(url: str, statement: str) -> tuple[object, ...] | None:
    """The first row of a statement that needs no parameters."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchone() if cursor.description else None


@pytest.mark.slow
def test_a_first_start_gives_a_database_with_pgvector(server_directory: Path) -> None:
    """And the role may create what a migration creates."""
    with EmbeddedPostgres(server_directory / "new", durable=False) as server:
        assert ("heartbit", "heartbit") == fetch(
            server.url, "select current_database()::text, current_user::text"
        )
        assert (1.0,) == fetch(server.url, "select '[1,0]'::vector <-> '[0,0]'::vector")
        fetch(server.url, "create database another")
        another = server.url.removesuffix("heartbit") + "another"
        assert (1.0,) == fetch(another, "select '[1,0]'::vector <-> '[0,0]'::vector")


@pytest.mark.slow
@pytest.mark.parametrize("durable", [True, False])
def test_only_a_server_for_tests_does_without_the_disk(
    server_directory: Path, durable: bool
) -> None:
    """The three settings that a crash of the machine would make us pay for."""
    expected = ("on",) * 3 if durable else ("off",) * 3
    with EmbeddedPostgres(server_directory, durable=durable) as server:
        assert expected == fetch(
            server.url,
            "select current_setting('fsync'), current_setting('synchronous_commit'),"
            " current_setting('full_page_writes')",
        )


@pytest.mark.slow
def test_the_other_version_of_the_wheel_runs_and_refuses_the_data_of_this_one(
    server_directory: Path,
) -> None:
    """PostgreSQL's own files are not read across versions."""
    with EmbeddedPostgres(server_directory, durable=False, version=16) as server:
        assert (16,) == fetch(
            server.url, "select current_setting('server_version_num')::int / 10000"
        )
    with pytest.raises(ConfigError, match="was written by PostgreSQL 16, and this is 18;"):
        EmbeddedPostgres(server_directory, durable=False).start()


def test_valkey_evicts_nothing_and_writes_down_everything(server_directory: Path) -> None:
    """A queue that loses its oldest messages when memory is short is none."""
    with (
        EmbeddedValkey(server_directory) as server,
        redis.Redis.from_url(server.url) as client,
    ):
        assert {"maxmemory-policy": "noeviction"} == client.config_get("maxmemory-policy")
        assert {"appendonly": "yes"} == client.config_get("appendonly")


@pytest.mark.slow
@KINDS
def test_a_second_start_finds_the_data(server_directory: Path, kind: Kind) -> None:
    """Below a path with blanks and letters of other languages, under the same password."""
    name = "mes données 'à moi' \"ici\" 日本"
    if os.geteuid() == 0 and run_as("nobody", ["ls", str(ROOT)]).returncode:
        name = name.replace('"', "")  # the programs are copied there, and initdb quotes no quote
    place = server_directory / name
    with kind(place) as server:
        write(server.url)
        first = server.url
    with kind(place) as server:
        assert "kept" == read(server.url)
        assert first.rpartition("@")[0] == server.url.rpartition("@")[0]


def write(url: str) -> None:
    """Keep a word in a server."""
    if url.startswith("redis"):
        with redis.Redis.from_url(url) as client:
            client.set("word", "kept")
    else:
        fetch(url, "create table words as select 'kept' as word")


def read(url: str) -> object:
    """The word that was kept."""
    if url.startswith("redis"):
        with redis.Redis.from_url(url, decode_responses=True) as client:
            return client.get("word")
    row = fetch(url, "select word from words")
    return row and row[0]


@KINDS
def test_it_listens_on_loopback_only(server_directory: Path, kind: Kind) -> None:
    """By TCP, and on one port."""
    with kind(server_directory, durable=False) as server:
        process = psutil.Process(server.pid)
        listening = {
            one.laddr.ip
            for one in process.net_connections("inet")
            if one.status == psutil.CONN_LISTEN
        }
        assert {"127.0.0.1"} == listening
        assert [] == [one for one in process.net_connections("unix") if one.laddr]


@KINDS
def test_nobody_comes_in_without_the_password(server_directory: Path, kind: Kind) -> None:
    """Neither with none nor with a wrong one."""
    with kind(server_directory, durable=False) as server:
        scheme, _, rest = server.url.partition("://")
        user, address = rest.partition(":")[0], rest.partition("@")[2]
        for credentials in (user, f"{user}:wrong"):
            with pytest.raises((psycopg.OperationalError, redis.AuthenticationError)):
                read(f"{scheme}://{credentials}@{address}")


@KINDS
def test_the_password_is_nowhere_but_in_a_private_file(server_directory: Path, kind: Kind) -> None:
    """Not in the list of processes, a log, or the object's description."""
    with kind(server_directory, durable=False) as server:
        password = server.url.partition("@")[0].rpartition(":")[2]
        keeper = psutil.Process(server.pid).parent()
        shown = [*psutil.Process(server.pid).cmdline(), *keeper.cmdline(), repr(server)]
        assert not any(password in word for word in shown)
        logs = [path.read_text(errors="replace") for path in server_directory.glob("*.log*")]
        assert logs
        assert not any(password in log for log in logs)
        assert password == (server_directory / "password").read_text()
        readable = [path for path in server_directory.iterdir() if path.stat().st_mode & 0o066]
        assert [] == [path for path in readable if path.is_file()]
        assert not server_directory.stat().st_mode & 0o066


@pytest.mark.slow
def test_a_lost_password_is_replaced_and_the_data_is_kept(server_directory: Path) -> None:
    """Who may write the data directory owns the data."""
    with EmbeddedPostgres(server_directory, durable=False) as server:
        write(server.url)
    (server_directory / "password").unlink()
    with EmbeddedPostgres(server_directory, durable=False) as server:
        assert "kept" == read(server.url)


@pytest.mark.slow
def test_a_first_start_that_was_cut_off_is_made_again(server_directory: Path) -> None:
    """What kill -9 in the middle of it leaves is no data directory yet."""
    (server_directory / "owner.lock").touch()
    (server_directory / "cluster.new").mkdir()
    (server_directory / "cluster.new" / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(server_directory, durable=False) as server:
        assert (1,) == fetch(server.url, "select 1")


def test_start_and_stop_may_be_called_twice(server_directory: Path) -> None:
    """The second call changes nothing."""
    server = EmbeddedValkey(server_directory)
    server.start()
    first = server.url
    server.start()
    assert first == server.url
    server.stop()
    server.stop()
    assert server.pid is None


def test_a_server_that_does_not_run_has_no_url(server_directory: Path) -> None:
    """It says so in a sentence."""
    with pytest.raises(ConfigError, match=r"^Valkey in .* is not running\.$"):
        _ = EmbeddedValkey(server_directory).url


@pytest.mark.slow
@KINDS
def test_settings_in_the_environment_are_not_the_servers(
    server_directory: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A developer's PGDATA, PGPORT or language is about another server."""
    for name, value in {"PGDATA": "/nowhere", "PGPORT": "1", "LC_ALL": "xx_XX"}.items():
        monkeypatch.setenv(name, value)
    with kind(server_directory, durable=False) as server:
        monkeypatch.delenv("PGPORT")
        write(server.url)


@pytest.mark.slow
def test_a_wheel_below_a_closed_directory_serves_root_too(
    server_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody, whom root's server runs as, gets a copy; everybody else uses the wheel itself."""
    import heartbit.embedded.programs as programs

    wheel = programs.find_postgres(18).parent
    closed = server_directory / "closed"
    closed.mkdir(mode=0o700)
    for name in (wheel.name, f"{wheel.name}.libs"):
        (closed / name).symlink_to(wheel.with_name(name))
    monkeypatch.syspath_prepend(closed)
    data = server_directory / "data"
    for _ in range(2):
        with EmbeddedPostgres(data, durable=False) as server:
            assert (1.0,) == fetch(server.url, "select '[1,0]'::vector <-> '[0,0]'::vector")
            program = Path(psutil.Process(server.pid).exe())
            assert (os.geteuid() == 0) == program.is_relative_to(data)
