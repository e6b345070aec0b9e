"""The table of the README: what is measured, what is promised, and what came out.

It is written by a whole run of the benchmarks and by nothing else.
"""

from __future__ import annotations

import math
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

README = Path(__file__).resolve().parent.parent / "README.md"
START, END = "<!-- bench:start -->", "<!-- bench:end -->"
HEADER = "| | beside it | heartbit | compared | goal |\n|---|--:|--:|--:|--:|"


class Found(NamedTuple):
    """What one row came to: both sides, and how they compare in the row's own sense."""

    key: str
    beside: float
    ours: float
    compared: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of the table. `figure` and `compared` are formats; the goal is the most allowed."""

    what: str
    figure: str
    compared: str
    goal: float | None = None

    def render(self, found: Found) -> str:
        """The line in Markdown."""
        beside, ours = _shown(self.figure, found.beside), self.figure.format(found.ours)
        goal = "" if self.goal is None else "≤ " + self.compared.format(self.goal).lstrip("+")
        cells = (self.what, beside, ours, _shown(self.compared, found.compared), goal)
        return f"| {' | '.join(cells)} |"


def _shown(form: str, figure: float) -> str:
    """What could not be measured is no number."""
    return "not installed" if math.isnan(figure) else form.format(figure)


TIMES = "{:.2f} x"
MILLISECONDS = "{:.2f} ms"
DURABLE = {
    "durable_each": Row(
        what="**durable**, CPU per model turn with two tool calls: worker, client, PostgreSQL and "
        "Valkey",
        figure=MILLISECONDS,
        compared=MILLISECONDS,
        goal=10,
    ),
    "durable_batched": Row(
        what='the same, `steps = "batched"`',
        figure=MILLISECONDS,
        compared=MILLISECONDS,
        goal=4,
    ),
    "dbos_each": Row(what="beside DBOS", figure=MILLISECONDS, compared=TIMES),
    "dbos_batched": Row(
        what='beside DBOS, `steps = "batched"`', figure=MILLISECONDS, compared=TIMES
    ),
    "langgraph_each": Row(
        what="beside LangGraph with its Postgres saver", figure=MILLISECONDS, compared=TIMES
    ),
    "langgraph_batched": Row(
        what='beside LangGraph, `steps = "batched"`', figure=MILLISECONDS, compared=TIMES
    ),
    "durable_tree_each": Row(
        what="durable, CPU per model call, an orchestrator with 8 sub-agents at once",
        figure=MILLISECONDS,
        compared=MILLISECONDS,
    ),
    "durable_tree_batched": Row(
        what='the same, `steps = "batched"`', figure=MILLISECONDS, compared=MILLISECONDS
    ),
    "commits_each": Row(
        what="transactions per turn that wait for the disk, and two per run (beside it: all of a "
        "run of ten turns)",
        figure="{:.1f}",
        compared="{:.1f}",
        goal=3,
    ),
    "commits_batched": Row(
        what='the same, `steps = "batched"`', figure="{:.1f}", compared="{:.1f}", goal=2
    ),
    "growth": Row(
        what="growth of the database in a run of 100 turns (beside it: its conversation)",
        figure="{:.2f} MB",
        compared="{:.2f} MB",
        goal=2.46,
    ),
    "log": Row(
        what="PostgreSQL's log per turn at the end of that run (beside it: at its beginning)",
        figure="{:.1f} kB",
        compared=TIMES,
        goal=1.2,
    ),
    "held": Row(
        what="2-second model calls under way at once in one worker, of so many",
        figure="{:.0f}",
        compared="{:.0f}",
    ),
    "held_wall": Row(
        what="from the first of these calls until all are in the journal (beside it: one call)",
        figure="{:.1f} s",
        compared="{:.1f} s",
        goal=6,
    ),
    "held_memory": Row(
        what="memory of that worker at the most (beside it: after one run)",
        figure="{:.0f} MB",
        compared="{:.0f} MB",
        goal=170,
    ),
    "waiting_runs_memory": Row(
        what="memory of a worker beside 10,000 runs that wait for a human (beside it: beside none)",
        figure="{:.0f} MB",
        compared="{:+.1f} MB",
        goal=2,
    ),
    "waiting_runs_sweep": Row(
        what="recovery sweep beside these runs (beside it: beside none)",
        figure="{:.0f} ms",
        compared="{:.0f} ms",
        goal=50,
    ),
    "takeover": Row(
        what="until a killed worker's step is held by another one (beside it: the lease)",
        figure="{:.1f} s",
        compared="{:+.1f} s",
        goal=2,
    ),
    "first_text": Row(
        what="first text of a turn at a subscriber, 99 of 100 (beside it: bare XADD and XREAD)",
        figure="{:.1f} ms",
        compared="{:.1f} ms",
        goal=30,
    ),
    "first_text_fleet": Row(
        what="the same from the model server through a durable worker "
        "(beside it: the listener alone)",
        figure="{:.1f} ms",
        compared="{:.1f} ms",
        goal=30,
    ),
}
ROWS = {
    "turn": Row(
        what="CPU per model turn with two tool calls",
        figure="{:.2f} ms",
        compared=TIMES,
        goal=1.5,
    ),
    "turn_anthropic": Row(
        what="the same on Anthropic's wire", figure="{:.2f} ms", compared=TIMES, goal=1.5
    ),
    "turn_threads": Row(
        what="the same, tools that are plain functions: a thread each",
        figure="{:.2f} ms",
        compared=TIMES,
    ),
    "turn_streaming": Row(
        what="CPU per model turn with two tool calls, streaming",
        figure="{:.2f} ms",
        compared=TIMES,
        goal=1.5,
    ),
    "turn_anthropic_streaming": Row(
        what="the same on Anthropic's wire", figure="{:.2f} ms", compared=TIMES, goal=1.5
    ),
    "flat": Row(
        what="turn 100 against turn 10, 1,000 characters a turn",
        figure=TIMES,
        compared=TIMES,
        goal=1.2,
    ),
    "tree": Row(
        what="CPU per model call, an orchestrator with 8 sub-agents at once",
        figure="{:.2f} ms",
        compared=TIMES,
    ),
    "waiting": Row(
        what="memory per run, 1,000 runs waiting for a 2-second model call",
        figure="{:.0f} KiB",
        compared="{:.0f} KiB",
        goal=150,
    ),
    "waiting_wall": Row(what="until all 1,000 are done", figure="{:.1f} s", compared="{:.1f} s"),
    "recall_postgres": Row(
        what="recall by words from 10,000 memories in PostgreSQL, accesses counted (beside it: not "
        "counted)",
        figure="{:.1f} ms",
        compared="{:.1f} ms",
        goal=20,
    ),
    "recall_in_memory": Row(
        what="the same in this process",
        figure="{:.1f} ms",
        compared="{:.1f} ms",
        goal=60,
    ),
    "recall_vectors_postgres": Row(
        what="recall by words and by vectors of 384 numbers from 10,000 memories in PostgreSQL, "
        "accesses counted (beside it: not counted)",
        figure="{:.1f} ms",
        compared="{:.1f} ms",
        goal=20,
    ),
    "recall_vectors_in_memory": Row(
        what="the same in this process",
        figure="{:.1f} ms",
        compared="{:.1f} ms",
        goal=60,
    ),
    "knowledge_new": Row(
        what="1,000 Markdown files, 10 MB, cut and indexed by their words in PostgreSQL (beside "
        "it: in this process)",
        figure="{:.1f} s",
        compared="{:.1f} s",
        goal=10,
    ),
    "knowledge_unchanged": Row(
        what="the same again, nothing having changed",
        figure="{:.2f} s",
        compared="{:.2f} s",
        goal=1,
    ),
    "help": Row(
        what="CPU of `heartbit --help` (beside it: an empty Python program)",
        figure="{:.0f} ms",
        compared="{:.0f} ms",
        goal=150,
    ),
    "start": Row(
        what="CPU of `heartbit run` (beside it: importing click, rich, httpx2, pydantic and "
        "jsonschema)",
        figure="{:.0f} ms",
        compared="{:+.0f} ms",
        goal=150,
    ),
    "start_memory": Row(
        what="memory of `heartbit run` (beside it: the same)",
        figure="{:.0f} MiB",
        compared="{:+.1f} MiB",
        goal=15,
    ),
} | DURABLE


def render(found: Iterable[Found]) -> str:
    """What stands between the marks: the table and where it comes from."""
    by_key = {each.key: each for each in found}
    lines = [row.render(by_key[key]) for key, row in ROWS.items() if key in by_key]
    origin = f"{measured_by('make bench')} [What each row means](docs/reference/performance.md)."
    return "\n".join([HEADER, *lines, "", origin])


def write(text: str) -> None:
    """Put `text` between the marks of the README."""
    put(README, text, START, END)


def put(page: Path, text: str, start: str, end: str) -> None:
    """Put `text` between two marks of a page."""
    block = re.compile(f"(?<={re.escape(start)}\n).*?(?=\n{re.escape(end)})", re.DOTALL)
    page.write_text(block.sub(lambda _: text, page.read_text()))


def measured_by(command: str) -> str:
    """A sentence on where figures come from."""
    machine = f"{os.cpu_count()} cores ({_processor()}), {platform.system()}"
    python = f"Python {platform.python_version()}"
    return (
        f"Measured by `{command}` on {datetime.now(UTC):%Y-%m-%d} at commit {_commit()}: "
        f"{machine}, {python}."
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", info.read_text()) if info.exists() else None
    return found[1].strip() if found else platform.machine()


def _commit() -> str:
    """The short hash, with a plus if what is measured differs from it."""
    commit = _git("rev-parse", "--short=9", "HEAD")
    if not commit:
        return "unknown"  # an unpacked archive
    return f"`{commit}{'+' if _git('status', '--porcelain', 'heartbit') else ''}`"


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=README.parent, check=False, capture_output=True, text=True
    )
    return done.stdout.strip()
