"""`heartbit watch`: a durable run as it happens, from its beginning or from where one was."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import TYPE_CHECKING

import click

from heartbit.cli.durable import open_client, run_argument
from heartbit.cli.group import global_flags

if TYPE_CHECKING:
    from heartbit.client import Client


@click.command()
@run_argument
@click.option("--from", "offset", metavar="OFFSET", help="Go on after this offset of --json.")
@click.option("-v", "--verbose", is_flag=True, help="Print every event on stderr.")
@click.option("--json", "as_json", is_flag=True, help="Print entries with offsets, one per line.")
@global_flags
@click.pass_context
def watch(
    ctx: click.Context, run_id: str, offset: str | None, verbose: bool, as_json: bool
) -> None:
    """Follow RUN, with all that it starts, from its beginning to its end.

    Nothing is missed, whenever it is called. Ctrl-C ends the watching and not the run.
    """
    client = open_client(ctx)
    root = client.journal.run(run_id).root_run_id
    asyncio.run(_watch(client, root, offset, verbose, as_json))


async def _watch(
    client: Client, root: str, offset: str | None, verbose: bool, as_json: bool
) -> None:
    from heartbit.cli.display import Display

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
