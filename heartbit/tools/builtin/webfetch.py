"""The tool `webfetch`: the text of a public web page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heartbit.core.messages import Json
from heartbit.errors import ToolError
from heartbit.tools.base import BoundTool, ToolContext
from heartbit.tools.builtin.addresses import AddressGuard
from heartbit.tools.builtin.build import build_tool
from heartbit.tools.builtin.fetching import (
    MAX_BODY_BYTES,
    MAX_REDIRECTS,
    Fetcher,
    Page,
    Resolve,
    decoded,
    is_html,
    resolve_host,
)
from heartbit.tools.builtin.text import cut, looks_binary

if TYPE_CHECKING:
    from heartbit.tools.builtin.addresses import Network

DEFAULT_SECONDS = 30
MAX_SECONDS = 120
MAX_OUTPUT_BYTES = 50_000

DESCRIPTION = f"""Fetch a public web page or text file over http(s), as markdown, text or raw html.

At most {MAX_REDIRECTS} redirects and {MAX_OUTPUT_BYTES} bytes of output. Addresses that are not \
public (localhost, internal networks) are refused."""


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


def _shown(page: Page, wanted: str) -> str:
    from heartbit.tools.builtin.html_text import html_to_text

    if not page.media_type and looks_binary(page.body):
        raise ToolError("The page is binary data; webfetch shows only text.")
    text = decoded(page)
    if wanted != "html" and is_html(page):
        text = html_to_text(text, markdown=wanted == "markdown", url=page.url)
    notes = [f"[redirected to {page.url}]"] if page.redirected else []
    if page.cut:
        notes.append(f"[longer than {MAX_BODY_BYTES >> 20} MiB: the rest of the page was not read]")
    return cut("\n\n".join([*notes, text or "[the page has no text]"]), MAX_OUTPUT_BYTES)


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
