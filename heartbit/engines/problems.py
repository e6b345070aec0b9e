"""What went wrong, in words and in tokens. Pure."""

from __future__ import annotations

from heartbit.core.messages import Usage
from heartbit.errors import HeartbitError


def spent(error: Exception) -> tuple[Usage, float | None]:
    """What a failed call has used and cost: nothing, as far as anybody knows, costs nothing."""
    usage = getattr(error, "usage", None) or Usage()
    return usage, getattr(error, "cost_usd", None) if usage != Usage() else 0.0


def describe(error: BaseException) -> str:
    """One sentence about an error, for a model or a person: ours are sentences already."""
    if isinstance(error, HeartbitError):
        return error.message
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
