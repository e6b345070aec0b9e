"""The live tree of a run on a terminal: agents, turns, tools, tokens and cost.

It is drawn by the event loop and by nothing else, so it can never stand in the middle of a line of
text: whoever writes to the terminal hides it before.
"""

from __future__ import annotations

import asyncio
from typing import TextIO, cast

from rich.console import Console
from rich.live import Live
from rich.text import Text
from rich.tree import Tree

from heartbit.cli.lines import DELEGATING, summary
from heartbit.cli.sink import Sink
from heartbit.cli.tally import AgentTally, Tally
from heartbit.cli.words import call_text, one_line

SECONDS_PER_FRAME = 0.125
_STYLES = {"running": "cyan", "waiting": "yellow", "done": "green", "failed": "red"}


class LiveTree:
    """Draws `tally` below whatever else is on the terminal, a few times per second."""

    def __init__(self, tally: Tally, err: Sink) -> None:
        self._tally = tally
        self._console = Console(file=cast(TextIO, err), highlight=False, force_jupyter=False)
        self._live: Live | None = None
        self._timer: asyncio.TimerHandle | None = None

    def show(self) -> None:
        """Draw it, and keep it up to date until `hide`."""
        if self._live is None and self._tally.root is not None:
            self._live = self._new_live()
            self._live.start(refresh=True)
            self._schedule()

    def hide(self) -> None:
        """Take it off the screen, the cursor being back where it was."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._live is not None:
            self._live.stop()
            self._live = None

    def print(self, text: str) -> None:
        """A line above the tree."""
        self._console.print(Text(text), soft_wrap=True)

    def print_final(self) -> None:
        """The tree as it ended, for good; not worth a look when one agent just answered."""
        root = self._tally.root
        if root is not None and (root.children or root.tools):
            self._console.print(tree_of(root))

    def _new_live(self) -> Live:
        return Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            get_renderable=self._render,
        )

    def _render(self) -> Tree:
        assert self._tally.root is not None  # noqa: S101 - show() has looked
        return tree_of(self._tally.root)

    def _schedule(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(SECONDS_PER_FRAME, self._frame)

    def _frame(self) -> None:
        if self._live is not None:
            self._live.refresh()
            self._schedule()


def tree_of(run: AgentTally) -> Tree:
    """A run with what it does now, what it has done, and the runs below it."""
    tree = Tree(_label(run), guide_style="dim")
    used = [f"{name} x{number}" for name, number in run.tools.items() if name not in DELEGATING]
    if used:
        tree.add(Text(f"tools: {one_line(', '.join(used))}", style="dim"))
    for call in run.open_calls.values():
        if call["name"] not in DELEGATING:
            tree.add(Text(call_text(call["name"], call["arguments"]), style="cyan"))
    for child in run.children:
        tree.add(tree_of(child))
    return tree


def _label(run: AgentTally) -> Text:
    return Text.assemble(
        (one_line(run.agent, 64), "bold"),
        (f"  {run.status}", _STYLES.get(run.status, "dim")),
        (f"  {summary(run)}", "dim"),
    )
