"""What a person wants to know about a run, added up from what `on_event` hears. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from heartbit.core.messages import Json, Usage

_ENDS = {"run_finished": "done", "run_failed": "failed", "run_cancelled": "cancelled"}


@dataclass(kw_only=True, slots=True)
class AgentTally:
    """One run of the tree: the agent, where it stands and what it used, without its sub-runs.

    `calls` are those of the turn, by step, and `open_calls` the ones without a result. `cost_usd`
    is None once a reply had no price.
    """

    run_id: str
    agent: str
    status: str = "running"
    turn: int = 0
    max_turns: int | None = None
    usage: Usage = Usage()
    cost_usd: float | None = 0.0
    tools: Counter[str] = field(default_factory=Counter)
    calls: dict[str, Json] = field(default_factory=dict)
    open_calls: dict[str, Json] = field(default_factory=dict)
    children: list[AgentTally] = field(default_factory=list)

    def everyone(self) -> Iterator[AgentTally]:
        """This run and all below it."""
        yield self
        for child in self.children:
            yield from child.everyone()

    @property
    def total_cost(self) -> float | None:
        """The cost of this run and all below it; None when a part of it is not known."""
        costs = [each.cost_usd for each in self.everyone()]
        return None if None in costs else sum(cost for cost in costs if cost is not None)

    @property
    def total_usage(self) -> Usage:
        """The usage of this run and all below it."""
        return sum((each.usage for each in self.everyone()), Usage())


class Tally:
    """The tree of one run; `add` every entry to it, in order."""

    def __init__(self) -> None:
        self.root: AgentTally | None = None
        self._runs: dict[str, AgentTally] = {}

    def add(self, entry: Json) -> AgentTally:
        """Take an entry in; gives the run that it belongs to."""
        run = self._runs.get(entry["run_id"]) or self._open(entry)
        match entry["type"]:
            case "run_started":
                run.max_turns = entry["max_turns"]
            case "model_replied":
                self._replied(run, entry)
            case "model_failed" | "context_summarised" | "memories_consolidated":
                _use(run, entry["usage"], entry.get("cost_usd", 0.0))
            case "tool_returned" | "sub_run_finished":
                run.open_calls.pop(entry["step"], None)
            case "approval_requested":
                run.status = "waiting"
            case "approval_resolved":
                run.status = "running"
            case kind if kind in _ENDS:
                run.status = _ENDS[kind]
                run.open_calls.clear()
        return run

    def _open(self, entry: Json) -> AgentTally:
        run = AgentTally(run_id=entry["run_id"], agent=entry["agent"])
        self._runs[run.run_id] = run
        parent = self._runs.get(entry["parent_run_id"])
        if parent is not None:
            parent.children.append(run)
        elif self.root is None:
            self.root = run
        return run

    def _replied(self, run: AgentTally, entry: Json) -> None:
        completion = entry["completion"]
        run.turn = turn_of(entry)
        _use(run, completion["usage"], completion["cost_usd"])
        calls = calls_of(completion)
        run.tools.update(call["name"] for call in calls)
        run.calls = {f"{run.turn}/tool/{n}": call for n, call in enumerate(calls)}
        run.open_calls = dict(run.calls)


def turn_of(entry: Json) -> int:
    """The turn that the entry's step belongs to; 0 for a step outside of turns."""
    turn = str(entry.get("step") or "").partition("/")[0]
    return int(turn) if turn.isdigit() else 0


def calls_of(completion: Json) -> list[Json]:
    """The tool calls of a reply."""
    return [part for part in completion["parts"] if part["type"] == "tool_call"]


def _use(run: AgentTally, usage: dict[str, Any], cost_usd: float | None) -> None:
    run.usage += Usage(**usage)
    known = run.cost_usd is not None and cost_usd is not None
    run.cost_usd = (run.cost_usd or 0) + (cost_usd or 0) if known else None
