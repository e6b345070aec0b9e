"""One request to a model, before any provider's wire format."""

from __future__ import annotations

from dataclasses import dataclass

from heartbit.core.agent import ReasoningEffort
from heartbit.core.messages import Message
from heartbit.core.retry import Tried
from heartbit.core.tools import ToolChoice, ToolSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRequest:
    """What every adapter translates.

    `model` is who is asked in place of the provider's own model; empty, it is that one. `tried` is
    no part of what is asked: with it a call may be put off (`CallPutOff`) to go on later, from what
    it had come to by then.
    """

    system: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    max_tokens: int = 4096
    tool_choice: ToolChoice | None = None
    reasoning_effort: ReasoningEffort | None = None
    model: str = ""
    tried: Tried | None = None
