"""Whether a tool call may run, by the rules of the agent: the first rule that matches decides.

A rule names a tool (`*` is any, otherwise exactly and case-sensitively) and a glob in which `*`
stands for any text, line breaks included, and `?` for any one character; nothing else is special.
The glob is compared with whole string values of the arguments; one that matches is enough.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from heartbit.core.agent import Action, PermissionRule
from heartbit.core.messages import Json


def decide(rules: tuple[PermissionRule, ...], name: str, arguments: Json) -> Action | None:
    """The action of the first rule that matches the call, or None if none does.

    `deny` and `ask` look at string values at every depth, so that nothing is hidden from them by
    nesting it. `allow` looks only at the top level: what a rule lets pass is what its author could
    see. It says nothing about the other arguments of the call, so denials belong in front of it.
    The glob `*` also matches a call without any string argument.
    """
    return next((rule.action for rule in rules if _matches(rule, name, arguments)), None)


def glob_matches(pattern: str, text: str) -> bool:
    """Whether `text` as a whole matches the glob; the time is linear in the text's length."""
    return _compiled(pattern).fullmatch(text) is not None


def _matches(rule: PermissionRule, name: str, arguments: Json) -> bool:
    if rule.tool not in ("*", name):
        return False
    if rule.pattern.strip("*") == "" and rule.pattern:
        return True
    values = _top_level(arguments) if rule.action == "allow" else _every_depth(arguments)
    return any(glob_matches(rule.pattern, value) for value in values)


def _top_level(arguments: Json) -> Iterator[str]:
    return (value for value in arguments.values() if isinstance(value, str))


def _every_depth(value: Any) -> Iterator[str]:
    open_values = [value]
    while open_values:
        value = open_values.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            open_values.extend(value.values())
        elif isinstance(value, list):
            open_values.extend(value)


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    """The glob as a regular expression that never backtracks into an earlier `*`.

    The leftmost place for each piece between two stars is as good as any other, so it is taken
    for good (an atomic group): a hostile argument cannot make the match slow.
    """
    first, *rest = ("".join(map(_one, piece)) for piece in re.split(r"\*+", pattern))
    if not rest:
        return re.compile(first, re.DOTALL)
    middle = "".join(f"(?>.*?{piece})" for piece in rest[:-1])
    return re.compile(f"{first}{middle}.*{rest[-1]}", re.DOTALL)


def _one(character: str) -> str:
    return "." if character == "?" else re.escape(character)
