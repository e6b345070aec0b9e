"""webfetch: only public addresses, checked at every hop, and an end to all that a server sends."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gzip
import ssl
import tracemalloc
from collections.abc import Callable, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from heartbit.core.tools import ToolOutput
from heartbit.tools.builtin.fetching import MAX_BODY_BYTES
from heartbit.tools.builtin.webfetch import make_webfetch
from tests.support.builtin_tools import ToolUser
from tests.support.web_server import LOOPBACK, Handler, Server, answer, redirect


def fetch(
    routes: dict[str, bytes | Handler],
    path: str = "/",
    *,
    host: str = "127.0.0.1",
    resolve: Callable[[str, int], Any] | None = None,
    server: Server | None = None,
    **arguments: Any,
) -> ToolOutput:
    """What the tool makes of `path` on a server with these routes; `PORT` in routes is its port."""
    server = server or Server(routes)
    options = {} if resolve is None else {"resolve": resolve}
    tool = make_webfetch(allow=LOOPBACK, **options)

    async def run() -> ToolOutput:
        async with server.running():
            for key, route in server.routes.items():
                if isinstance(route, bytes):
                    server.routes[key] = route.replace(b"PORT", str(server.port).encode())
            url = f"http://{host}:{server.port}{path}"
            return await ToolUser(None).call(tool, url=url, **arguments)

    return asyncio.run(run())


def ok(routes: dict[str, bytes | Handler], path: str = "/", **arguments: Any) -> str:
    output = fetch(routes, path, **arguments)
    assert not output.is_error, output.content
    return output.content


def fails(routes: dict[str, bytes | Handler], path: str = "/", **arguments: Any) -> str:
    output = fetch(routes, path, **arguments)
    assert output.is_error, output.content
    return output.content


class Names:
    """A resolver with a script: each host's answers in order, and a record of the questions."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = {name.replace("_", "."): list(found) for name, found in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        if host not in self.answers:
            raise OSError("no such host")
        return self.answers[host].pop(0)


# What is shown


def test_a_page_is_shown_as_markdown_text_or_html() -> None:
    page = "<h1>Title</h1><p>See <a href='/x'>this</a>.</p>"
    server = Server({"/": answer(page)})
    shown = ok({}, server=server)
    assert f"# Title\n\nSee [this](http://127.0.0.1:{server.port}/x)." == shown
    assert "Title\n\nSee this." == ok({"/": answer(page)}, format="text")
    assert page == ok({"/": answer(page)}, format="html")


@pytest.mark.parametrize(
    "kind", ["application/json", "text/plain; charset=utf-8", "application/ld+json", "text/csv"]
)
def test_other_text_comes_as_it_is(kind: str) -> None:
    assert '{"a": "<b>"}' == ok({"/": answer('{"a": "<b>"}', kind=kind)})


@pytest.mark.parametrize("kind", ["image/png", "application/pdf", "application/octet-stream"])
def test_what_is_no_text_is_refused(kind: str) -> None:
    assert f"The page is {kind}; webfetch shows only text." == fails({"/": answer("x", kind=kind)})


def test_a_page_without_a_type_is_judged_by_its_content() -> None:
    assert "x" == ok({"/": answer(" <p>x</p>", kind=None)})
    assert "plain & <b>" == ok({"/": answer("plain & <b>", kind=None)})
    assert "binary data" in fails({"/": answer(b"\x89PNG\0\0", kind=None)})


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/plain; charset=iso-8859-1", "größe".encode("latin-1")),
        ("text/html", b"<meta charset='latin-1'>gr\xf6\xdfe"),
        ("text/plain", "größe".encode()),
        ("text/plain; charset=no-such-thing", "größe".encode()),
        ("text/plain; charset=hex", "größe".encode()),
        ("text/plain; charset=punycode", "größe".encode()),
        ("text/plain; charset=unicode_escape", "größe".encode()),
    ],
)
def test_the_declared_charset_is_used_if_it_is_one(kind: str, body: bytes) -> None:
    assert "größe" == ok({"/": answer(body, kind=kind)})


def test_bytes_that_do_not_decode_are_replaced() -> None:
    assert "gr\ufffd" == ok({"/": answer(b"gr\xf6", kind="text/plain")})


def test_long_output_is_cut_with_a_note() -> None:
    shown = ok({"/": answer("é" * 30_000, kind="text/plain")})
    assert "é" * 25_000 + "\n\n[cut: 10000 bytes omitted]" == shown


def test_a_page_without_text_says_so() -> None:
    assert "[the page has no text]" == ok({"/": answer("<script>1</script>")})


@pytest.mark.parametrize("status", ["404 Not Found", "500 Oops", "304 Not Modified", "301 Moved"])
def test_a_status_that_is_no_page_is_an_error(status: str) -> None:
    assert f"The server answered {status}." == fails({"/": answer("x", status=status)})


# Where it may go


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/",
        "http://127.0.0.1/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://0.0.0.0/",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/",
        "http://LOCALHOST/",
    ],
)
def test_the_built_in_tool_reaches_no_internal_address(url: str) -> None:
    refusal = ToolUser(None).fails("webfetch", url=url)
    assert "only public addresses may be reached" in refusal


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.org/",
        "example.org",
        "//example.org/",
        "http://",
        "http:///x",
        "http://exa mple/",
        "http://exa\nmple/",
        "http://example.org:0/",
        "http://example.org:99999/",
        "http://user:pass@example.org/",
        "http://127.0.0.1\\@example.org/",
        "http://[::1/",
        "http://0177.0.0.1/",
        "http://①②⑦.0.0.1/",
        "http://" + "a" * 300 + ".org/",
        "http://\ud800/",
        "x" * 100_000,
    ],
)
def test_urls_that_cannot_be_fetched_are_refused_with_a_sentence(url: str) -> None:
    names = Names(example_org=[["8.8.8.8"]])
    refusal = ToolUser(None).fails(make_webfetch(resolve=names), url=url)
    assert refusal.endswith(".")
    assert "pass" not in refusal.replace("password", "")
    assert "example.org" not in names.asked


def test_a_host_that_does_not_resolve_is_an_error() -> None:
    refusal = ToolUser(None).fails(make_webfetch(resolve=Names()), url="http://missing.test/")
    assert "The host missing.test could not be resolved." == refusal


def test_a_name_is_resolved_once_and_the_checked_address_is_connected_to() -> None:
    """A second answer (as in DNS rebinding) is never asked for."""
    names = Names(site_test=[["127.0.0.1"], ["10.0.0.1"]])
    server = Server({"/": answer("<p>hello")})
    assert "hello" == ok({}, server=server, host="site.test", resolve=names)
    assert ["site.test"] == names.asked
    assert f"\r\nHost: site.test:{server.port}\r\n" in server.requests[0]


def test_a_name_with_one_internal_address_is_refused_before_any_connection() -> None:
    names = Names(site_test=[["127.0.0.1", "10.0.0.1"]])
    server = Server({"/": answer("no")})
    refusal = fails({}, server=server, host="site.test", resolve=names)
    assert "site.test has a private address; only public addresses may be reached." == refusal
    assert [] == server.requests


def test_the_next_address_is_tried_when_one_cannot_be_connected_to() -> None:
    guarded = (ip_network("127.0.0.0/8"),)
    server = Server({"/": answer("hello")})
    tool = make_webfetch(allow=guarded, resolve=Names(site_test=[["127.0.0.9", "127.0.0.1"]]))

    async def run() -> ToolOutput:
        async with server.running():
            return await ToolUser(None).call(tool, url=f"http://site.test:{server.port}/")

    assert "hello" == asyncio.run(run()).content


def test_hosts_with_an_ipv6_address_are_reached_by_it() -> None:
    server = Server({"/": answer("six")})
    names = Names(site_test=[["::1"]])
    tool = make_webfetch(allow=(ip_network("::1/128"),), resolve=names)

    async def run() -> ToolOutput:
        async with server.running(host="::1"):
            return await ToolUser(None).call(tool, url=f"http://site.test:{server.port}/")

    try:
        assert "six" == asyncio.run(run()).content
    except OSError as failure:
        pytest.skip(f"this machine has no IPv6 loopback address: {failure}")


def test_a_server_that_is_not_there_is_an_error() -> None:
    tool = make_webfetch(allow=LOOPBACK)
    refusal = ToolUser(None).fails(tool, url="http://127.0.0.1:1/")
    assert "No connection to 127.0.0.1 could be made." == refusal


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert "direct" == ok({"/": answer("direct")})


# Redirects


def test_redirects_are_followed_and_named() -> None:
    server = Server({"/": redirect("/a/b?c#d"), "/a/b?c": answer("<a href=x>there</a>")})
    base = "http://127.0.0.1"
    shown = ok({}, server=server)
    assert f"[redirected to {base}:{server.port}/a/b?c#d]\n\n[there]" in shown
    assert f"({base}:{server.port}/a/x)" in shown


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.2:PORT/",
        "http://[::1]:PORT/",
        "http://localhost.test:PORT/",
        "http://169.254.169.254/",
        "//10.0.0.1/",
    ],
)
def test_a_redirect_to_an_internal_address_is_refused(target: str) -> None:
    names = Names(
        site_test=[["127.0.0.1"]],
        localhost_test=[["127.0.0.2"]],
        **{"127_0_0_2": [["127.0.0.2"]], "169_254_169_254": [["169.254.169.254"]]},
    )
    names.answers["::1"] = [["::1"]]
    names.answers["10.0.0.1"] = [["10.0.0.1"]]
    server = Server({"/": redirect(target)})
    refusal = fails({}, server=server, host="site.test", resolve=names)
    assert "only public addresses may be reached" in refusal
    assert 1 == len(server.requests)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://x/", "http://u:p@site.test/"])
def test_a_redirect_to_what_is_not_fetched_is_refused(target: str) -> None:
    assert "fetched" in fails({"/": redirect(target)})


def test_a_redirect_to_an_invalid_url_is_refused() -> None:
    assert "redirects to a URL that is not valid" in fails(
        {"/": redirect("http://127.0.0.1:port/")}
    )


def test_a_circle_of_redirects_ends() -> None:
    server = Server({"/": redirect("/b"), "/b": redirect("/")})
    assert "redirects more than 5 times" in fails({}, server=server)
    assert 6 == len(server.requests)


def test_cookies_are_not_carried_to_the_next_hop() -> None:
    first = answer("", "Location: /b", "Set-Cookie: secret=1", status="302 Found")
    server = Server({"/": first, "/b": answer("there")})
    ok({}, server=server)
    assert "ookie" not in server.requests[1]


# What a server may do to us


def test_an_endless_body_is_read_only_up_to_the_limit() -> None:
    sent = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            sent += 65536
            await writer.drain()

    shown = ok({"/": endless})
    assert shown.startswith("[longer than 5 MiB: the rest of the page was not read]\n\nxxx")
    assert len(shown) < 51_000
    assert sent < 4 * MAX_BODY_BYTES


def test_a_body_that_drips_is_ended_by_the_time_limit() -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    refusal = fails({"/": drip}, timeout_seconds=0.3)
    assert "The page did not arrive within 0.3 seconds." == refusal


def test_a_server_that_never_answers_is_ended_by_the_time_limit() -> None:
    async def silent(writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    assert "within 0.2 seconds" in fails({"/": silent}, timeout_seconds=0.2)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\ncut",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
    ],
)
def test_a_broken_answer_is_an_error(raw: bytes) -> None:
    assert "The server 127.0.0.1 broke off, or does not speak HTTP" in fails({"/": raw})


def test_a_packed_bomb_is_unpacked_only_up_to_the_limit() -> None:
    bomb = gzip.compress(bytes(200_000_000), compresslevel=9)
    server = Server({"/": answer(bomb, "Content-Encoding: gzip", kind="text/plain")})
    tracemalloc.start()
    try:
        shown = ok({}, server=server)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert shown.startswith("[longer than 5 MiB")
    assert peak < 50_000_000


def test_packed_pages_are_unpacked_and_damaged_ones_are_errors() -> None:
    packed = gzip.compress(b"hello")
    assert "hello" == ok({"/": answer(packed, "Content-Encoding: gzip")})
    damaged = fails({"/": answer(b"hello", "Content-Encoding: gzip")})
    assert "The page's compressed content is damaged." == damaged
    twice = fails({"/": answer(gzip.compress(packed), "Content-Encoding: gzip, gzip")})
    assert "compressed more than once" in twice


def test_a_cancelled_fetch_closes_its_connection() -> None:
    async def run() -> None:
        arrived, closed = asyncio.Event(), asyncio.Event()

        async def hold(writer: asyncio.StreamWriter) -> None:
            arrived.set()
            with contextlib.suppress(ConnectionError):
                while True:
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    await writer.drain()
                    await asyncio.sleep(0.01)
            closed.set()

        async with Server({"/": hold}).running() as server:
            tool = make_webfetch(allow=LOOPBACK)
            url = f"http://127.0.0.1:{server.port}/"
            call = asyncio.create_task(ToolUser(None).call(tool, url=url))
            await arrived.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            async with asyncio.timeout(10):
                await closed.wait()

    asyncio.run(run())


# TLS


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A certificate for site.test, trusted through SSL_CERT_FILE; the key is in the same file."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "site.test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("site.test")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (tmp_path / "certificate.pem").write_bytes(pem)
    (tmp_path / "both.pem").write_bytes(private + pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    return tmp_path / "both.pem"


def fetch_over_tls(certificate: Path, host: str, server: Server) -> ToolOutput:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    context.sni_callback = lambda connection, name, used: server.names.append(name)
    names = Names(site_test=[["127.0.0.1"]] * 2, other_test=[["127.0.0.1"]] * 2)
    tool = make_webfetch(allow=LOOPBACK, resolve=names)

    async def run() -> ToolOutput:
        async with server.running(context):
            for key, route in server.routes.items():
                if isinstance(route, bytes):
                    server.routes[key] = route.replace(b"PORT", str(server.port).encode())
            return await ToolUser(None).call(tool, url=f"https://{host}:{server.port}/")

    return asyncio.run(run())


def test_the_certificate_is_verified_for_the_name_and_not_for_the_address(
    certificate: Path,
) -> None:
    server = Server({"/": answer("safe")})
    assert "safe" == fetch_over_tls(certificate, "site.test", server).content
    assert ["site.test"] == server.names
    wrong = fetch_over_tls(certificate, "other.test", Server({"/": answer("unsafe")}))
    assert wrong.is_error
    assert "No connection to other.test could be made." == wrong.content


def test_a_redirect_to_another_name_on_the_same_address_is_a_new_connection(
    certificate: Path,
) -> None:
    server = Server({"/": redirect("https://other.test:PORT/")})
    output = fetch_over_tls(certificate, "site.test", server)
    assert output.is_error
    assert ["site.test", "other.test"] == server.names
