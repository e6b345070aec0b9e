"""How things are shown to a person: nothing that comes out of here controls a terminal. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

from heartbit.core.messages import Json, Usage
from heartbit.core.result import RunOutput

# C0 and C1 (an escape begins with one), line separators, overrides of the writing direction
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_SECRET = re.compile(r"passw|secret|token|api_?key|auth|credential|cookie", re.IGNORECASE)


def printable(text: str) -> str:
    """`text` with what controls a terminal spelled out: it could hide what a person must see."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(text: str, width: int = 200) -> str:
    """`text` on one line, cut to `width` characters."""
    line = printable(" ".join(text[: width * 4].split()))
    return line if len(line) <= width else f"{line[: width - 3]}..."


def call_text(name: str, arguments: Json, width: int = 60) -> str:
    """A tool call in short: `search(query="rust")`; what looks like a secret is masked."""
    masked = _masked(arguments).items()
    shown = ", ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in masked)
    return f"{one_line(name, 64)}({one_line(shown, width)})"


def pretty(value: Any) -> str:
    """JSON on several lines, in which nothing can hide."""
    return printable(json.dumps(value, indent=2, ensure_ascii=False))


def tokens(usage: Usage) -> str:
    """`1,204 tokens in, 88 out`."""
    return f"{usage.input_tokens:,} tokens in, {usage.output_tokens:,} out"


def money(cost_usd: float) -> str:
    """`$0.0123`."""
    return f"${cost_usd:.4f}"


def count(number: int, noun: str) -> str:
    """`1 turn`, `2 turns`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def stats(output: RunOutput) -> str:
    """The last line of a run: what it used, and what that cost if anybody knows."""
    usage = output.usage
    parts = [tokens(usage)]
    if usage.cache_read_tokens or usage.cache_write_tokens:
        read, written = usage.cache_read_tokens, usage.cache_write_tokens
        parts.append(f"cache: {read:,} read, {written:,} written")
    parts += [count(output.tool_calls_made, "tool call"), count(output.turns, "turn")]
    if output.cost_usd is not None and usage.total_tokens:
        parts.append(money(output.cost_usd))
    return " | ".join(parts)


def _masked(value: Any, key: str = "") -> Any:
    if _SECRET.search(key):
        return "***"
    if isinstance(value, dict):
        return {name: _masked(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_masked(inner) for inner in value]
    return value
