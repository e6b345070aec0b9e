"""What is said in a conversation: parts, messages, usage, completions. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Json = dict[str, Any]
Role = Literal["user", "assistant"]
StopReason = Literal[
    "end_turn",
    "tool_use",
    "max_tokens",
    "stop_sequence",
    "refusal",
    "pause_turn",
    "context_too_long",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class TextPart:
    """Plain text."""

    text: str
    type: Literal["text"] = "text"


@dataclass(frozen=True, kw_only=True, slots=True)
class ThinkingPart:
    """A provider's reasoning block, sent back exactly as it came.

    `data` is the block on the wire of `provider`, signature included; other providers never see it.
    """

    provider: str
    data: Json
    type: Literal["thinking"] = "thinking"


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCall:
    """The model's request to run a tool.

    `id` is the provider's and may repeat or be empty; calls are told apart by position.
    `malformed` holds the raw arguments when they were no JSON object: never executed.
    """

    id: str
    name: str
    arguments: Json
    malformed: str | None = None
    type: Literal["tool_call"] = "tool_call"


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolResult:
    """The answer to the tool call with `call_id`."""

    call_id: str
    content: str
    is_error: bool = False
    type: Literal["tool_result"] = "tool_result"


Part = TextPart | ThinkingPart | ToolCall | ToolResult


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One entry of the conversation.

    `memo` keeps what was derived from it (an adapter's encoding, a token estimate): a message never
    changes, so it is derived once and not once per turn. It is neither compared nor stored.
    """

    role: Role
    parts: tuple[Part, ...]
    memo: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    @property
    def text(self) -> str:
        """All text of the message, in order."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls of the message, in order."""
        return tuple(part for part in self.parts if isinstance(part, ToolCall))


def user_message(text: str) -> Message:
    """A user message of one text."""
    return Message(role="user", parts=(TextPart(text=text),))


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Tokens used; addable.

    `input_tokens` counts all input that was neither read from nor written to a prompt cache.
    `reasoning_tokens` is the part of `output_tokens` spent on thinking, where the provider tells.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cache_read_tokens=self.cache_read_tokens + other.cache_read_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
        )

    @property
    def total_tokens(self) -> int:
        """Everything the provider read and wrote."""
        return (
            self.input_tokens
            + self.output_tokens
            + self.cache_read_tokens
            + self.cache_write_tokens
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """One parsed model reply. `model` is the one that answered (a cascade may choose).

    `usage` and `cost_usd` are the whole price of the reply: they include the tiers in `rejected`
    and failed attempts, so whoever adds up completions must not add `rejected` again.
    """

    parts: tuple[Part, ...]
    stop_reason: StopReason
    usage: Usage = Usage()
    model: str | None = None
    cost_usd: float | None = None
    rejected: tuple[RejectedTier, ...] = ()

    @property
    def message(self) -> Message:
        """The reply as a conversation entry."""
        return Message(role="assistant", parts=self.parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class RejectedTier:
    """A cheaper model of a cascade whose reply was not accepted, or whose call failed."""

    model: str
    reason: str
    usage: Usage = Usage()
