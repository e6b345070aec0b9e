"""`heartbit dev`: everything that durable runs need, on this machine, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from heartbit.cli.durable import prepare
from heartbit.cli.ending import CANCELLED, end_at_once
from heartbit.cli.group import global_flags

if TYPE_CHECKING:
    from heartbit.embedded.stack import Part

LOOK_SECONDS = 0.2


@click.command()
@click.option("--system", is_flag=True, help="Use PostgreSQL and Valkey or Redis from PATH.")
@global_flags
@click.pass_context
def dev(ctx: click.Context, system: bool) -> None:
    """Run PostgreSQL, Valkey, a worker and Flower here: no Docker, no root, no fixed port.

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
    with stack:
        stack.start(_tell)
        click.echo('ready: `heartbit submit "..."` in another terminal; Ctrl-C stops everything')
        dead = _watch(stack.dead)
        said = dead.epitaph() if dead else ""
        click.echo("stopping", err=True)
    if dead is None:
        ctx.exit(CANCELLED)
    click.echo(f"error: {said}", err=True)
    ctx.exit(dead.exit_code() or 1)


def _tell(part: Part) -> None:
    click.echo(f"{part.name:<10}  {part.where}  (log: {part.log})")


def _watch(dead: Callable[[], Part | None]) -> Part | None:
    """Wait for a signal (None) or for a child that ends by itself."""
    told_to_stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if told_to_stop.is_set():
            end_at_once(number, frame)  # the children end by themselves
        told_to_stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    while not told_to_stop.wait(LOOK_SECONDS):
        if found := dead():
            return found
    return None
