"""Running children until somebody says stop, or until one of them ends by itself."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, Protocol

import click

from heartbit.cli.ending import CANCELLED, end_at_once
from heartbit.cli.exits import FAILED

if TYPE_CHECKING:
    from heartbit.embedded.children import Part

LOOK_SECONDS = 0.2


class Supervised(AbstractContextManager[object], Protocol):
    """Children that are stopped at the end of the block."""

    def dead(self) -> Part | None:
        """A child that has ended by itself."""


def supervise(ctx: click.Context, children: Supervised, start: Callable[[], None]) -> NoReturn:
    """Start children, watch them, stop them all, and end the command.

    Exit code 3 after Ctrl-C or SIGTERM; that of the child after the end of one of them, which is
    said in one sentence.
    """
    with children:
        start()
        dead = _watch(children.dead)
        said = dead.epitaph() if dead else ""
        click.echo("stopping", err=True)
    if dead is None:
        ctx.exit(CANCELLED)
    click.echo(f"error: {said}", err=True)
    code = dead.exit_code()
    ctx.exit(FAILED if code is None else code)


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
