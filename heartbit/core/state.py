"""Where a run stands: what the journal adds up to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from heartbit.core.agent import AgentDefinition, PermissionRule
from heartbit.core.commands import Finish
from heartbit.core.delegation import SubTask
from heartbit.core.events import RunStatus
from heartbit.core.messages import Message, ToolCall, ToolResult, Usage
from heartbit.core.summary import Summary
from heartbit.core.tools import ToolSpec

Fate = Literal["run", "ask", "refuse", "delegate", "squad"]
ENDED: frozenset[RunStatus] = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenCall:
    """A tool call of the current turn: what is to become of it, and what has.

    `note` is put before the result: what a human changed about the call. `asked` is the step of the
    question that a human has to answer about it. A call in `doubt` was begun by a worker that was
    lost; once a human has approved it nevertheless, it may be begun again.
    """

    position: int
    call: ToolCall
    fate: Fate
    reason: str = ""
    note: str = ""
    asked: str = ""
    doubt: bool = False
    subtasks: tuple[SubTask, ...] = ()
    result: ToolResult | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunState:
    """The fold of a journal. A value: `advance` makes the next one.

    `finish` is the end of a run that has its result, and whose memories are put together first.
    `ending` is set once the end is decided and only its event is missing: whatever else arrives
    counts its usage and nothing more. `overflow` is the provider's complaint while the context is
    being shortened because of it. `lost_tokens` is the part of the usage that went into attempts
    whose workers were lost; no limit counts it. `repeats` counts turns in a row that asked for
    `last_calls`.
    """

    definition: AgentDefinition
    prompt: str
    tools: tuple[ToolSpec, ...]
    blackboard: str = ""
    status: RunStatus = "running"
    turn: int = 0
    messages: tuple[Message, ...] = ()
    summary: Summary | None = None
    calls: tuple[OpenCall, ...] = ()
    usage: Usage = Usage()
    cost_usd: float | None = 0.0
    lost_tokens: int = 0
    tool_calls_made: int = 0
    learned: tuple[PermissionRule, ...] = ()
    delegations: Mapping[str, int] = field(default_factory=dict)
    last_calls: str = ""
    repeats: int = 0
    must_respond: bool = False
    overflow: str | None = None
    finish: Finish | None = None
    ending: bool = False
    result: str | None = None
    structured: Any = None
    error_code: str | None = None
    error: str | None = None

    @property
    def ended(self) -> bool:
        """Whether the journal is complete."""
        return self.status in ENDED

    @property
    def text(self) -> str:
        """What the model said last."""
        for message in reversed(self.messages):
            if message.role == "assistant":
                return message.text
        return ""
