"""`heartbit migrate`: the tables of this heartbit in the database of the journal."""

from __future__ import annotations

import click

from heartbit.cli.durable import json_flag, prepare, print_json
from heartbit.cli.group import global_flags


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; exit code 1 if something is missing.")
@json_flag
@global_flags
@click.pass_context
def migrate(ctx: click.Context, check: bool, as_json: bool) -> None:
    """Bring the database to this version of heartbit: forward only, and safe to run at any time."""
    prepare(ctx)
    from heartbit.client import local_config
    from heartbit.runtime import database_url
    from heartbit.stores.migrate import migrate as apply
    from heartbit.stores.migrate import pending

    url = database_url(local_config())
    labels = pending(url) if check else apply(url)
    if as_json:
        print_json({"pending" if check else "applied": labels})
    else:
        for label in labels:
            click.echo(f"{'missing' if check else 'applied'}: {label}")
        if not labels:
            click.echo("the database is up to date", err=True)
    ctx.exit(1 if check and labels else 0)
