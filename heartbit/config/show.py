"""Every effective setting with its origin, for people and as JSON."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import SecretStr

from heartbit.config.fields import MASK, SecretUrl
from heartbit.config.load import Loaded
from heartbit.config.locate import line_of, locate
from heartbit.config.walk import KeyPath, dotted, leaves


class Setting(NamedTuple):
    """A setting: its dotted key, its value as JSON, and where the value came from.

    The origin is `heartbit.toml:12`, `env HEARTBIT_MODEL`, `flag` or `default`.
    """

    key: str
    value: Any
    origin: str


def show(loaded: Loaded) -> list[Setting]:
    """All settings in the order of the tables; secrets are `***`, URLs show no password."""
    lines = locate(loaded.draft.text)
    return [
        Setting(dotted(path), _shown(value), _origin(path, loaded, lines))
        for path, value in leaves(loaded.config)
    ]


def _shown(value: Any) -> Any:
    if isinstance(value, SecretUrl):
        return str(value)
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, tuple):
        return [_shown(part) for part in value]
    if isinstance(value, dict):
        return {key: _shown(part) for key, part in value.items()}
    return value


def _origin(path: KeyPath, loaded: Loaded, lines: dict[KeyPath, int]) -> str:
    from_outside = loaded.draft.origin(path)
    if from_outside:
        return from_outside
    line = line_of(lines, path) if _is_given(path, loaded.draft.data) else None
    return f"{loaded.draft.source}:{line}" if line else "default"


def _is_given(path: KeyPath, data: Any) -> bool:
    for step in path:
        if isinstance(data, str):
            return step == "url"  # an MCP server given as "url"
        if isinstance(data, dict) and step not in data:
            return False
        data = data[step]
    return True
