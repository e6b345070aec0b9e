"""Web pages as documents: fetched politely, through the address guard, and only if they changed.

A site's robots.txt is respected, although only pages that a person named are fetched: they are
fetched again and again by a program. What a program may not fetch, a person can save to a file.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from urllib.parse import urlsplit
from urllib.robotparser import RobotFileParser

from heartbit.core.knowledge import Document
from heartbit.errors import DocumentUnreadable, PageUnavailable
from heartbit.knowledge.extract import Section, Text, decoded, html_text, pdf_text
from heartbit.tools.builtin import fetching
from heartbit.tools.builtin.addresses import AddressGuard, Network
from heartbit.tools.builtin.fetching import TEXT, Fetcher, Page, Resolve, is_html, resolve_host

PAGE_SECONDS = 30.0
MAX_PAGE_BYTES = 10 * 1024 * 1024
AT_ONCE = 8
AGENT = "heartbit"
_PDF = "application/pdf"
_MARKDOWN = "text/markdown"
_GONE = (404, 410)


class Pages:
    """Fetches pages for one look at the sources, several at a time.

    `allow` names networks beyond the public ones.
    """

    def __init__(
        self,
        *,
        allow: tuple[Network, ...] = (),
        resolve: Resolve = resolve_host,
        seconds: float = PAGE_SECONDS,
    ) -> None:
        self._fetcher = Fetcher(
            guard=AddressGuard(allow=allow),
            resolve=resolve,
            media=f"{TEXT}|{_PDF}",
            only="only text and PDF can be indexed",
            max_bytes=MAX_PAGE_BYTES,
        )
        self._seconds = seconds
        self._rules: dict[str, RobotFileParser] = {}
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._room = asyncio.Semaphore(AT_ONCE)

    async def fetch(self, url: str, known: Document | None) -> Page:
        """The page; one that its server says is what `known` was made of has no body.

        Raises:
            DocumentUnreadable: it cannot be had, or a program may not have it.
        """
        async with self._room:
            try:
                async with asyncio.timeout(self._seconds):
                    await self._ask_robots(url)
                    page = await self._fetcher.fetch(url, _conditions(known))
            except TimeoutError:
                seconds = f"{self._seconds:g}"
                raise DocumentUnreadable(f"It did not arrive within {seconds} seconds.") from None
            except PageUnavailable as error:
                raise DocumentUnreadable(error.message, gone=error.status in _GONE) from None
        if page.cut:
            raise DocumentUnreadable(f"It is larger than {MAX_PAGE_BYTES >> 20} MiB.", gone=True)
        return page

    async def _ask_robots(self, url: str) -> None:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        async with self._turns[origin]:
            if origin not in self._rules:
                self._rules[origin] = await self._read_rules(f"{origin}/robots.txt")
        if not self._rules[origin].can_fetch(AGENT, url):
            raise DocumentUnreadable(f"The robots.txt of {parts.hostname} keeps programs from it.")

    async def _read_rules(self, url: str) -> RobotFileParser:
        rules = RobotFileParser()
        lines: list[str] = []
        try:
            lines = fetching.decoded(await self._fetcher.fetch(url)).splitlines()
        except PageUnavailable as error:
            if error.status is None or error.status >= 500:
                raise DocumentUnreadable(f"robots.txt: {error.message}") from None
        rules.parse(lines)
        return rules


def page_text(page: Page) -> Text:
    """What a page says.

    Raises:
        DocumentUnreadable: it is no text, or has none.
    """
    if page.media_type == _PDF:
        return pdf_text(page.body)
    if not page.media_type:
        decoded(page.body)  # which refuses what is no text
    text = fetching.decoded(page)
    if is_html(page):
        found = html_text(text, page.url)
    else:
        markdown = page.media_type == _MARKDOWN or urlsplit(page.url).path.endswith(".md")
        found = Text(sections=(Section(text),), markdown=markdown)
    if not any(each.text.strip() for each in found.sections):
        raise DocumentUnreadable("It has no text.", gone=True)
    return found


def _conditions(known: Document | None) -> dict[str, str]:
    headers = {}
    if known and known.etag:
        headers["If-None-Match"] = known.etag
    if known and known.last_modified:
        headers["If-Modified-Since"] = known.last_modified
    return {name: value for name, value in headers.items() if value.isascii()}
