"""What a provider's refusal means: statuses and error types of both wires, mapped once.

Pure: values in, an error out. What fails on the way to the provider is mapped in `http`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

from heartbit.errors import (
    AuthenticationFailed,
    CallTimedOut,
    ContentRefused,
    ContextTooLong,
    InvalidRequest,
    Overloaded,
    ProviderError,
    RateLimited,
    ServerFailure,
)

MAX_DETAIL = 300

BY_STATUS: Mapping[int, type[ProviderError]] = {
    401: AuthenticationFailed,
    403: AuthenticationFailed,
    408: CallTimedOut,
    429: RateLimited,
    500: ServerFailure,
    502: ServerFailure,
    503: ServerFailure,
    504: CallTimedOut,
    529: Overloaded,
}

# The `type` and `code` words that say more than the status. invalid_request_error is not among
# them: it is said about too long conversations as well.
BY_WORD: Mapping[str, type[ProviderError]] = {
    "authentication_error": AuthenticationFailed,
    "permission_error": AuthenticationFailed,
    "invalid_api_key": AuthenticationFailed,
    "rate_limit_error": RateLimited,
    "rate_limit_exceeded": RateLimited,
    "overloaded_error": Overloaded,
    "api_error": ServerFailure,
    "server_error": ServerFailure,
    "timeout_error": CallTimedOut,
    "context_length_exceeded": ContextTooLong,
    "content_filter": ContentRefused,
    "content_policy_violation": ContentRefused,
    "billing_error": InvalidRequest,
    "insufficient_quota": InvalidRequest,
}

# Said inside a stream, these are final; an error that says nothing known is worth another try.
REFUSALS = frozenset({"invalid_request_error", "not_found_error", "request_too_large"})

STATUS_WORDS = frozenset(str(status) for status in range(400, 600))
HINTS = {404: "check base_url and the model's name"}

CONTEXT_STATUSES = frozenset({None, 400, 413, 422})
CONTEXT_PHRASES = (
    "prompt is too long",
    "maximum context length",
    "context_length_exceeded",
    "context window",
    "context length",
    "too many tokens",
    "input is too long",
    "exceeds the model's maximum context",
    "request too large",
    "content too large",
)


def failure(
    payload: Any, *, status: int | None = None, retry_after: float | None = None
) -> ProviderError:
    """The error that a provider's answer stands for.

    `payload` is the parsed body, or the data of an error event, whatever its shape. Inside a stream
    there is no `status`: only what the payload says counts. Of a refused key's answer nothing is
    quoted: it may hold the key.
    """
    error = _innermost(payload)
    words = [str(error[key]) for key in ("code", "type") if error.get(key) is not None]
    message = error.get("message")
    message = message if isinstance(message, str) else ""
    if status is None:
        status = next((int(word) for word in words if word in STATUS_WORDS), None)
    kind = _kind(status, words, message)
    told = "" if kind is AuthenticationFailed else _detail(message)
    hints = [HINTS[status]] if status in HINTS else []
    detail = "; ".join([told, *hints] if told else hints)
    return kind(_sentence(kind, status, detail), status=status, retry_after=retry_after)


def retry_after_seconds(headers: Mapping[str, str], now: float) -> float | None:
    """How long the provider wants us to wait, never negative; None if it doesn't say.

    `retry-after-ms` is the finer one and wins; `retry-after` is seconds or a date, which counts
    from `now` (seconds since 1970).
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return max(0.0, milliseconds / 1000)
    given = headers.get("retry-after")
    seconds = _number(given)
    if seconds is None and given is not None:
        seconds = _seconds_until(given, now)
    return None if seconds is None else max(0.0, seconds)


def _kind(status: int | None, words: list[str], message: str) -> type[ProviderError]:
    if status in (401, 403):
        return AuthenticationFailed
    for word in words:
        if word in BY_WORD:
            return BY_WORD[word]
    if status in CONTEXT_STATUSES and _says_context_too_long(message):
        return ContextTooLong
    if status is None:
        return ServerFailure if REFUSALS.isdisjoint(words) else InvalidRequest
    return BY_STATUS.get(status) or (ServerFailure if status >= 500 else InvalidRequest)


def _says_context_too_long(message: str) -> bool:
    lowered = message.lower()
    return any(phrase in lowered for phrase in CONTEXT_PHRASES)


def _innermost(payload: Any) -> dict[str, Any]:
    """The object that holds message, type and code: wires and servers wrap it differently."""
    if isinstance(payload, list) and payload:
        payload = payload[0]
    if isinstance(payload, dict):
        inner = payload.get("error", payload.get("detail"))
        if isinstance(inner, dict):
            return inner
        return {**payload, "message": inner} if isinstance(inner, str) else payload
    return {"message": payload}


def _sentence(kind: type[ProviderError], status: int | None, detail: str) -> str:
    where = [f"HTTP {status}"] if status is not None else []
    said = ": ".join([*where, detail] if detail else where)
    default = kind().message
    return f"{default.rstrip('.')} ({said})." if said else default


def _detail(message: str) -> str:
    line = " ".join(message.split()).rstrip(".")
    return line if len(line) <= MAX_DETAIL else line[:MAX_DETAIL] + "..."


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _seconds_until(date: str, now: float) -> float | None:
    try:
        then = parsedate_to_datetime(date)
    except ValueError:
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return then.timestamp() - now
