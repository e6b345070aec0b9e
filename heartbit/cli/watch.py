"""`heartbit watch`: a durable run as it happens, from its beginning or from where one was."""

from __future__ import annotations

import click

from heartbit.cli.durable import open_client, run_argument
from heartbit.cli.group import global_flags


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
    from heartbit.cli.following import follow

    follow(client, root, offset, verbose=verbose, as_json=as_json)
