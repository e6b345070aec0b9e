"""The tool `webfetch`: the text of a public web page.

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
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from heartbit import __version__
from heartbit.core.messages import Json
from heartbit.errors import ToolError
from heartbit.tools.base import BoundTool, ToolContext
from heartbit.tools.builtin.addresses import AddressGuard
from heartbit.tools.builtin.build import build_tool
from heartbit.tools.builtin.text import cut, looks_binary, printable

if TYPE_CHECKING:
    import ssl

    import httpx2

    from heartbit.tools.builtin.addresses import Network

DEFAULT_SECONDS = 30
MAX_SECONDS = 120
MAX_BODY_BYTES = 5 * 1024 * 1024
MAX_OUTPUT_BYTES = 50_000
MAX_REDIRECTS = 5
MAX_ADDRESSES = 4
CONNECT_SECONDS = 10.0

HEADERS = {
    "User-Agent": f"heartbit/{__version__}",
    "Accept": "text/html, text/markdown, text/plain, application/json, */*;q=0.5",
    "Accept-Encoding": "gzip, deflate",
}
_HTML = frozenset({"text/html", "application/xhtml+xml"})
_TEXT = re.compile(
    r"text/.+|application/(.+\+)?(json|xml|yaml|x-yaml|toml|javascript|x-javascript|x-ndjson|sql)"
)
# These decode slowly or into something else than the page's text.
_NO_CHARSETS = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined"})
_META_CHARSET = re.compile(
    rb"<meta[^>]{0,200}charset\s{0,9}=\s{0,9}[\"']?\s{0,9}([\w.:-]{1,40})", re.I
)

DESCRIPTION = f"""Fetch a public web page or text file over http(s), as markdown, text or raw html.

At most {MAX_REDIRECTS} redirects and {MAX_OUTPUT_BYTES} bytes of output. Addresses that are not \
public (localhost, internal networks) are refused."""

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


async def resolve_host(host: str, port: int) -> Sequence[str]:
    """The numeric addresses of `host`, best first; raises OSError or UnicodeError."""
    import asyncio
    import socket

    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def make_webfetch(*, allow: tuple[Network, ...] = (), resolve: Resolve = resolve_host) -> BoundTool:
    """The tool; `allow` names networks that may be reached although they are not public."""
    fetcher = Fetcher(guard=AddressGuard(allow=allow), resolve=resolve)

    async def answer(arguments: Json, context: ToolContext) -> str:
        return await _fetch_text(fetcher, arguments)

    return build_tool(
        "webfetch",
        DESCRIPTION,
        properties=_PROPERTIES,
        required=("url",),
        effect="pure",
        answer=answer,
    )


async def _fetch_text(fetcher: Fetcher, arguments: Json) -> str:
    import asyncio

    seconds = arguments.get("timeout_seconds", DEFAULT_SECONDS)
    try:
        async with asyncio.timeout(seconds):
            page = await fetcher.fetch(arguments["url"])
    except TimeoutError:
        raise ToolError(f"The page did not arrive within {seconds} seconds.") from None
    # Converting five megabytes takes a while, and the loop serves others.
    return await asyncio.to_thread(_shown, page, arguments.get("format", "markdown"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """What a URL led to; `media_type` is "" if the server named none."""

    url: str
    redirected: bool
    media_type: str
    charset: str | None
    body: bytes
    cut: bool


class Fetcher:
    """GET through the address guard. What fails is a ToolError whose text helps a model."""

    def __init__(self, *, guard: AddressGuard, resolve: Resolve = resolve_host) -> None:
        self._guard = guard
        self._resolve = resolve
        self._trusted: ssl.SSLContext | None = None

    async def fetch(self, url: str) -> Page:
        """The page at `url`, after at most MAX_REDIRECTS redirects; sets no limit to the time."""
        import httpx2

        target = _parsed(url)
        try:
            for hop in range(MAX_REDIRECTS + 1):
                async with self._response(target) as response:
                    following = _redirect(target, response)
                    if following is None:
                        return await _page(target, response, redirected=hop > 0)
                target = following
        except httpx2.HTTPError as failure:
            raise ToolError(_sentence(target.host, failure)) from None
        raise ToolError(f"The page redirects more than {MAX_REDIRECTS} times.")

    @contextlib.asynccontextmanager
    async def _response(self, target: httpx2.URL) -> AsyncIterator[httpx2.Response]:
        """The answer of the first address that can be connected to, its body not yet read."""
        import httpx2

        addresses = await self._addresses(target)
        for left, address in enumerate(addresses, 1 - len(addresses)):
            async with self._client() as client:
                try:
                    response = await client.send(_request(client, target, address), stream=True)
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
            raise ToolError(f"The host {target.host} could not be resolved.") from None
        refusal = self._guard.refusal(target.host, addresses)
        if refusal:
            raise ToolError(refusal)
        return addresses[:MAX_ADDRESSES]

    def _client(self) -> httpx2.AsyncClient:
        import httpx2

        if self._trusted is None:
            self._trusted = httpx2.create_ssl_context()
        limit = httpx2.Timeout(None, connect=CONNECT_SECONDS)
        return httpx2.AsyncClient(verify=self._trusted, trust_env=False, timeout=limit)


def _request(client: httpx2.AsyncClient, target: httpx2.URL, address: str) -> httpx2.Request:
    """A request that connects to `address` and asks for, and verifies, the host of `target`."""
    name = target.raw_host.decode().rstrip(".")
    return client.build_request(
        "GET",
        target.copy_with(host=address),
        headers={**HEADERS, "Host": target.netloc.decode()},
        extensions={"sni_hostname": name},
    )


def _parsed(url: str) -> httpx2.URL:
    import httpx2

    try:
        return _accepted(httpx2.URL(url))
    except httpx2.InvalidURL:
        raise ToolError(
            "The URL is not valid; give a complete one with http:// or https://."
        ) from None


def _accepted(target: httpx2.URL) -> httpx2.URL:
    if target.scheme not in ("http", "https"):
        raise ToolError("Only URLs with http:// or https:// can be fetched.")
    if not target.host or (target.port is not None and not 0 < target.port < 65536):
        raise ToolError("The URL has no valid host and port.")
    if target.userinfo:
        raise ToolError("URLs that carry a user name or password are not fetched.")
    return target


def _redirect(target: httpx2.URL, response: httpx2.Response) -> httpx2.URL | None:
    import httpx2

    location = response.headers.get("location")
    if response.status_code not in (301, 302, 303, 307, 308) or location is None:
        return None
    try:
        return _accepted(target.join(location))
    except httpx2.InvalidURL:
        raise ToolError("The page redirects to a URL that is not valid.") from None


async def _page(target: httpx2.URL, response: httpx2.Response, *, redirected: bool) -> Page:
    if not response.is_success:
        reason = printable(response.reason_phrase)
        raise ToolError(f"The server answered {response.status_code} {reason}".rstrip() + ".")
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type and not _TEXT.fullmatch(media_type):
        raise ToolError(f"The page is {printable(media_type)[:100]}; webfetch shows only text.")
    if len(response.headers.get_list("content-encoding", split_commas=True)) > 1:
        raise ToolError("The page is compressed more than once, which is not accepted.")
    body = await _body(response)
    return Page(
        url=str(target),
        redirected=redirected,
        media_type=media_type,
        charset=response.charset_encoding,
        body=bytes(body[:MAX_BODY_BYTES]),
        cut=len(body) > MAX_BODY_BYTES,
    )


async def _body(response: httpx2.Response) -> bytearray:
    """The decoded body; no more is read, or unpacked, once it is over the limit."""
    body = bytearray()
    async with contextlib.aclosing(response.aiter_bytes()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                break
    return body


def _shown(page: Page, wanted: str) -> str:
    from heartbit.tools.builtin.html_text import html_to_text

    if not page.media_type and looks_binary(page.body):
        raise ToolError("The page is binary data; webfetch shows only text.")
    text = _decoded(page)
    if wanted != "html" and _is_html(page):
        text = html_to_text(text, markdown=wanted == "markdown", url=page.url)
    notes = [f"[redirected to {page.url}]"] if page.redirected else []
    if page.cut:
        notes.append(f"[longer than {MAX_BODY_BYTES >> 20} MiB: the rest of the page was not read]")
    return cut("\n\n".join([*notes, text or "[the page has no text]"]), MAX_OUTPUT_BYTES)


def _is_html(page: Page) -> bool:
    return page.media_type in _HTML or (not page.media_type and page.body.lstrip()[:1] == b"<")


def _decoded(page: Page) -> str:
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


_PROPERTIES: Json = {
    "url": {"type": "string", "minLength": 1, "description": "The complete URL."},
    "format": {
        "enum": ["markdown", "text", "html"],
        "description": "How HTML is shown (default markdown); other text comes as it is.",
    },
    "timeout_seconds": {
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": MAX_SECONDS,
        "description": f"For the whole fetch (default {DEFAULT_SECONDS}).",
    },
}
