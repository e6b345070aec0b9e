"""What the model says in place of the real one: decided from each request alone.

An orchestrator hands one task to each of its agents; an agent calls some of its tools at the same
time; both then say that they are done. No reply depends on what a tool gave: a call whose outcome
is unknown must not change the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from heartbit.chaos.examples import example
from heartbit.core.agent import AgentDefinition
from heartbit.core.messages import Json
from heartbit.core.request import ModelRequest
from heartbit.core.tools import DELEGATE, RESERVED, RESPOND, Effect, ToolSpec
from heartbit.providers.scripted import Reply, call

MOST_TOOLS = 3
KEY_CHARACTERS = 60
WRITE = "builtin:blackboard_write"
TELLING = frozenset(
    {
        "builtin:blackboard_read",
        "builtin:blackboard_list",
        "memory:memory_recall",
        "memory:shared_memory_read",
    }
)
# The more harm a second call does, the sooner its tool is chosen.
EFFECTS: tuple[Effect, ...] = ("at_most_once", "idempotent", "transactional", "pure")


def script_for(definition: AgentDefinition) -> Callable[[ModelRequest], Reply]:
    """The script of a run that this agent begins."""
    names = [delegate.name for delegate in definition.delegates]
    sequential = definition.dispatch_mode == "sequential"

    def reply(request: ModelRequest) -> Reply:
        turn = sum(message.role == "assistant" for message in request.messages)
        offered = {tool.name: tool for tool in request.tools}
        if DELEGATE in offered:
            rounds = [[name] for name in names] if sequential else [names]
            if turn < len(rounds):
                return call(DELEGATE, tasks=[_task(name, request) for name in rounds[turn]])
        elif turn == 0 and (chosen := choose(request.tools)):
            return [call(tool.name, **_arguments(tool, request)) for tool in chosen]
        if RESPOND in offered:
            return call(RESPOND, **example(offered[RESPOND].input_schema))
        return "Done."

    return reply


def _task(agent: str, request: ModelRequest) -> dict[str, str]:
    return {"agent": agent, "task": f"The part of {agent}: {request.messages[0].text}"}


def _arguments(tool: ToolSpec, request: ModelRequest) -> Json:
    if tool.ref == WRITE:  # a key of its own: whoever is first must not matter
        return {"key": request.messages[0].text[:KEY_CHARACTERS], "value": "Done."}
    arguments: Json = example(tool.input_schema)
    return arguments


def choose(tools: Sequence[ToolSpec]) -> list[ToolSpec]:
    """The tools that an agent calls: one of each effect first, then more of the same.

    None that tells what others have done so far: that is another thing in each run.
    """
    left = [tool for tool in tools if tool.name not in RESERVED and tool.ref not in TELLING]
    ranks: dict[str, int] = {}
    ranked = []
    for tool in left:
        ranks[tool.effect] = ranks.get(tool.effect, -1) + 1
        ranked.append((ranks[tool.effect], EFFECTS.index(tool.effect), tool))
    ranked.sort(key=lambda each: each[:2])
    return [tool for _, _, tool in ranked[:MOST_TOOLS]]
