"""The proxy itself: what a test says it did to a line really happened to it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.support.proxy import Proxy


def _echo(listener: socket.socket) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_answer, args=[client], daemon=True).start()


def _answer(client: socket.socket) -> None:
    with client:
        while True:
            try:
                data = client.recv(100)
            except OSError:
                return
            if not data:
                return
            client.sendall(data)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A proxy before a server that says what it hears."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_echo, args=[listener], daemon=True).start()
        made = Proxy("127.0.0.1", listener.getsockname()[1])
        try:
            yield made
        finally:
            made.close()
            listener.shutdown(socket.SHUT_RDWR)


def connected(proxy: Proxy) -> socket.socket:
    """A connection through the proxy that works."""
    made = socket.create_connection(("127.0.0.1", proxy.port), timeout=5)
    assert heard(made, b"hello") == b"hello"
    return made


def heard(connection: socket.socket, said: bytes) -> bytes:
    """What comes back for something."""
    connection.sendall(said)
    return connection.recv(100)


def is_cut(connection: socket.socket) -> bool:
    """Whether the other side has ended the connection."""
    try:
        return heard(connection, b"?") == b""
    except ConnectionError:
        return True


def test_a_cut_ends_connections_and_new_ones_can_be_made(proxy: Proxy) -> None:
    with connected(proxy) as first:
        proxy.cut()
        assert is_cut(first)
        connected(proxy).close()


def test_while_it_refuses_nobody_can_connect_until_it_is_mended(proxy: Proxy) -> None:
    with connected(proxy) as first:
        proxy.refuse()
        assert is_cut(first)
        with pytest.raises(ConnectionRefusedError):
            connected(proxy)
        proxy.mend()
        connected(proxy).close()


def test_a_stalled_line_says_nothing_and_loses_nothing(proxy: Proxy) -> None:
    with connected(proxy) as first:
        proxy.stall()
        first.settimeout(0.05)
        with pytest.raises(TimeoutError):
            heard(first, b"late")
        first.settimeout(5)
        proxy.mend()
        assert first.recv(100) == b"late"


def test_the_url_of_a_server_leads_through_its_proxy() -> None:
    """The password stays."""
    proxy = Proxy.before("redis://:secret@127.0.0.1:6379/0")
    try:
        assert f"redis://:secret@127.0.0.1:{proxy.port}/0" == proxy.url(
            "redis://:secret@127.0.0.1:6379/0"
        )
    finally:
        proxy.close()
