"""Routing: who gets the task, and a reason a person can read."""

from __future__ import annotations

import pytest

from heartbit.core.routing import RoutingMode, route


@pytest.mark.parametrize(
    ("mode", "agents", "decision", "agent"),
    [
        ("auto", ["writer"], "single_agent", "writer"),
        ("auto", ["researcher", "writer"], "orchestrate", "orchestrator"),
        ("auto", [], "orchestrate", "orchestrator"),
        ("always_orchestrate", ["writer"], "orchestrate", "orchestrator"),
        ("always_orchestrate", ["researcher", "writer"], "orchestrate", "orchestrator"),
        ("always_orchestrate", [], "orchestrate", "orchestrator"),
        ("single_agent", ["researcher", "writer"], "single_agent", "researcher"),
        ("single_agent", ["writer"], "single_agent", "writer"),
        ("single_agent", [], "orchestrate", "orchestrator"),
    ],
)
def test_the_mode_and_the_number_of_agents_decide(
    mode: RoutingMode, agents: list[str], decision: str, agent: str
) -> None:
    routing = route(mode, agents)
    assert (decision, agent) == (routing.decision, routing.agent)


@pytest.mark.parametrize("mode", ["auto", "always_orchestrate", "single_agent"])
@pytest.mark.parametrize("agents", [[], ["a"], ["a", "b"]])
def test_the_reason_is_one_sentence(mode: RoutingMode, agents: list[str]) -> None:
    reason = route(mode, agents).reason
    assert reason.endswith(".")
    assert reason.count(".") == 1
    assert "\n" not in reason
