"""GET from public addresses: what `webfetch` and the knowledge base fetch pages with.

The address guard holds for every hop of a redirect, and the connection goes to the address that was
checked: the request names the address in its URL and the host in its Host header and TLS name, so
that resolving the name a second time decides nothing. Proxies and credentials of the environment
are not used. One client per hop: neither a connection nor a cookie is carried to another host that
happens to share the address.
"""

from __future__ import annotations

import codecs
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from heartbit import __version__
from heartbit.errors import PageUnavailable
from heartbit.tools.builtin.addresses import AddressGuard
from heartbit.tools.builtin.text import printable

if TYPE_CHECKING:
    import ssl

    import httpx2

MAX_BODY_BYTES = 5 * 1024 * 1024
MAX_REDIRECTS = 5
MAX_ADDRESSES = 4
CONNECT_SECONDS = 10.0
NOT_MODIFIED = 304

HEADERS = {
    "User-Agent": f"heartbit/{__version__}",
    "Accept": "text/html, text/markdown, text/plain, application/json, */*;q=0.5",
    "Accept-Encoding": "gzip, deflate",
}
TEXT = (
    r"text/.+|application/(.+\+)?(json|xml|yaml|x-yaml|toml|javascript|x-javascript|x-ndjson|sql)"
)
_HTML = frozenset({"text/html", "application/xhtml+xml"})
# These decode slowly or into something else than the page's text.
_NO_CHARSETS = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined"})
_META_CHARSET = re.compile(
    rb"<meta[^>]{0,200}charset\s{0,9}=\s{0,9}[\"']?\s{0,9}([\w.:-]{1,40})", re.I
)

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


async def resolve_host(host: str, port: int) -> Sequence[str]:
    """The numeric addresses of `host`, best first; raises OSError or UnicodeError."""
    import asyncio
    import socket

    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """What a URL led to; `media_type` is "" if the server named none.

    An `unchanged` one has no body: the caller's conditions held.
    """

    url: str
    redirected: bool
    media_type: str
    charset: str | None
    body: bytes
    cut: bool
    etag: str | None = None
    last_modified: str | None = None
    unchanged: bool = False


class Fetcher:
    """GET through the address guard.

    Args:
        media: a pattern of the media types that are read, `only` the sentence about others.
        max_bytes: of a longer body the beginning is read.
    """

    def __init__(
        self,
        *,
        guard: AddressGuard,
        resolve: Resolve = resolve_host,
        media: str = TEXT,
        only: str = "webfetch shows only text",
        max_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self._guard = guard
        self._resolve = resolve
        self._media = re.compile(media)
        self._only = only
        self._max_bytes = max_bytes
        self._trusted: ssl.SSLContext | None = None

    async def fetch(self, url: str, conditions: Mapping[str, str] | None = None) -> Page:
        """The page at `url`, after at most MAX_REDIRECTS redirects; sets no limit to the time.

        `conditions` are headers (If-None-Match, If-Modified-Since) to which a server may answer
        that the page is what it was.

        Raises:
            PageUnavailable: it cannot be had; the message helps a model.
        """
        import httpx2

        target = _parsed(url)
        try:
            for hop in range(MAX_REDIRECTS + 1):
                async with self._response(target, conditions or {}) as response:
                    following = _redirect(target, response)
                    if following is None:
                        unchanged = bool(conditions) and response.status_code == NOT_MODIFIED
                        return await self._page(target, response, hop > 0, unchanged)
                target = following
        except httpx2.HTTPError as failure:
            raise PageUnavailable(_sentence(target.host, failure)) from None
        raise PageUnavailable(f"The page redirects more than {MAX_REDIRECTS} times.")

    @contextlib.asynccontextmanager
    async def _response(
        self, target: httpx2.URL, conditions: Mapping[str, str]
    ) -> AsyncIterator[httpx2.Response]:
        """The answer of the first address that can be connected to, its body not yet read."""
        import httpx2

        addresses = await self._addresses(target)
        for left, address in enumerate(addresses, 1 - len(addresses)):
            async with self._client() as client:
                request = _request(client, target, address, conditions)
                try:
                    response = await client.send(request, stream=True)
                except (httpx2.ConnectError, httpx2.ConnectTimeout):
                    if left == 0:
                        raise
                    continue
                try:
                    yield response
                finally:
                    await response.aclose()
                return

    async def _addresses(self, target: httpx2.URL) -> Sequence[str]:
        port = target.port or (443 if target.scheme == "https" else 80)
        try:
            addresses = await self._resolve(target.raw_host.decode(), port)
        except (OSError, UnicodeError):
            raise PageUnavailable(f"The host {target.host} could not be resolved.") from None
        refusal = self._guard.refusal(target.host, addresses)
        if refusal:
            raise PageUnavailable(refusal)
        return addresses[:MAX_ADDRESSES]

    def _client(self) -> httpx2.AsyncClient:
        import httpx2

        if self._trusted is None:
            self._trusted = httpx2.create_ssl_context()
        limit = httpx2.Timeout(None, connect=CONNECT_SECONDS)
        return httpx2.AsyncClient(verify=self._trusted, trust_env=False, timeout=limit)

    async def _page(
        self, target: httpx2.URL, response: httpx2.Response, redirected: bool, unchanged: bool
    ) -> Page:
        if not unchanged:
            self._check(response)
        body = bytearray() if unchanged else await _body(response, self._max_bytes)
        return Page(
            url=str(target),
            redirected=redirected,
            media_type=_media_type(response),
            charset=response.charset_encoding,
            body=bytes(body[: self._max_bytes]),
            cut=len(body) > self._max_bytes,
            etag=response.headers.get("etag"),
            last_modified=response.headers.get("last-modified"),
            unchanged=unchanged,
        )

    def _check(self, response: httpx2.Response) -> None:
        if not response.is_success:
            said = f"{response.status_code} {printable(response.reason_phrase)}".rstrip()
            raise PageUnavailable(f"The server answered {said}.", status=response.status_code)
        media_type = _media_type(response)
        if media_type and not self._media.fullmatch(media_type):
            raise PageUnavailable(f"The page is {printable(media_type)[:100]}; {self._only}.")
        if len(response.headers.get_list("content-encoding", split_commas=True)) > 1:
            raise PageUnavailable("The page is compressed more than once, which is not accepted.")


def _media_type(response: httpx2.Response) -> str:
    header: str = response.headers.get("content-type", "")
    return header.partition(";")[0].strip().lower()


def _request(
    client: httpx2.AsyncClient, target: httpx2.URL, address: str, conditions: Mapping[str, str]
) -> httpx2.Request:
    """A request that connects to `address` and asks for, and verifies, the host of `target`."""
    name = target.raw_host.decode().rstrip(".")
    return client.build_request(
        "GET",
        target.copy_with(host=address),
        headers={**HEADERS, **conditions, "Host": target.netloc.decode()},
        extensions={"sni_hostname": name},
    )


def _parsed(url: str) -> httpx2.URL:
    import httpx2

    try:
        return _accepted(httpx2.URL(url))
    except httpx2.InvalidURL:
        raise PageUnavailable(
            "The URL is not valid; give a complete one with http:// or https://."
        ) from None


def _accepted(target: httpx2.URL) -> httpx2.URL:
    if target.scheme not in ("http", "https"):
        raise PageUnavailable("Only URLs with http:// or https:// can be fetched.")
    if not target.host or (target.port is not None and not 0 < target.port < 65536):
        raise PageUnavailable("The URL has no valid host and port.")
    if target.userinfo:
        raise PageUnavailable("URLs that carry a user name or password are not fetched.")
    return target


def _redirect(target: httpx2.URL, response: httpx2.Response) -> httpx2.URL | None:
    import httpx2

    location = response.headers.get("location")
    if response.status_code not in (301, 302, 303, 307, 308) or location is None:
        return None
    try:
        return _accepted(target.join(location))
    except httpx2.InvalidURL:
        raise PageUnavailable("The page redirects to a URL that is not valid.") from None


async def _body(response: httpx2.Response, limit: int) -> bytearray:
    """The decoded body; no more is read, or unpacked, once it is over the limit."""
    body = bytearray()
    async with contextlib.aclosing(response.aiter_bytes()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > limit:
                break
    return body


def is_html(page: Page) -> bool:
    """Whether the page says that it is HTML, or looks like it."""
    return page.media_type in _HTML or (not page.media_type and page.body.lstrip()[:1] == b"<")


def decoded(page: Page) -> str:
    """The text of a page, in the charset that it declares if it is one."""
    declared = _META_CHARSET.search(page.body[:2048])
    named = page.charset or (declared[1].decode("ascii") if declared else "utf-8")
    try:
        charset = codecs.lookup(named).name.replace("-", "_")
        return page.body.decode("utf-8" if charset in _NO_CHARSETS else charset, "replace")
    except (LookupError, ValueError):
        return page.body.decode("utf-8", "replace")


def _sentence(host: str, failure: httpx2.HTTPError) -> str:
    import httpx2

    if isinstance(failure, httpx2.ConnectError | httpx2.ConnectTimeout):
        return f"No connection to {host} could be made."
    if isinstance(failure, httpx2.DecodingError):
        return "The page's compressed content is damaged."
    return f"The server {host} broke off, or does not speak HTTP ({type(failure).__name__})."
