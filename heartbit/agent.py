"""`Agent`: what a person says about an agent, with its tools and provider as objects."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields

from heartbit.core.agent import (
    AgentDefinition,
    ContextStrategy,
    MemoryPolicy,
    PermissionRule,
    ReasoningEffort,
    SessionPrune,
    ToolProfile,
)
from heartbit.core.messages import Json
from heartbit.core.schema import schema_problem
from heartbit.core.tools import ToolSpec
from heartbit.errors import ConfigError
from heartbit.providers.base import Provider
from heartbit.toolbox import ToolLike


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How far an agent may go, and how its conversation is fitted into a request.

    None means: as the orchestrator has it, and heartbit's default where that says nothing either.
    """

    max_turns: int | None = None
    max_tokens: int | None = None
    max_total_tokens: int | None = None
    run_timeout_seconds: float | None = None
    tool_timeout_seconds: float | None = None
    approval_timeout_seconds: float | None = None
    max_tool_output_bytes: int | None = None
    max_identical_tool_calls: int | None = None
    reasoning_effort: ReasoningEffort | None = None
    tool_profile: ToolProfile | None = None
    context_strategy: ContextStrategy | None = None
    session_prune: SessionPrune | None = None

    def __post_init__(self) -> None:
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{name} must be greater than 0, not {value}.")
        if self.max_identical_tool_calls == 1:
            raise ConfigError("max_identical_tool_calls must be 2 or more: 1 would run no call.")


_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_COUNTS = (
    "max_turns",
    "max_tokens",
    "max_total_tokens",
    "run_timeout_seconds",
    "tool_timeout_seconds",
    "approval_timeout_seconds",
    "max_tool_output_bytes",
    "max_identical_tool_calls",
)
_OF_THE_RUN = frozenset({"max_total_tokens", "run_timeout_seconds"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Agent(Limits):
    """One agent. It gets exactly the tools it lists: functions, McpServers, references by name.

    Raises:
        ConfigError: the name is not one, a limit is not positive, or the schema is of no use.
    """

    name: str
    description: str = ""
    system_prompt: str = ""
    tools: Sequence[ToolLike] = ()
    provider: Provider | None = None
    response_schema: Json | None = None

    def __post_init__(self) -> None:
        # super() without arguments needs the class cell that slots=True leaves behind
        Limits.__post_init__(self)
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"An agent cannot be called {self.name!r}: a name has 1 to 64 letters, digits, "
                "'_', '-' and '.'."
            )
        check_response_schema(self.response_schema)


def check_response_schema(schema: Json | None) -> None:
    """Refuse a schema that would accept any answer, or that no provider would take.

    Raises:
        ConfigError: it is not sound, or not that of an object.
    """
    if schema is None:
        return
    problem = schema_problem(schema)
    if problem is None and schema.get("type") != "object":
        problem = 'its type must be "object"'
    if problem:
        raise ConfigError(f"The response_schema is not usable: {problem}.")


def settled_limits(own: Limits, shared: Limits, *, is_root: bool) -> dict[str, object]:
    """The limits that hold for an agent: its own, else the shared ones, for a definition.

    What limits the whole run (its tokens, its time) is taken over by the agent that is the run.
    """
    values: dict[str, object] = {}
    for each in fields(Limits):
        value = getattr(own, each.name)
        if value is None and (is_root or each.name not in _OF_THE_RUN):
            value = getattr(shared, each.name)
        if value is not None:
            values[each.name] = value
    return values


def define(
    agent: Agent,
    *,
    specs: tuple[ToolSpec, ...],
    shared: Limits,
    default_model: str,
    permissions: tuple[PermissionRule, ...],
    approve: bool,
    is_root: bool,
    memory: MemoryPolicy | None = None,
) -> AgentDefinition:
    """The frozen description that a run of this agent is opened with."""
    return AgentDefinition(
        name=agent.name,
        description=agent.description,
        system_prompt=agent.system_prompt,
        provider=agent.name if agent.provider else "default",
        model=agent.provider.model if agent.provider else default_model,
        tools=specs,
        response_schema=agent.response_schema,
        permissions=permissions,
        approve=approve,
        memory=memory,
        **settled_limits(agent, shared, is_root=is_root),  # type: ignore[arg-type]
    )
