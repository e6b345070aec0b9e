"""`python -m heartbit.demo.durable [PROMPT]`: a run that survives the worker it runs on.

It starts PostgreSQL, Valkey and a worker, submits a run, kills the worker with SIGKILL in the
middle, starts another one, has a process of its own approve the call that waits, and then does the
same with nobody killed. At the end it says which promises it saw kept.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from heartbit.demo.fleet import ASKED, BOARD, HELD
from heartbit.demo.promises import Seen, read_journal
from heartbit.demo.stage import PATIENCE_SECONDS, Stage, open_stage, until
from heartbit.errors import HeartbitError

PROMPT = "The number of the day is 360360."
CONFIG = Path(__file__).with_name("fleet.toml")


def main(prompt: str) -> int:
    """Show it, and give the exit code: 0 if all that is promised was seen."""
    say("Starting PostgreSQL, Valkey and a worker ...")
    with open_stage(CONFIG, {}) as stage:
        return show(stage, prompt)


def show(stage: Stage, prompt: str) -> int:
    """The demonstration, once the servers run."""
    first = stage.start_worker("worker-1")
    with stage.file(HELD):
        run_id = submitted(stage, prompt)
        say(f"Submitted {prompt!r} as run {run_id}.")
        until(lambda: is_in_the_middle(stage, run_id))
        assert first.pid is not None  # noqa: S101 - it was ready
        os.kill(first.pid, signal.SIGKILL)
        asked, killed = stage.notes(ASKED), read_journal(stage.journal, run_id)
    lost = frozenset(asked) - killed.turns
    say("Killed worker-1 (SIGKILL).")
    say(f"  In the journal: {listed(killed.turns)}; on the board: {listed(killed.notices)}")
    say(f"  Lost with it: {listed(lost)}.")
    stage.start_worker("worker-2")
    output = approved(stage, run_id)
    later, board = stage.notes(ASKED)[len(asked) :], stage.notes(BOARD)
    say(f"\n{output['result']}\n")
    say("Now the same with nobody killed.")
    seen = Seen(
        killed=killed,
        lost=lost,
        later=later,
        journaled=read_journal(stage.journal, run_id),
        board=board,
        output=output,
        undisturbed=approved(stage, submitted(stage, prompt)),
    )
    return judged(seen)


def submitted(stage: Stage, prompt: str) -> str:
    """The id of a new run."""
    return str(stage.heartbit("submit", "--", prompt)["run_id"])


def is_in_the_middle(stage: Stage, run_id: str) -> bool:
    """Whether the journal has an effect, and a model is at work on something it has not."""
    found = read_journal(stage.journal, run_id)
    return bool(found.notices) and not found.turns >= set(stage.notes(ASKED))


def approved(stage: Stage, run_id: str) -> Any:
    """What a run gives once its question was answered, by a process of its own."""
    (question,) = until(lambda: stage.heartbit("status", run_id)["pending"])
    say(f"The {question['agent']} asks about {question['calls'][0]['name']};", end=" ")
    stage.heartbit("approve", run_id, "--all")
    say("another process approves it.")
    return stage.heartbit("result", run_id, "--wait", str(PATIENCE_SECONDS))


def judged(seen: Seen) -> int:
    """Say what was seen, and give the exit code."""
    say("\nRequested from the model after the kill:")
    say(f"  {listed(seen.again)} of the turns that stood in the journal,")
    say(f"  {listed(seen.lost & set(seen.later))} of those that were lost.")
    for promise, kept in seen.promises.items():
        say(f"{'ok   ' if kept else 'WRONG'}  {promise}")
    return 0 if all(seen.promises.values()) else 1


def listed(names: Any) -> str:
    """Names in a sentence."""
    return ", ".join(sorted(names)) or "none"


def say(line: str, end: str = "\n") -> None:
    """Tell the person."""
    print(line, end=end, flush=True)  # noqa: T201 - the demo is its output


if __name__ == "__main__":
    try:
        sys.exit(main(" ".join(sys.argv[1:]).strip() or PROMPT))
    except HeartbitError as error:
        sys.exit(f"error: {error.message}")
    except KeyboardInterrupt:
        sys.exit(3)
