"""`make demo`: what it shows is true, or it says so with its exit code."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from heartbit.demo.durable import judged
from heartbit.demo.promises import Journaled, Seen
from tests.support.command_line import environment

AT_WORK, ANNOUNCED = "The analyst takes 360360 apart.", "Announce: Tell everybody."
TURNS = frozenset({"orchestrator 1", "analyst 1"})
KEPT = Seen(
    killed=Journaled(turns=TURNS, notices=(AT_WORK,)),
    lost=frozenset({"analyst 2"}),
    later=["analyst 2", "orchestrator 2"],
    journaled=Journaled(turns=TURNS | {"analyst 2"}, notices=(AT_WORK, ANNOUNCED)),
    board=[AT_WORK, ANNOUNCED],
    output={"status": "succeeded", "result": "Both."},
    undisturbed={"status": "succeeded", "result": "Both."},
)


@pytest.mark.slow
def test_a_killed_worker_costs_no_journaled_turn_and_doubles_no_effect() -> None:
    """Nothing has to be typed, and no service has to be there."""
    done = subprocess.run(
        [sys.executable, "-m", "heartbit.demo.durable", "Tell\neverybody."],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr), done.stdout
    lines = done.stdout.splitlines()
    after = lines.index("Killed worker-1 (SIGKILL).")
    journaled, _, board = lines[after + 1].strip().partition("; on the board: ")
    assert {"orchestrator 1", "analyst 1"} <= set(
        journaled.removeprefix("In the journal: ").split(", ")
    )
    assert AT_WORK == board
    assert "  Lost with it: analyst 2." == lines[after + 2]
    assert "  none of the turns that stood in the journal," in lines
    assert "  analyst 2 of those that were lost." in lines
    assert 2 == sum("another process approves it." in line for line in lines)
    assert 4 == sum(line.startswith("ok ") for line in lines)


def test_when_all_promises_are_kept_the_exit_code_is_zero() -> None:
    """Each of the next ones breaks one of them."""
    assert 0 == judged(KEPT)


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        ({"killed": Journaled(turns=frozenset(), notices=(AT_WORK,))}, "worker-1 had done turns"),
        ({"killed": Journaled(turns=TURNS, notices=())}, "worker-1 had done turns"),
        ({"later": ["analyst 1", "analyst 2"]}, "no turn that stood in the journal"),
        ({"board": [AT_WORK, AT_WORK, ANNOUNCED]}, "one line for each at_most_once call"),
        ({"board": [AT_WORK]}, "one line for each at_most_once call"),
        ({"output": {"status": "succeeded", "result": "One."}}, "the answer is that of"),
        ({"output": {"status": "failed", "result": "Both."}}, "the answer is that of"),
    ],
)
def test_a_promise_that_was_not_kept_is_told_by_name_and_exit_code(
    broken: dict[str, Any], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And no other one."""
    assert 1 == judged(replace(KEPT, **broken))
    [wrong] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("WRONG")]
    assert what in wrong
