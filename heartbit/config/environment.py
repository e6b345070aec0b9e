"""The variables that set something: which key each one sets, and how its text is read.

Only the mapping that is passed in is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from heartbit.config.fields import Verbatim
from heartbit.config.walk import KeyPath

CONFIG_FILE = "HEARTBIT_CONFIG"
MCP_SERVERS = "HEARTBIT_MCP_SERVERS"
PROVIDER_KEYS = {
    "openrouter": "OPENROUTER_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "openai": "OPENAI_API_KEY",
}
"""Where each provider's key is looked for, in the order in which a default provider is chosen."""

ELSEWHERE = {CONFIG_FILE, MCP_SERVERS, "HEARTBIT_CELERY_CONFIG"}
NOT_YET = {"HEARTBIT_API_KEY", "HEARTBIT_MEMORY", "HEARTBIT_OBSERVABILITY"}
_PREFIX = "HEARTBIT_"
_FLAGS = {"1": True, "true": True, "yes": True, "on": True}
_FLAGS |= {"0": False, "false": False, "no": False, "off": False}


def _text(value: str) -> object:
    return Verbatim(value)


def _whole(value: str) -> object:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", value):
        raise ValueError(f"must be a whole number, not {value[:40]!r}")
    return int(value)


def _number(value: str) -> object:
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"must be a number, not {value[:40]!r}") from None


def _flag(value: str) -> object:
    if value.lower() not in _FLAGS:
        raise ValueError(f"must be true or false, not {value[:40]!r}")
    return _FLAGS[value.lower()]


@dataclass(frozen=True, kw_only=True, slots=True)
class Variable:
    """One variable: the key it sets, and how its text becomes a value (ValueError: it can't)."""

    name: str
    path: KeyPath
    read: Callable[[str], object] = _text


VARIABLES = (
    Variable(name="HEARTBIT_PROVIDER", path=("provider", "name")),
    Variable(name="HEARTBIT_MODEL", path=("provider", "model")),
    Variable(name="HEARTBIT_BASE_URL", path=("provider", "base_url")),
    Variable(name="HEARTBIT_PROMPT_CACHING", path=("provider", "prompt_caching"), read=_flag),
    Variable(name="HEARTBIT_MAX_TURNS", path=("orchestrator", "max_turns"), read=_whole),
    Variable(name="HEARTBIT_MAX_TOKENS", path=("orchestrator", "max_tokens"), read=_whole),
    Variable(
        name="HEARTBIT_SUMMARIZE_THRESHOLD",
        path=("orchestrator", "summarize_threshold"),
        read=_whole,
    ),
    Variable(
        name="HEARTBIT_MAX_TOOL_OUTPUT_BYTES",
        path=("orchestrator", "max_tool_output_bytes"),
        read=_whole,
    ),
    Variable(
        name="HEARTBIT_TOOL_TIMEOUT",
        path=("orchestrator", "tool_timeout_seconds"),
        read=_number,
    ),
    Variable(
        name="HEARTBIT_MAX_IDENTICAL_TOOL_CALLS",
        path=("orchestrator", "max_identical_tool_calls"),
        read=_whole,
    ),
    Variable(name="HEARTBIT_REASONING_EFFORT", path=("orchestrator", "reasoning_effort")),
    Variable(name="HEARTBIT_TOOL_PROFILE", path=("orchestrator", "tool_profile")),
    Variable(name="HEARTBIT_ROUTING", path=("orchestrator", "routing")),
    Variable(name="HEARTBIT_DATABASE_URL", path=("database", "url")),
    # Celery reads these two by itself, and before any file
    Variable(name="CELERY_BROKER_URL", path=("celery", "broker_url")),
    Variable(name="CELERY_RESULT_BACKEND", path=("celery", "result_backend")),
)


def given(environ: Mapping[str, str], name: str) -> str | None:
    """The variable's text without blanks around it; an empty variable counts as not set."""
    return environ.get(name, "").strip() or None


def mcp_servers(environ: Mapping[str, str]) -> list[dict[str, str]] | None:
    """The servers of HEARTBIT_MCP_SERVERS, a comma-separated list of addresses."""
    text = given(environ, MCP_SERVERS)
    if text is None:
        return None
    return [{"url": Verbatim(url.strip())} for url in text.split(",") if url.strip()]


def remarks(environ: Mapping[str, str]) -> Iterator[str]:
    """A warning for every HEARTBIT_* variable that is set and does nothing."""
    known = {variable.name for variable in VARIABLES} | ELSEWHERE
    for name in sorted(name for name in environ if name.startswith(_PREFIX)):
        if name in NOT_YET:
            yield f"{name} is not used yet"
        elif name not in known:
            yield f"{name} is not a variable of heartbit{did_you_mean(name, known | NOT_YET)}"


def did_you_mean(word: str, known: set[str]) -> str:
    """The end of a sentence that names the nearest known word; empty when none is near."""
    near = nearest(word, known)
    return f"; did you mean {near!r}?" if near else ""


def nearest(word: str, known: set[str]) -> str | None:
    """The known word that `word` is most likely meant to be; None when none is near."""
    from difflib import get_close_matches

    near = get_close_matches(word, sorted(known), n=1)
    near += [name for name in sorted(known) if len(word) > 2 and name.startswith(word)]
    return near[0] if near else None
