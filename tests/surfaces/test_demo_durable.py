"""`make demo`: what it shows is true, or it says so with its exit code."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.command_line import environment


@pytest.mark.slow
def test_a_killed_worker_costs_no_journaled_turn_and_doubles_no_effect() -> None:
    """Nothing has to be typed, and no service has to be there."""
    done = subprocess.run(
        [sys.executable, "-m", "heartbit.demo.durable", "Tell everybody."],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr), done.stdout
    lines = done.stdout.splitlines()
    (killed,) = [line for line in lines if line.startswith("Killed worker-1")]
    assert "orchestrator 1" in killed.partition("In the journal:")[2].partition(".")[0]
    assert "Asked again of the model: none of the turns that stood in the journal," in lines
    assert "Lines on the board: 1." in lines
    assert "The board says: Announce: Tell everybody." in lines
