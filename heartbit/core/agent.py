"""The frozen description of an agent, resolved once when a run is opened and stored with it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

from heartbit.core.messages import Json
from heartbit.core.tools import ToolSpec

ReasoningEffort = Literal["none", "low", "medium", "high"]
DispatchMode = Literal["parallel", "sequential"]
ToolProfile = Literal["conversational", "standard", "full"]
Action = Literal["allow", "deny", "ask"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ContextStrategy:
    """How the conversation is fitted into the request.

    `unlimited` sends everything, `sliding_window` keeps `max_tokens` of it, `summarize` replaces
    the middle by a summary once the estimate passes `threshold` tokens.
    """

    type: Literal["unlimited", "sliding_window", "summarize"] = "unlimited"
    max_tokens: int | None = None
    threshold: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionPrune:
    """Cut old tool results in the request: all but the last `keep_recent_n` pairs of messages."""

    keep_recent_n: int = 2
    pruned_tool_result_max_bytes: int = 200
    preserve_task: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryPolicy:
    """What becomes of an agent's memories beside what it does to them itself.

    `consolidate_on_exit` puts those together that belong together, when a run has succeeded.
    """

    consolidate_on_exit: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class PermissionRule:
    """What may happen to calls of `tool` (`*` is any) with an argument that matches the glob."""

    tool: str
    action: Action
    pattern: str = "*"


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentDefinition:
    """One agent, complete: what it is told, which tools it may call, how far it may go.

    An agent with `delegates` is an orchestrator: it may hand work to them through `delegate_task`
    (and `form_squad`); they can hand on nothing. `squads` is without effect where tasks run
    one at a time or there are no two delegates. `provider` names an entry of the engine's
    providers. `approve` asks a human about every round of tools. Without a `memory` it has none.
    """

    name: str
    description: str = ""
    system_prompt: str = ""
    provider: str = "default"
    model: str = ""
    tools: tuple[ToolSpec, ...] = ()
    delegates: tuple[AgentDefinition, ...] = ()
    dispatch_mode: DispatchMode = "parallel"
    squads: bool = True
    max_turns: int = 10
    max_tokens: int = 4096
    max_total_tokens: int | None = None
    run_timeout_seconds: float | None = None
    tool_timeout_seconds: float | None = None
    approval_timeout_seconds: float | None = None
    max_tool_output_bytes: int | None = None
    max_identical_tool_calls: int | None = None
    reasoning_effort: ReasoningEffort | None = None
    tool_profile: ToolProfile | None = None
    context_strategy: ContextStrategy = ContextStrategy()
    session_prune: SessionPrune | None = None
    response_schema: Json | None = None
    permissions: tuple[PermissionRule, ...] = ()
    approve: bool = False
    memory: MemoryPolicy | None = None

    def delegate(self, name: str) -> AgentDefinition | None:
        """The sub-agent called `name`, if there is one."""
        return next((agent for agent in self.delegates if agent.name == name), None)


def definition_hash(definition: AgentDefinition) -> str:
    """A stable fingerprint: sha256 (hex) of the definition's canonical JSON."""
    text = json.dumps(as_json(definition), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def as_json(value: Any) -> Any:
    """Dataclasses as plain JSON values, without their memos."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: as_json(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init
        }
    if isinstance(value, tuple | list):
        return [as_json(item) for item in value]
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    return value
