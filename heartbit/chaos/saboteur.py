"""Strikes its own process at one boundary of one run: SIGKILL, or SIGSTOP.

What is to be struck is in a file that the first process to come there takes away, so that it is
struck once. The files of a run begin with its id: `seen` has the boundaries that were passed,
`fault` is what is to come and `struck` what has come. For a frozen process, `taken` says that
another one has come to the same boundary and waits; `late` is what became of what the frozen one
was about to store when it was woken.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from heartbit.chaos.stage import append_line, read_lines
from heartbit.engines.chaos import Boundary

Role = Literal["worker", "caller"]
Kind = Literal["kill", "freeze"]

HOLD_SECONDS = 15.0
POLL_SECONDS = 0.01


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Spot:
    """A boundary by its name, which is the same in every run; a `caller` is no worker."""

    role: Role
    place: str
    what: str
    edge: str

    def __str__(self) -> str:
        who = f"{self.place} (caller)" if self.role == "caller" else self.place
        return f"{who}: {self.edge} {self.what}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """What is done to the process that comes to a spot."""

    kind: Kind
    spot: Spot

    def __str__(self) -> str:
        return f"{self.kind} {self.spot}"


class RunFiles:
    """The files in which the processes of one run and whoever watches them meet."""

    def __init__(self, directory: Path, run_id: str) -> None:
        self.seen, self.fault, self.struck, self.taken, self.late = (
            directory / f"{run_id}.{name}" for name in ("seen", "fault", "struck", "taken", "late")
        )

    def arm(self, fault: Fault) -> None:
        """Have the first process that comes to the spot struck."""
        self.fault.write_text(json.dumps(asdict(fault)))

    def take(self) -> bool:
        """Be the one who is struck."""
        with suppress(FileNotFoundError):
            self.fault.rename(self.struck)
            return True
        return False

    def spots(self) -> list[Spot]:
        """The spots that were passed, in order."""
        return [Spot(**json.loads(line)) for line in read_lines(self.seen)]


class Saboteur:
    """Listens to the boundaries of its process; `strike` and `sleep` are those of the system.

    A stop is sent to the thread, which takes it before it returns; sent to the process it may be
    another thread's to take, and this one goes on for a while.
    """

    def __init__(
        self,
        directory: Path,
        role: Role,
        *,
        strike: Callable[[int, int], None] = signal.pthread_kill,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._directory = directory
        self._role: Role = role
        self._strike = strike
        self._sleep = sleep
        self._frozen: dict[str, tuple[int, Spot]] = {}

    def __call__(self, boundary: Boundary) -> None:
        spot = Spot(role=self._role, place=boundary.place, what=boundary.what, edge=boundary.edge)
        run_id = boundary.root_run_id
        files = RunFiles(self._directory, run_id)
        append_line(files.seen, json.dumps(asdict(spot)))
        self._tell_late(files, run_id, spot)
        if (fault := _read(files.fault)) is not None:
            if fault.spot == spot and files.take():
                self._fall(run_id, fault)
        elif run_id not in self._frozen and _takes_over(spot, _read(files.struck)):
            self._hold(files)

    def _fall(self, run_id: str, fault: Fault) -> None:
        if fault.kind == "freeze":
            self._frozen[run_id] = (threading.get_ident(), fault.spot)
        number = signal.SIGKILL if fault.kind == "kill" else signal.SIGSTOP
        self._strike(threading.get_ident(), number)

    def _tell_late(self, files: RunFiles, run_id: str, spot: Spot) -> None:
        """What has become of the append before which this thread was frozen."""
        thread, frozen = self._frozen.get(run_id, (0, None))
        if thread != threading.get_ident() or frozen is None or spot.edge == "before":
            return
        if (spot.place, spot.what) == (frozen.place, frozen.what):
            append_line(files.late, spot.edge)

    def _hold(self, files: RunFiles) -> None:
        """Wait until the frozen process has tried: what it brings must not count any more."""
        files.taken.touch()
        until = time.monotonic() + HOLD_SECONDS
        while not files.late.exists() and time.monotonic() < until:
            self._sleep(POLL_SECONDS)


def _takes_over(spot: Spot, struck: Fault | None) -> bool:
    """Whether somebody else has come to where a process was frozen, or has judged its step."""
    if struck is None or struck.kind != "freeze" or spot.place != struck.spot.place:
        return False
    verb, _, step = struck.spot.what.partition(" ")
    ways = ((f"append {step}", "before"), (f"verdict {step}", "after"))
    return verb == "append" and (spot.what, spot.edge) in ways


def _read(path: Path) -> Fault | None:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return Fault(kind=found["kind"], spot=Spot(**found["spot"]))
