"""Following a durable run on a terminal or a pipe: the asyncio side of `watch`."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing

from heartbit.cli.display import Display
from heartbit.client import Client


def follow(client: Client, root: str, offset: str | None, *, verbose: bool, as_json: bool) -> None:
    """Show a run tree from an offset to its end, or until nobody reads any more.

    Raises:
        ConfigError: it is no offset.
    """
    asyncio.run(_follow(client, root, offset, verbose, as_json))


async def _follow(
    client: Client, root: str, offset: str | None, verbose: bool, as_json: bool
) -> None:
    display = Display(verbose=verbose, quiet=as_json)
    async with aclosing(client.follow(root, offset)) as items:
        async for item in items:
            if as_json:
                display.out.line(json.dumps({"offset": item.offset} | item.entry))
            else:
                display.on_event(item.entry)
            if display.out.failure is not None:
                return
    if as_json:
        display.close()
    else:
        display.report(await asyncio.to_thread(client.output, root))
