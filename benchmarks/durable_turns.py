"""What a durable model turn costs: CPU of every process it takes, beside those that others take.

Each side has servers of its own and the machine for itself while it works; the sides take turns.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from benchmarks.fleet import Fleet, fleet, services
from benchmarks.model_server import total
from benchmarks.peers import peer
from benchmarks.report import Found
from benchmarks.rig import model_server, ratio

ROUNDS = 5
PEERS = ("dbos", "langgraph")
RUNS, TURNS = 16, 10
TREES, SUB_AGENTS, SUB_TURNS = 4, 8, 4
CALLS = 2 + SUB_AGENTS * SUB_TURNS
ADDING = f"turns={TURNS} pad=0"
DELEGATING = f"delegate={SUB_AGENTS} turns={SUB_TURNS} pad=0"
ANSWERS = {ADDING: total(TURNS), DELEGATING: SUB_AGENTS * total(SUB_TURNS)}

Taken = dict[tuple[str, str], list[float]]


class Side(Protocol):
    """Somebody who runs agents."""

    def run(self, runs: int, prompt: str) -> list[str]:
        """The answers of that many runs at once."""

    def cpu_seconds(self) -> float:
        """What all its processes have used so far."""


@dataclass(frozen=True)
class FleetSide:
    """heartbit's fleet as a side."""

    fleet: Fleet

    def run(self, runs: int, prompt: str) -> list[str]:
        """The answers of that many runs at once."""
        agent = "adder" if prompt == ADDING else "orchestrator"
        sent = [self.fleet.send(prompt, agent) for _ in range(runs)]
        return [str(result["result"]) for result in self.fleet.results(sent)]

    def cpu_seconds(self) -> float:
        """What workers, servers and the client have used so far."""
        return self.fleet.cpu_seconds()


def measure(rounds: int = ROUNDS, *, peers: Sequence[str] = PEERS) -> list[Found]:
    """All rows of this module."""
    with model_server() as model, ExitStack() as stack:
        sides = {
            name: side
            for name, make in _makers(model, peers).items()
            if (side := _entered(stack, name, make)) is not None
        }
        taken = _taken(sides, rounds)
    return _found(taken)


def _makers(model: str, peers: Sequence[str]) -> dict[str, Callable[[], Iterator[Side]]]:
    return {
        "bare": lambda: _bare(model),
        "each": lambda: _fleet("each", model),
        "batched": lambda: _fleet("batched", model),
        **{name: partial(_peer, name, model) for name in peers},
    }


def _entered(stack: ExitStack, name: str, make: Callable[[], Iterator[Side]]) -> Side | None:
    try:
        return stack.enter_context(contextmanager(make)())
    except ModuleNotFoundError as error:
        print(f"{name} is left out: {error}", file=sys.stderr)
        return None


def _fleet(steps: str, model: str) -> Iterator[Side]:
    with services() as servers, fleet(servers, steps, model, steps=steps) as made:
        made.start_worker()
        yield FleetSide(made)


def _bare(model: str) -> Iterator[Side]:
    with peer("bare", model) as made:
        yield made


def _peer(name: str, model: str) -> Iterator[Side]:
    with services() as servers, peer(name, model, servers) as made:
        yield made


def _taken(sides: dict[str, Side], rounds: int) -> Taken:
    """Milliseconds per model call, round by round; the first round is thrown away."""
    taken: Taken = {}
    for number in range(rounds + 1):
        for name in sides if number % 2 else reversed(sides):
            for prompt, runs, calls in ((ADDING, RUNS, TURNS), (DELEGATING, TREES, CALLS)):
                spent = _spent(sides[name], runs, prompt) / (runs * calls) * 1000
                if number:
                    taken.setdefault((name, prompt), []).append(spent)
    return taken


def _spent(side: Side, runs: int, prompt: str) -> float:
    start = side.cpu_seconds()
    answers = side.run(runs, prompt)
    spent = side.cpu_seconds() - start
    assert answers == [f"sum={ANSWERS[prompt]}"] * runs, answers
    return spent


def _found(taken: Taken) -> list[Found]:
    found = []
    for steps in ("each", "batched"):
        for what, prompt in (("durable", ADDING), ("durable_tree", DELEGATING)):
            bare, ours = (statistics.median(taken[name, prompt]) for name in ("bare", steps))
            found.append(Found(f"{what}_{steps}", bare, ours, ours))
        found += [_beside(other, steps, taken) for other in PEERS]
    return found


def _beside(other: str, steps: str, taken: Taken) -> Found:
    ours, theirs = taken[steps, ADDING], taken.get((other, ADDING))
    key, middle = f"{other}_{steps}", statistics.median(ours)
    if theirs is None:
        return Found(key, math.nan, middle, math.nan)
    return Found(key, statistics.median(theirs), middle, ratio(ours, theirs))
