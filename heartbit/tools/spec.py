"""What makes a tool's description acceptable: its name, and the values of its options.

Pure functions over `ToolSpec`: nothing is imported, called or looked up here.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Collection
from typing import get_args

from heartbit.core.tools import RESERVED, Effect, OnDoubt, ToolSpec
from heartbit.errors import ConfigError

MAX_NAME_LENGTH = 64
_VALID_NAME = re.compile(rf"[a-zA-Z0-9_-]{{1,{MAX_NAME_LENGTH}}}")
_INVALID_CHARACTER = re.compile(r"[^a-zA-Z0-9_-]")


def checked(spec: ToolSpec) -> ToolSpec:
    """The same spec.

    Raises:
        ConfigError: the name is one no provider takes or one of our own, or an option has a value
            that does not exist.
    """
    _check_name(spec.name)
    _check_choice(spec.name, "effect", spec.effect, get_args(Effect))
    _check_choice(spec.name, "on_doubt", spec.on_doubt, get_args(OnDoubt))
    if spec.timeout_seconds is not None and not spec.timeout_seconds > 0:
        raise ConfigError(f"Tool {spec.name}: timeout_seconds must be greater than 0.")
    return spec


def safe_name(name: str) -> str:
    """The name under which a tool called `name` elsewhere is offered to a model.

    Every provider takes 1 to 64 of the letters, digits, `_` and `-`. A name like that stays as it
    is; `files.read` becomes `files_read`; a name that loses more than punctuation gets the first
    digits of its hash, so that different names stay different. The same name always gives the same
    result, in every process.
    """
    if _VALID_NAME.fullmatch(name):
        return name
    plain = _INVALID_CHARACTER.sub("_", name)
    if name.isascii() and 0 < len(name) <= MAX_NAME_LENGTH:
        return plain
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{plain[: MAX_NAME_LENGTH - 9]}_{digest}"


def near_misses(name: str, known: Collection[str]) -> str:
    """A sentence with the names in `known` that `name` may have meant; empty if there is none."""
    near = difflib.get_close_matches(name, known, n=3)
    return f" Did you mean {' or '.join(near)}?" if near else ""


def _check_name(name: str) -> None:
    if name in RESERVED:
        raise ConfigError(f"A tool cannot be called {name}: heartbit uses this name itself.")
    if not _VALID_NAME.fullmatch(name):
        raise ConfigError(
            f"A tool cannot be called {name!r}: providers take 1 to {MAX_NAME_LENGTH} letters, "
            "digits, _ and -; choose another name."
        )


def _check_choice(tool: str, option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"Tool {tool}: {option} is {value!r}, but must be {' | '.join(choices)}.")
