"""Who learns that a worker is to end: its children, and no other worker."""

from __future__ import annotations

import subprocess
import sys

FORKED = """
import os, sys
from heartbit.engines.departure import Departure
departure = Departure()
told, hear = os.pipe()
if pid := os.fork():
    departure.begin()
    os.write(hear, b"!")
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
{first}
os.read(told, 1)
os._exit(departure.begun)
"""


def begun_in_the_child(first: str) -> bool:
    """Whether a forked process sees the end that the first one has begun."""
    done = subprocess.run([sys.executable, "-c", FORKED.format(first=first)], check=False)
    return bool(done.returncode)


def test_a_forked_child_learns_that_its_worker_is_to_end() -> None:
    """The signal itself reaches only the worker."""
    assert begun_in_the_child("")


def test_a_worker_that_was_forked_from_another_process_stays_when_that_one_goes() -> None:
    """Else one SIGTERM would have all workers of a forking supervisor refuse their steps."""
    assert not begun_in_the_child("departure.anew()")


def test_nobody_is_to_end_before_it_was_said_and_steps_are_kept_until_their_time() -> None:
    """Two moments: no more is begun, and what others can do is handed back."""
    from heartbit.engines.departure import Departure

    now = [100.0]
    departure = Departure(lambda: now[0])
    assert (False, False) == (departure.begun, departure.due)
    departure.begin(30)
    assert (True, False) == (departure.begun, departure.due)
    now[0] = 130.0
    assert departure.due
