"""Pages as documents: polite, guarded, limited, and fetched again only if they changed."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from heartbit.core.knowledge import Document
from heartbit.errors import DocumentUnreadable
from heartbit.knowledge import pages as module
from heartbit.knowledge.pages import Pages, page_text
from heartbit.tools.builtin.fetching import Page
from tests.support.web_server import LOOPBACK, Handler, Server, answer, redirect

NO_RULES = answer("", status="404 Not Found")
KNOWN = Document(
    source="x",
    title="",
    content_hash="",
    recipe="",
    etag='"1"',
    last_modified="Sun, 06 Nov 1994 08:49:37 GMT",
    indexed_at=datetime.now(UTC),
    chunks=1,
)


def fetched(
    routes: dict[str, bytes | Handler],
    *paths: str,
    known: Document | None = None,
    allow: Any = LOOPBACK,
    **options: Any,
) -> tuple[Server, list[Page | Exception]]:
    """What becomes of the pages of a server, fetched at once."""
    server = Server({"/robots.txt": NO_RULES, **routes})

    async def run() -> list[Any]:
        async with server.running():
            for key, route in server.routes.items():
                if isinstance(route, bytes):
                    server.routes[key] = route.replace(b"PORT", str(server.port).encode())
            pages = Pages(allow=allow, **options)
            urls = [f"http://127.0.0.1:{server.port}{path}" for path in paths or ("/",)]
            calls = [pages.fetch(url, known) for url in urls]
            return await asyncio.gather(*calls, return_exceptions=True)

    return server, asyncio.run(run())


def text(body: str, *headers: str, **options: Any) -> str:
    """What a page says."""
    _, [page] = fetched({"/": answer(body, *headers, **options)})
    assert isinstance(page, Page), page
    return "".join(each.text for each in page_text(page).sections)


def refusal(routes: dict[str, bytes | Handler], **options: Any) -> DocumentUnreadable:
    """Why a page could not be had."""
    _, [error] = fetched(routes, **options)
    assert isinstance(error, DocumentUnreadable), error
    return error


def test_a_page_is_read_with_what_its_server_says_of_it() -> None:
    """To be asked again later whether it has changed."""
    _, [page] = fetched({"/": answer("<p>x</p>", 'ETag: "7"', "Last-Modified: then")})
    assert isinstance(page, Page)
    assert ('"7"', "then", False) == (page.etag, page.last_modified, page.unchanged)
    assert "größe" == text("größe", kind="text/plain; charset=utf-8")


def test_a_server_that_says_that_nothing_has_changed_sends_nothing() -> None:
    """Both conditions are sent, if both are known."""
    server, [page] = fetched({"/": answer("", status="304 Not Modified")}, known=KNOWN)
    assert isinstance(page, Page)
    assert page.unchanged
    asked = server.requests[-1].lower()
    assert 'if-none-match: "1"' in asked
    assert "if-modified-since: sun, 06 nov 1994 08:49:37 gmt" in asked


def test_robots_txt_is_asked_once_per_site_and_respected() -> None:
    """A page that it keeps programs from is not fetched."""
    rules = answer("User-agent: *\nDisallow: /private/\n", kind="text/plain")
    routes: dict[str, bytes | Handler] = {
        "/robots.txt": rules,
        "/a": answer("x"),
        "/b": answer("x"),
        "/private/c": answer("x"),
    }
    server, got = fetched(routes, "/a", "/b", "/private/c")
    assert ["Page", "Page", "DocumentUnreadable"] == [type(each).__name__ for each in got]
    assert "keeps programs from it" in str(got[2])
    asked = sorted(request.split(" ")[1] for request in server.requests)
    assert ["/a", "/b", "/robots.txt"] == asked


def test_rules_for_heartbit_alone_hold_for_it() -> None:
    """By the name it gives itself."""
    rules = answer("User-agent: heartbit\nDisallow: /\n\nUser-agent: *\nAllow: /\n", kind=None)
    assert "keeps programs" in refusal({"/robots.txt": rules, "/": answer("x")}).message


def test_a_site_whose_rules_cannot_be_read_is_left_alone() -> None:
    """For now: the server is in trouble, and what was kept of its pages stays."""
    error = refusal({"/robots.txt": answer("", status="500 Broken"), "/": answer("x")})
    assert ("robots.txt: The server answered 500 Broken.", False) == (error.message, error.gone)


@pytest.mark.parametrize(
    ("status", "gone"),
    [("404 Not Found", True), ("410 Gone", True), ("403 No", False), ("503 Later", False)],
)
def test_a_page_that_is_gone_is_told_from_one_that_cannot_be_had_now(
    status: str, gone: bool
) -> None:
    """Only of the first nothing is kept."""
    error = refusal({"/": answer("", status=status)})
    assert (f"The server answered {status}.", gone) == (error.message, error.gone)


def test_addresses_that_are_not_public_are_refused_wherever_they_are_named() -> None:
    """In the configuration, or by a page that redirects."""
    assert "only public addresses" in refusal({"/": answer("x")}, allow=()).message
    elsewhere = redirect("http://169.254.169.254/latest/meta-data")
    assert "link-local" in refusal({"/": elsewhere}).message


def test_an_unreachable_server_is_one_sentence() -> None:
    """Nothing is listening on the discard port."""

    async def run() -> None:
        await Pages(allow=LOOPBACK).fetch("http://127.0.0.1:9/", None)

    with pytest.raises(DocumentUnreadable, match="No connection to"):
        asyncio.run(run())


def test_a_circle_of_redirects_ends() -> None:
    """After a few of them."""
    assert "redirects more than 5 times" in refusal({"/": redirect("/")}).message


def test_a_page_that_never_ends_is_given_up() -> None:
    """By size, and by time."""

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async def silent(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    assert "larger than 10 MiB" in refusal({"/": endless}).message
    assert "did not arrive within 0.2 seconds" in refusal({"/": silent}, seconds=0.2).message


@pytest.mark.parametrize("kind", ["image/png", "video/mp4", "application/octet-stream"])
def test_what_is_no_text_is_refused_before_it_is_loaded(kind: str) -> None:
    """With what it is."""
    message = refusal({"/": answer("x", kind=kind)}).message
    assert f"The page is {kind}; only text and PDF can be indexed." == message


def test_a_page_that_says_nothing_has_nothing_to_find() -> None:
    """And one without a type is judged by its content."""
    with pytest.raises(DocumentUnreadable, match="no text"):
        text("<script>1</script>")
    with pytest.raises(DocumentUnreadable, match="binary"):
        text("\0\0", kind=None)


def test_no_more_than_a_few_pages_are_fetched_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others wait for their turn."""
    monkeypatch.setattr(module, "AT_ONCE", 2)
    now, most = 0, 0
    enough = asyncio.Event()

    async def slow(writer: asyncio.StreamWriter) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        if most == 2:
            enough.set()
        await enough.wait()
        now -= 1
        writer.write(answer("x"))
        await writer.drain()

    routes: dict[str, bytes | Handler] = {f"/{number}": slow for number in range(6)}
    _, got = fetched(routes, *routes)
    assert ({"Page"}, 2) == ({type(each).__name__ for each in got}, most)
