"""`heartbit dev`: everything that durable runs need, on this machine, until Ctrl-C."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from heartbit.cli.durable import prepare
from heartbit.cli.group import global_flags
from heartbit.cli.supervise import supervise

if TYPE_CHECKING:
    from heartbit.embedded.children import Part


@click.command()
@click.option("--system", is_flag=True, help="Use PostgreSQL and Valkey or Redis from PATH.")
@global_flags
@click.pass_context
def dev(ctx: click.Context, system: bool) -> None:
    """Run PostgreSQL, Valkey, a worker, beat and Flower here: no Docker, no root, no fixed port.

    The data stays in $XDG_STATE_HOME/heartbit or ~/.local/state/heartbit (root: /var/lib/heartbit)
    and the other commands find everything by themselves. A database or broker that is configured
    is used in place of one of these. Ctrl-C stops all.
    """
    prepare(ctx)
    from heartbit.embedded.address import state_directory
    from heartbit.embedded.stack import Stack
    from heartbit.runtime import load_config

    if file := os.environ.get("HEARTBIT_CONFIG"):
        os.environ["HEARTBIT_CONFIG"] = str(Path(file).absolute())
    directory = state_directory(os.environ)
    click.echo(f"data in {directory}")
    stack = Stack(directory, load_config(), os.environ, cwd=Path.cwd(), system=system)

    def start() -> None:
        stack.start(_tell)
        if find_spec("flower") is None:
            click.echo("flower      is not installed: pip install 'heartbit[flower]'")
        click.echo('ready: `heartbit submit "..."` in another terminal; Ctrl-C stops everything')

    supervise(ctx, stack, start)


def _tell(part: Part) -> None:
    click.echo(f"{part.name:<10}  {part.where}  (log: {part.log})")
