"""How an orchestrator hands work to its sub-agents, and how their results come back to it.

The hierarchy is flat by construction: only an agent with `delegates` has these tools, and a
delegate's own `delegates` are never offered to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from heartbit.core.agent import AgentDefinition, DispatchMode
from heartbit.core.commands import StartSubRun
from heartbit.core.events import SubRunFinished
from heartbit.core.messages import Json, ToolCall
from heartbit.core.schema import nearest
from heartbit.core.tools import DELEGATE, SQUAD, ToolOutput, ToolSpec

MAX_SQUAD_KEY = 256  # characters, so that no team is too large for a blackboard's keys

ORCHESTRATOR_PROMPT = """\
You are an orchestrator. You solve a task by handing parts of it to specialised agents and putting
their results together; you have no other means of your own.

- Split the task into the parts that different agents are best at. If one agent is enough, use one.
- Hand over parts that do not depend on each other in one call, so that they run at the same time.
- An agent sees only the text you hand it: write every part so that it stands on its own.
- When the results are in, answer the original task yourself, in full, from what the agents found.
  Say so where they failed or disagreed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SubTask:
    """One piece of work handed over: `position` counts within the turn, `number` per agent."""

    position: int
    agent: str
    prompt: str
    number: int
    error: str = ""
    started: bool = False
    outcome: SubRunFinished | None = None

    @property
    def settled(self) -> bool:
        """Whether nothing more is to be expected of it."""
        return bool(self.error) or self.outcome is not None

    @property
    def text(self) -> str:
        """What the orchestrator reads of it."""
        if self.outcome is None:
            return f"Error: {self.error}"
        if self.outcome.status == "succeeded":
            return self.outcome.result or ""
        return f"Error: {self.outcome.error or self.outcome.status}"


@dataclass(frozen=True, kw_only=True, slots=True)
class BlackboardWrite:
    """A value that is put on a blackboard together with the event that made it.

    With an `expected_version` it must be the key's, or nothing is written at all.
    """

    scope: str
    key: str
    value: Any
    expected_version: int | None = None


def _tasks_schema(least: int, most: int | None) -> Json:
    tasks: Json = {
        "type": "array",
        "minItems": least,
        "description": "The pieces of work, each for one agent.",
        "items": {
            "type": "object",
            "properties": {
                "agent": {"type": "string", "description": "The agent's name."},
                "task": {
                    "type": "string",
                    "description": "What it shall do, with everything it needs to know.",
                },
            },
            "required": ["agent", "task"],
            "additionalProperties": False,
        },
    }
    if most is not None:
        tasks["maxItems"] = most
    return {
        "type": "object",
        "properties": {"tasks": tasks},
        "required": ["tasks"],
        "additionalProperties": False,
    }


def _catalogue(delegates: Sequence[AgentDefinition]) -> str:
    return "\n".join(
        f"- {agent.name}: {agent.description or 'no description'}" for agent in delegates
    )


def delegation_tools(definition: AgentDefinition) -> tuple[ToolSpec, ...]:
    """The tools an orchestrator gets: none without delegates, no squads where order matters."""
    delegates = definition.delegates
    if not delegates:
        return ()
    sequential = definition.dispatch_mode == "sequential"
    delegate = ToolSpec(
        name=DELEGATE,
        description=(
            "Hand work to sub-agents and wait for their results. "
            + ("One task at a time. " if sequential else "All tasks of a call run in parallel. ")
            + "Agents:\n"
            + _catalogue(delegates)
        ),
        input_schema=_tasks_schema(1, 1 if sequential else None),
        ref=f"core:{DELEGATE}",
        effect="idempotent",
    )
    if sequential or len(delegates) < 2 or not definition.squads:
        return (delegate,)
    return (delegate, _squad_tool())


def _squad_tool() -> ToolSpec:
    return ToolSpec(
        name=SQUAD,
        description=(
            "Let two or more different agents work at the same time as one team: they share a "
            f"private blackboard while they work. The agents are those of {DELEGATE}."
        ),
        input_schema=_tasks_schema(2, None),
        ref=f"core:{SQUAD}",
        effect="idempotent",
    )


def squad_problem(call: ToolCall, delegates: Sequence[AgentDefinition]) -> str | None:
    """Why a squad cannot be formed as asked; None if it can. Checked before anyone starts."""
    names = [task["agent"] for task in call.arguments["tasks"]]
    known = [agent.name for agent in delegates]
    unknown = [name for name in names if name not in known]
    if unknown:
        return f"No squad: unknown agent {unknown[0]!r}. Available: {', '.join(known)}."
    if len(set(names)) < len(names):
        return "No squad: every member must be a different agent; nothing was started."
    return None


def split(
    call: ToolCall,
    definition: AgentDefinition,
    first_position: int,
    counts: Mapping[str, int],
) -> tuple[SubTask, ...]:
    """The sub-tasks of a valid delegation call, numbered on from `counts` (agent -> so far)."""
    counts = dict(counts)
    subtasks = []
    for offset, task in enumerate(call.arguments["tasks"]):
        name = task["agent"]
        counts[name] = counts.get(name, 0) + 1
        subtasks.append(
            SubTask(
                position=first_position + offset,
                agent=name,
                prompt=task["task"],
                number=counts[name],
                error=_unknown_agent(name, definition),
            )
        )
    return tuple(subtasks)


def _unknown_agent(name: str, definition: AgentDefinition) -> str:
    if definition.delegate(name) is not None:
        return ""
    names = [agent.name for agent in definition.delegates]
    guess = nearest(name, names)
    hint = f"; did you mean {guess!r}" if guess else ""
    return f"unknown agent {name!r}{hint} (available: {', '.join(names)})"


def startable(subtasks: Sequence[SubTask], mode: DispatchMode) -> tuple[SubTask, ...]:
    """Which sub-tasks may start now: all that wait, or one at a time when order matters."""
    waiting = tuple(sub for sub in subtasks if not sub.started and not sub.settled)
    if mode == "parallel":
        return waiting
    running = any(sub.started and not sub.settled for sub in subtasks)
    return () if running else waiting[:1]


def start_command(
    turn: int, sub: SubTask, definition: AgentDefinition, scope: str = ""
) -> StartSubRun:
    """The command that starts `sub`, whose agent is known. It can delegate nothing itself."""
    delegate = definition.delegate(sub.agent)
    assert delegate is not None, sub.agent  # noqa: S101 - split() settled unknown agents
    return StartSubRun(
        step=f"{turn}/sub/{sub.position}",
        definition=replace(delegate, delegates=()),
        prompt=sub.prompt,
        blackboard=scope,
    )


def joined(subtasks: Sequence[SubTask]) -> ToolOutput:
    """The result of a delegation call: one block per sub-task, in the order of the request."""
    blocks = [f"=== Agent: {sub.agent} ===\n{sub.text}" for sub in subtasks]
    failed = [sub for sub in subtasks if sub.outcome is None or sub.outcome.status != "succeeded"]
    return ToolOutput(content="\n\n".join(blocks), is_error=len(failed) == len(subtasks))


def result_writes(
    sub: SubTask, siblings: Sequence[SubTask], scope: str
) -> tuple[BlackboardWrite, ...]:
    """What a finished sub-task leaves on the blackboard, failed or not.

    `agent:{name}:{n}` is its own for ever; `agent:{name}` is that of the agent's latest task, by
    the order of the calls and not of the arrivals.
    """
    own = BlackboardWrite(scope=scope, key=f"agent:{sub.agent}:{sub.number}", value=sub.text)
    overtaken = any(
        other.agent == sub.agent and other.number > sub.number and other.outcome is not None
        for other in siblings
    )
    if overtaken:
        return (own,)
    return (BlackboardWrite(scope=scope, key=f"agent:{sub.agent}", value=sub.text), own)


def squad_writes(team: Sequence[SubTask], scope: str) -> tuple[BlackboardWrite, ...]:
    """What a squad leaves on the outer blackboard once all its members are done."""
    if not all(sub.settled for sub in team):
        return ()
    key = "squad:" + "+".join(sub.agent for sub in team)
    return (BlackboardWrite(scope=scope, key=key[:MAX_SQUAD_KEY], value=joined(team).content),)
