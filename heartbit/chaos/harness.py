"""Plays a run undisturbed, and then once for each of its boundaries, with a process struck there.

A boundary is where something was stored or sent in the undisturbed run. A process is killed at each
of them; where it could come back late it is also frozen, until another one has taken its step over.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from urllib.parse import urlsplit

from heartbit.chaos.lane import Case, Lane, Played
from heartbit.chaos.program import Order
from heartbit.chaos.record import Record
from heartbit.chaos.saboteur import Fault, Kind, Spot
from heartbit.chaos.stage import Stage
from heartbit.chaos.verdict import Checks, judge
from heartbit.errors import HeartbitError

MOST_LANES = 12
PATIENCE_SECONDS = 60.0  # of a machine that is busy with other things as well
# Another process may be the quicker one, on a machine that is busy: then nobody comes there.
TRIES = 3
HOLDING = frozenset({("append", "before"), ("commit", "before"), ("claim", "after")})
CONFIG = '[provider]\nname = "scripted"\nmodel = "scripted"\n'


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is put to the test. `make_database` gives the url of a new one, with our tables."""

    stage: Stage
    prompt: str
    directory: Path
    make_database: Callable[[], str]
    broker: str
    lease_seconds: float = 1.0
    batch_seconds: float | None = None
    lanes: int = 6

    @property
    def patience_seconds(self) -> float:
        """After how long a run has not come to its end."""
        return PATIENCE_SECONDS + 4 * self.lease_seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """A boundary, what was done to the process that came there, and what came of the run."""

    fault: Fault
    seconds: float
    checks: Checks
    trouble: str | None

    @property
    def ok(self) -> bool:
        """Whether every promise was kept."""
        return self.trouble is None and not any(self.checks.values())

    @property
    def problems(self) -> list[str]:
        """Every promise that was not, in words."""
        trouble = [self.trouble] if self.trouble else []
        return [*trouble, *(words for found in self.checks.values() for words in found)]


class Harness:
    """The lanes of one plan, on which any number of faults are tried at the same time."""

    def __init__(self, lanes: Sequence[Lane], stopping: threading.Event) -> None:
        self._stopping = stopping
        self._lanes: SimpleQueue[Lane] = SimpleQueue()
        for lane in lanes:
            self._lanes.put(lane)
        self._pool = ThreadPoolExecutor(len(lanes), "chaos")
        self._undisturbed: Record | None = None

    def faults(self) -> list[Fault]:
        """What can be done to the run: it is played undisturbed to find out.

        Raises:
            HeartbitError: it does not come to its end even so.
        """
        message, submit = self._pool.map(self._play, [Case(start="message"), Case(start="submit")])
        for played in (message, submit):
            if played.trouble is not None:
                raise HeartbitError(f"The undisturbed run failed: {played.trouble}.")
        self._undisturbed = message.seen.record
        if wrong := self._judged(submit).problems:
            raise HeartbitError(f"Two undisturbed runs differ: {'; '.join(wrong)}.")
        return faults_at(_passed(message.spots) | _passed(submit.spots))

    def results(self, faults: Sequence[Fault]) -> Iterator[Result]:
        """What comes of each fault, in the order in which they are through."""
        found = [self._pool.submit(self._try, fault) for fault in faults]
        for each in as_completed(found):
            yield each.result()

    def close(self) -> None:
        """Stop everything, whatever is under way."""
        self._stopping.set()
        self._pool.shutdown(cancel_futures=True)
        while not self._lanes.empty():
            self._lanes.get().close()

    def _try(self, fault: Fault) -> Result:
        is_start = fault.spot.role == "caller" and is_of_start(fault.spot)
        case = Case(start="submit" if is_start else "message", fault=fault)
        for _ in range(TRIES):
            played = self._play(case)
            if played.struck or played.trouble or self._stopping.is_set():
                break
        return self._judged(played)

    def _play(self, case: Case) -> Played:
        lane = self._lanes.get()
        try:
            return lane.play(case)
        finally:
            self._lanes.put(lane)

    def _judged(self, played: Played) -> Result:
        assert self._undisturbed is not None  # noqa: S101 - it is played first
        fault = played.case.fault
        trouble = played.trouble
        if fault is not None and not played.struck:
            trouble = trouble or "no process came to this boundary"
        return Result(
            fault=fault or Fault(kind="kill", spot=NOWHERE),
            seconds=played.seconds,
            checks={} if played.trouble else judge(played.seen, self._undisturbed),
            trouble=trouble,
        )


NOWHERE = Spot(role="worker", place="", what="", edge="")


@contextmanager
def open_harness(plan: Plan) -> Iterator[Harness]:
    """A harness with its lanes; all processes have ended afterwards."""
    stopping = threading.Event()
    numbers = range(1, min(plan.lanes, MOST_LANES) + 1)
    harness = Harness([_lane(plan, number, stopping) for number in numbers], stopping)
    try:
        yield harness
    finally:
        harness.close()


def _lane(plan: Plan, number: int, stopping: threading.Event) -> Lane:
    directory = plan.directory / f"lane{number}"
    directory.mkdir()
    (directory / "heartbit.toml").write_text(CONFIG)
    order = Order(
        directory=directory,
        database=plan.make_database(),
        broker=urlsplit(plan.broker)._replace(path=f"/{number}").geturl(),
        stage=plan.stage,
        lease_seconds=plan.lease_seconds,
        batch_seconds=plan.batch_seconds,
    )
    patience = plan.patience_seconds
    return Lane(order, plan.prompt, patience_seconds=patience, stopping=stopping)


def _passed(spots: Sequence[Spot]) -> dict[Spot, None]:
    """The boundaries of what was stored or sent, in order; nothing came of the others."""
    done = {(spot.role, spot.place, spot.what) for spot in spots if spot.edge == "after"}
    refused = {(spot.role, spot.place, spot.what) for spot in spots if spot.edge == "refused"}
    return dict.fromkeys(
        spot
        for spot in spots
        if spot.edge != "refused" and (spot.role, spot.place, spot.what) not in refused - done
    )


def faults_at(spots: Sequence[Spot] | dict[Spot, None]) -> list[Fault]:
    """A kill at each boundary, and a freeze where a process holds a step, a decision or a lock."""
    kinds: dict[Spot, list[Kind]] = {spot: ["kill"] for spot in spots}
    for spot in spots:
        verb = spot.what.partition(" ")[0]
        if (verb, spot.edge) in HOLDING:
            kinds[spot].append("freeze")
    return [Fault(kind=kind, spot=spot) for spot, found in kinds.items() for kind in found]


def is_of_start(spot: Spot) -> bool:
    """Whether a caller comes there when it starts the run, not when it decides about a call."""
    return spot.what == "open" or spot.what.split(" ")[-1].startswith("1/model")
