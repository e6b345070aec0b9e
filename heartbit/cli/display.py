"""What a person sees of a run: the answer on stdout, everything else on stderr.

Both may be one terminal. Then the tree is off the screen while the answer is being written, and a
line of stderr never starts in the middle of a line of the answer.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from heartbit.cli.lines import progress_line
from heartbit.cli.sink import Sink
from heartbit.cli.tally import AgentTally, Tally
from heartbit.cli.words import one_line, pretty, printable, stats
from heartbit.core.messages import Json
from heartbit.core.result import RunOutput

if TYPE_CHECKING:
    from heartbit.cli.tree import LiveTree

WAITING_REMEDY = (
    "Nobody decided, so the run ends here. Run it in a terminal with --approve, or add "
    "[[permissions]] rules for these tools."
)
_ENDS_A_TEXT = {"model_replied", "model_failed", "turn_restarted", "run_cancelled"}


class Display:
    """Shows one run after the other. `stop` is called when nobody reads the output any more.

    Args:
        verbose: print every entry as JSON in place of lines or the tree.
        quiet: write no text to stdout; it is for the result alone.
    """

    def __init__(self, *, verbose: bool = False, quiet: bool = False) -> None:
        self.out, self.err = Sink(sys.stdout), Sink(sys.stderr)
        self._verbose = verbose
        self._quiet = quiet
        self._shared = self.out.shares_terminal_with(self.err)
        self._raw_out = not self.out.isatty()
        self._held: list[str] | None = None
        self._tenth = -1
        self.start_run()

    def start_run(self) -> None:
        """Forget the run before."""
        self._tally = Tally()
        self._tree = self._new_tree()
        self.out.empty = True
        self._gap = False

    def on_failure(self, stop: Callable[[], None]) -> None:
        """Call `stop` when stdout or stderr can't be written to any more."""
        self.out.on_failure = self.err.on_failure = stop

    def on_event(self, entry: Json) -> None:
        """Take in what a run does."""
        if entry["type"] == "text_delta":
            self._on_text(entry)
            return
        run = self._tally.add(entry)
        if run is self._tally.root and entry["type"] in _ENDS_A_TEXT:
            self._end_text()
        if self._verbose:
            self._note(f"[event] {json.dumps(entry)}")
        elif self._tree is None or entry["type"] == "turn_restarted":
            self._progress(entry, run)
        if self._tree is not None and self._held is None:
            self._tree.show()

    def warn(self, text: str) -> None:
        """Something the person should know and need not act on."""
        self._note(f"warning: {one_line(text, 1000)}")

    def error(self, text: str) -> None:
        """Why there is no result."""
        self._note(f"error: {one_line(text, 2000)}")

    def on_indexing(self, done: int, total: int) -> None:
        """Show a person how far the reading of documents is, ten times at most."""
        tenth = done * 10 // max(total, 1)
        if self.err.isatty() and tenth != self._tenth:
            self._tenth = tenth
            self._note(f"knowledge: {done:,} of {total:,} documents")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Write nothing by itself meanwhile: a person is being asked."""
        self._hide_tree()
        self._held = []
        try:
            yield
        finally:
            held, self._held = self._held, None
            for line in held:
                self._note(line)

    def close(self) -> None:
        """Leave the terminal as it was found; may be called at any time."""
        self._end_text()
        self._hide_tree()

    def report(self, output: RunOutput) -> None:
        """The end of a run: its result as far as it was not streamed, why, and what it used."""
        self.close()
        if self.out.reader_left:
            return
        if self._quiet:
            self.out.line(json.dumps(output.as_json()))
        else:
            self._result(output)
        if self._tree is not None:
            self._tree.print_final()
        if output.status == "failed":
            self.error(output.error or "The run failed.")
        elif output.status == "cancelled":
            self._note("cancelled")
        self._waiting(output)
        self._note(stats(output))

    def _result(self, output: RunOutput) -> None:
        if output.structured is not None:
            self.out.line(json.dumps(output.structured, indent=2, ensure_ascii=False))
        elif output.status == "succeeded" and output.result and self.out.empty:
            self.out.write(self._as_shown(output.result))
            self.out.end_line()

    def _waiting(self, output: RunOutput) -> None:
        if output.status != "waiting":
            return
        self._note("waiting for an approval of:")
        for question in output.pending:
            for call in question.calls:
                self._note(f"[{one_line(question.agent)}] {call.name} {pretty(call.arguments)}")
        self._note(WAITING_REMEDY)

    def _on_text(self, entry: Json) -> None:
        if self._verbose:
            self._note(f"[event] {json.dumps(entry)}")
        if entry["parent_run_id"] is not None or self._quiet or not entry["text"]:
            return
        if self._shared:
            self._hide_tree()
        if self._gap:
            self.out.write("\n")
            self._gap = False
        self.out.write(self._as_shown(entry["text"]))

    def _end_text(self) -> None:
        """The turn is over: its last line too, and the next text stands apart from it."""
        if not self.out.empty:
            self.out.end_line()
            self._gap = True

    def _as_shown(self, text: str) -> str:
        return text if self._raw_out else printable(text)

    def _progress(self, entry: Json, run: AgentTally) -> None:
        line = progress_line(entry, run)
        if line:
            self._note(line)

    def _note(self, line: str) -> None:
        """A line on stderr."""
        if self._held is not None:
            self._held.append(line)
            return
        if self._shared and not self.out.at_line_start:
            self.err.write("\n")
            self.out.at_line_start = True
        if self._tree is not None:
            self._tree.print(line)
        else:
            self.err.line(line)

    def _hide_tree(self) -> None:
        if self._tree is not None:
            self._tree.hide()

    def _new_tree(self) -> LiveTree | None:
        if self._verbose or not self.err.isatty() or os.environ.get("TERM", "dumb") == "dumb":
            return None
        from heartbit.cli.tree import LiveTree

        return LiveTree(self._tally, self.err)
