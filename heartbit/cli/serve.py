"""`heartbit serve`: what a machine of a fleet runs, as one command that is supervised as one."""

from __future__ import annotations

import os
from pathlib import Path

import click

from heartbit.cli.durable import json_flag, prepare, print_json
from heartbit.cli.group import global_flags
from heartbit.cli.supervise import supervise
from heartbit.errors import ConfigError

# A worker finishes what it has begun; what takes longer is taken over by another one.
WORKER_GRACE_SECONDS = 45.0
BEAT_GRACE_SECONDS = 10.0


@click.command()
@click.option(
    "--pool",
    type=click.Choice(["threads", "prefork", "solo"]),
    default="threads",
    show_default=True,
    help="How the worker does many things at once.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="N",
    help="How many things it does at once.",
)
@json_flag
@global_flags
@click.pass_context
def serve(ctx: click.Context, pool: str, concurrency: int, as_json: bool) -> None:
    """Run a worker and beat on the configured database and broker, as one.

    They write to stderr. Ctrl-C and SIGTERM stop both, and the worker finishes what it has begun,
    for 45 seconds at most. If one of them ends by itself, so does the command, with its exit code.
    Any number of machines may do this: a schedule starts its runs once.
    """
    prepare(ctx)
    from heartbit.client import local_config
    from heartbit.embedded.children import Children
    from heartbit.runtime import database_url
    from heartbit.stores.migrate import pending

    config = local_config()
    if missing := pending(database_url(config)):
        raise ConfigError(f"The database needs {', '.join(missing)}; run `heartbit migrate`.")
    children = Children(os.environ, cwd=Path.cwd())

    def start() -> None:
        level = ("--loglevel", "INFO")
        children.celery(
            *("worker", "-P", pool, "-c", str(concurrency), *level),
            where=f"{pool}, {concurrency} at once",
            grace_seconds=WORKER_GRACE_SECONDS,
        )
        children.celery(
            *("beat", *level),
            where=f"{len(config.schedules)} schedules",
            grace_seconds=BEAT_GRACE_SECONDS,
        )
        if as_json:
            print_json({"processes": [{"name": p.name, "pid": p.pid} for p in children.parts]})
        else:
            for part in children.parts:
                click.echo(f"{part.name:<10}  {part.where}")

    supervise(ctx, children, start)
