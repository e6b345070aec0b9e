"""Whose a run is, and how urgent it is: what a caller may say beside the prompt."""

from __future__ import annotations

from dataclasses import dataclass

from heartbit.errors import ConfigError

MAX_CHARACTERS = 256
PRIORITIES = range(-1000, 1001)


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """The tenant and the user that a run belongs to, and its `priority`.

    Both are told to tools, and a tenant's runs are invisible to the callers of all others. Where
    runs wait for their admission, the one with the highest priority comes first.

    Raises:
        ConfigError: an id is no printable text, or the priority no whole number in its range.
    """

    tenant_id: str | None = None
    user_id: str | None = None
    priority: int = 0

    def __post_init__(self) -> None:
        for name in ("tenant_id", "user_id"):
            if (value := getattr(self, name)) is not None and not _is_id(value):
                raise ConfigError(
                    f"{name} must be printable text of 1 to {MAX_CHARACTERS} characters."
                )
        if type(self.priority) is not int or self.priority not in PRIORITIES:
            raise ConfigError(
                f"priority must be a whole number from {PRIORITIES[0]} to {PRIORITIES[-1]}."
            )


def _is_id(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and 0 < len(value) <= MAX_CHARACTERS


NOBODY = Owner()
