"""What to do next: derived from the journal, never stored. Each command is one step of the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from heartbit.core.agent import AgentDefinition
from heartbit.core.messages import ToolCall
from heartbit.core.tools import ToolSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class CallModel:
    """Ask the model for the next turn; the request is built from the state when it is sent."""

    step: str
    turn: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CallTool:
    """Run a tool, on arguments that are valid for its schema."""

    step: str
    call: ToolCall
    spec: ToolSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class RefuseCall:
    """Answer a call that must not run; `reason` goes to the model."""

    step: str
    call: ToolCall
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StartSubRun:
    """Run a sub-agent on `prompt`; `blackboard` is a squad's private scope, or empty."""

    step: str
    definition: AgentDefinition
    prompt: str
    blackboard: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class AskApproval:
    """Ask a human about these calls."""

    step: str
    calls: tuple[ToolCall, ...]
    positions: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Summarise:
    """Have the conversation before message `upto` summarised."""

    step: str
    upto: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Consolidate:
    """Put the agent's memories together that belong together; the run has its result already."""

    step: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Finish:
    """End the run: with a result, or with an error `code` and `message`."""

    result: str = ""
    structured: Any = None
    code: str | None = None
    message: str = ""
    step: str = "end"


Command = (
    CallModel | CallTool | RefuseCall | StartSubRun | AskApproval | Summarise | Consolidate | Finish
)
