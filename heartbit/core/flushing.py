"""What is remembered of a conversation whose middle is replaced by a summary.

Pure. A summary forgets details: what tools gave is kept as memories, without the secrets in it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise

from heartbit.core.messages import Message, ToolResult
from heartbit.core.output import byte_length
from heartbit.core.redaction import redact
from heartbit.core.state import RunState
from heartbit.core.tools import MEMORY_REFS

TAG = "auto-flush"
IMPORTANCE = 3
STRENGTH = 0.8
SHORTEST_BYTES = 50
MOST_CHARACTERS = 500


def flushed(state: RunState, upto: int) -> tuple[str, ...]:
    """What is to be remembered when everything before message `upto` gets a summary.

    The results of tools, in their order and each once, but for short ones, failures, and what came
    out of memory itself. What a summary covers already was remembered with that one.
    """
    since = state.summary.upto if state.summary else 1
    from_memory = {tool.name for tool in state.tools if tool.ref.startswith(MEMORY_REFS)}
    results = _results(state.messages[since - 1 : upto], from_memory)
    return tuple(dict.fromkeys(_note(each.content) for each in results if _is_worth_it(each)))


def _results(messages: Sequence[Message], without: Collection[str]) -> Iterator[ToolResult]:
    """Results stand below the calls that they answer, in the order of those."""
    for asked, message in pairwise(messages):
        given = [part for part in message.parts if isinstance(part, ToolResult)]
        for call, result in zip(asked.tool_calls, given, strict=False):
            if call.name not in without:
                yield result


def _is_worth_it(result: ToolResult) -> bool:
    return not result.is_error and byte_length(result.content) >= SHORTEST_BYTES


def _note(content: str) -> str:
    """Redacted as a whole: half of a secret does not look like one."""
    text = redact(content)
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}..."
