"""`python -m heartbit.demo.durable [PROMPT]`: a run that survives the worker it runs on.

It starts PostgreSQL, Valkey and a worker, submits a run, kills the worker with SIGKILL in the
middle, starts another one, has a process of its own approve the call that waits, and shows what was
done twice: nothing that stood in the journal.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from heartbit.demo.fleet import ASKED, BOARD
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
    run_id = stage.heartbit("submit", prompt)["run_id"]
    say(f"Submitted {prompt!r} as run {run_id}.")
    until(lambda: len(stage.notes(ASKED)) > 2)
    assert first.pid is not None  # noqa: S101 - it was ready
    os.kill(first.pid, signal.SIGKILL)
    asked, journaled = stage.notes(ASKED), stage.turns(run_id)
    lost = sorted(set(asked) - journaled)
    say(f"Killed worker-1 (SIGKILL). In the journal: {listed(journaled)}. Lost: {listed(lost)}.")
    stage.start_worker("worker-2")
    (question,) = until(lambda: stage.heartbit("status", run_id)["pending"])
    say(f"worker-2 goes on; the {question['agent']} asks about {question['calls'][0]['name']}.")
    stage.heartbit("approve", run_id, "--all")
    say("Another process has approved it.")
    output = stage.heartbit("result", run_id, "--wait", str(PATIENCE_SECONDS))
    later = stage.notes(ASKED)[len(asked) :]
    again, board = sorted(set(later) & journaled), stage.notes(BOARD)
    say(f"\n{output['result']}\n")
    say(f"Asked again of the model: {listed(again)} of the turns that stood in the journal,")
    say(f"{listed(set(later) & set(lost))} of those that were lost with worker-1.")
    say(f"Lines on the board: {len(board)}.")
    return 0 if (output["status"], again, len(board)) == ("succeeded", [], 1) else 1


def listed(names: Any) -> str:
    """Names in a sentence."""
    return ", ".join(sorted(names)) or "none"


def say(line: str) -> None:
    """Tell the person."""
    print(line, flush=True)  # noqa: T201 - the demo is its output


if __name__ == "__main__":
    try:
        sys.exit(main(" ".join(sys.argv[1:]).strip() or PROMPT))
    except HeartbitError as error:
        sys.exit(f"error: {error.message}")
    except KeyboardInterrupt:
        sys.exit(3)
