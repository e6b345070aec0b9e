"""What is sent of a conversation: a pure function from all its messages to those of one request.

Nothing here changes or drops a stored message. What is derived from a message is remembered with
it, so a long conversation costs no more per turn than a short one.
"""

from __future__ import annotations

from heartbit.core.agent import AgentDefinition
from heartbit.core.estimate import (
    estimate,
    estimate_message,
    estimate_text,
    estimate_tools,
)
from heartbit.core.messages import Message, ToolResult
from heartbit.core.prune import prune
from heartbit.core.summary import Summary, with_summary
from heartbit.core.tools import ToolSpec

__all__ = [
    "estimate",
    "estimate_message",
    "estimate_text",
    "estimate_tools",
    "fit",
    "prune",
    "sliding_window",
]


def fit(
    definition: AgentDefinition,
    tools: tuple[ToolSpec, ...],
    messages: tuple[Message, ...],
    summary: Summary | None,
) -> tuple[Message, ...]:
    """The messages to send: summary in, old results shortened, and only then the window.

    The window comes last so that it measures what is really sent and keeps as much as fits.
    """
    sent = with_summary(messages, summary) if summary else messages
    if definition.session_prune:
        sent = prune(sent, definition.session_prune)
    strategy = definition.context_strategy
    if strategy.type == "sliding_window" and strategy.max_tokens is not None:
        overhead = estimate_text(definition.system_prompt) + estimate_tools(tools)
        sent = sliding_window(sent, strategy.max_tokens, overhead)
    return sent


def sliding_window(
    messages: tuple[Message, ...], max_tokens: int, overhead: int
) -> tuple[Message, ...]:
    """The first message and the newest ones that fit with it and `overhead` into `max_tokens`.

    Tool results and the calls they answer are kept or dropped together, and there is no gap
    within the newest ones. The very newest (a message, or calls with their results) is kept even
    if it does not fit: a model that never saw what it has just asked for would ask again for ever.
    """
    if len(messages) <= 1:
        return messages
    budget = max_tokens - overhead - estimate_message(messages[0])
    start = end = len(messages)
    while start > 1:
        unit = _unit_start(messages, start)
        budget -= sum(map(estimate_message, messages[unit:start]))
        if budget < 0 and start < end:
            break
        start = unit
    return messages if start == 1 else (messages[0], *messages[start:])


def _unit_start(messages: tuple[Message, ...], end: int) -> int:
    """Where the unit that ends before `end` starts: results belong to the message before them."""
    start = end - 1
    while start > 1 and _has_results(messages[start]):
        start -= 1
    return start


def _has_results(message: Message) -> bool:
    return any(isinstance(part, ToolResult) for part in message.parts)
