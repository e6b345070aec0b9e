"""Who gets a task: one agent directly, or the orchestrator. The reason is part of the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

RoutingMode = Literal["auto", "always_orchestrate", "single_agent"]
ORCHESTRATOR = "orchestrator"


@dataclass(frozen=True, kw_only=True, slots=True)
class Routing:
    """The agent a task is given to; `reason` is one sentence for people."""

    decision: Literal["single_agent", "orchestrate"]
    agent: str
    reason: str


def route(mode: RoutingMode, agents: Sequence[str]) -> Routing:
    """Where a task goes, given the names of the configured agents in their order.

    `auto` gives it to the agent if there is exactly one, `single_agent` to the first one, and
    everything else goes to the orchestrator.
    """
    if not agents:
        return _orchestrate("No agent is configured, so the orchestrator works alone.")
    if mode == "single_agent":
        return _single(agents[0], f"Routing is single_agent, and {agents[0]!r} is the first agent.")
    if mode == "auto" and len(agents) == 1:
        return _single(agents[0], f"{agents[0]!r} is the only agent.")
    if mode == "auto":
        return _orchestrate(f"There are {len(agents)} agents to choose from.")
    return _orchestrate("Routing is always_orchestrate.")


def _single(agent: str, reason: str) -> Routing:
    return Routing(decision="single_agent", agent=agent, reason=reason)


def _orchestrate(reason: str) -> Routing:
    return Routing(decision="orchestrate", agent=ORCHESTRATOR, reason=reason)
