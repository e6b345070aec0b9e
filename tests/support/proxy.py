"""A TCP proxy on loopback whose line can be cut, closed, blocked and mended while it is in use."""

from __future__ import annotations

import re
import socket
import struct
import threading
from contextlib import suppress

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that ends a connection as a cut line does, without a good-bye."""
CHUNK = 65_536


class Proxy:
    """Stands before one server, from the constructor to `close`."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._lock = threading.Lock()
        self._flows = threading.Event()
        self._flows.set()
        self._ends: set[socket.socket] = set()
        # Bound and never listening: nobody takes the port while it is closed.
        self._place = _bound(0)
        self.port: int = self._place.getsockname()[1]
        self._listener: socket.socket | None = None
        self.mend()

    @classmethod
    def before(cls, url: str) -> Proxy:
        """A proxy for the server of this url."""
        found = re.search(r"@([\w.]+):(\d+)/", url)
        assert found is not None, "no host and port in the url"
        return cls(found[1], int(found[2]))

    def url(self, url: str) -> str:
        """The same url, but through this proxy."""
        return re.sub(r"@[\w.]+:\d+/", f"@127.0.0.1:{self.port}/", url)

    def cut(self) -> None:
        """End every connection there is; new ones can be made."""
        with self._lock:
            ends, self._ends = self._ends, set()
        for end in ends:
            _end(end)

    def refuse(self) -> None:
        """End every connection, and refuse new ones until it is mended."""
        listener, self._listener = self._listener, None
        if listener is not None:
            _end(listener)
        self.cut()

    def stall(self) -> None:
        """Let nothing through any more, without a word to anybody, until it is mended."""
        self._flows.clear()

    def mend(self) -> None:
        """Let everything through again, also what was sent meanwhile on connections that live."""
        self._flows.set()
        if self._listener is None:
            listener = _bound(self.port)
            listener.listen(128)
            self._listener = listener
            threading.Thread(target=self._accept, args=[listener], daemon=True).start()

    def close(self) -> None:
        """End everything."""
        self.refuse()
        self._flows.set()
        self.cut()
        self._place.close()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._flows.wait()
        try:
            server = socket.create_connection(self._target, timeout=5)
        except OSError:
            _end(client)
            return
        server.settimeout(None)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._ends |= {client, server}
        answers = threading.Thread(target=self._pass_on, args=[server, client], daemon=True)
        answers.start()
        self._pass_on(client, server)
        answers.join()
        with self._lock:
            self._ends -= {client, server}
        for end in (client, server):
            end.close()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK):
                self._flows.wait()
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)


def _bound(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    return made


def _end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
