"""Everything that can be wrong with a configuration, each as one sentence with its line.

No sentence repeats the value of a secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from heartbit.config.environment import did_you_mean, nearest
from heartbit.config.locate import line_of, locate
from heartbit.config.walk import KeyPath, annotation_at, dotted, fields_in, tables_in

FLAG = "flag"
_WANTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "a string",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
}
_COMPLAINTS = {
    "value_error": "{error}",
    "rule": "{message}",
    "greater_than_equal": "must be at least {ge:g}, not {input}",
    "greater_than": "must be above {gt:g}, not {input}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must not be empty",
    "finite_number": "must be a finite number",
}
_REMEDIES: dict[KeyPath, str] = {
    ("provider", "model"): "; name it there, in HEARTBIT_MODEL or with --model",
}
_CALLED = {bool: "a boolean", int: "a whole number", float: "a number", str: "a string"}
_CALLED |= {list: "a list", dict: "a table"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Something the person has to change, and where."""

    message: str
    source: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.source, self.line) if part is not None)
        return f"{place}: {self.message}" if place else self.message


class Invalid(Exception):
    """The configuration has these problems."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__(*problems)
        self.problems = sorted(problems, key=lambda problem: problem.line or 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """Settings of all layers, not yet validated.

    `origins` has the paths that did not come from the file: `flag`, `env NAME`.
    """

    data: dict[str, Any] = field(repr=False)
    origins: Mapping[KeyPath, str]
    source: str | None
    text: str = field(repr=False)

    def origin(self, path: KeyPath) -> str | None:
        """Where the value at `path` came from, if not from the file."""
        steps = range(len(path), 0, -1)
        return next((self.origins[path[:n]] for n in steps if path[:n] in self.origins), None)


def explain(error: ValidationError, draft: Draft) -> list[Problem]:
    """The problems pydantic found, in our words, by line."""
    lines = locate(draft.text)
    details = error.errors(include_url=False)
    misspelt = {_meant(each["loc"]) for each in details if each["type"] == "extra_forbidden"}
    return [
        _problem(detail, draft, lines)
        for detail in details
        if detail["type"] != "missing" or detail["loc"] not in misspelt
    ]


def _meant(path: KeyPath) -> KeyPath:
    """The path with the known key that its last, unknown one is nearest to."""
    near = nearest(str(path[-1]), _known(path))
    return (*path[:-1], near or path[-1])


def _known(path: KeyPath) -> set[str]:
    return {str(name) for name in fields_in(annotation_at(path[:-1]))}


def _problem(detail: Any, draft: Draft, lines: dict[KeyPath, int]) -> Problem:
    path: KeyPath = detail["loc"]
    message = _sentence(detail, path, draft)
    if draft.origin(path):
        return Problem(message=message)
    return Problem(message=message, source=draft.source, line=line_of(lines, path))


def _sentence(detail: Any, path: KeyPath, draft: Draft) -> str:
    match detail["type"]:
        case "extra_forbidden":
            near = did_you_mean(str(path[-1]), _known(path))
            return f"unknown key {path[-1]!r} {_place(path[:-1], draft.data)}{near}"
        case "missing":
            remedy = _REMEDIES.get(path, "")
            return f"missing key {path[-1]!r} {_place(path[:-1], draft.data)}{remedy}"
        case "tuple_type" if isinstance(detail["input"], dict):
            return f"{_subject(path, draft)} must be a list, not a table; write [[{_name(path)}]]"
        case kind:
            return f"{_subject(path, draft)} {_complaint(kind, detail)}"


def _complaint(kind: str, detail: Any) -> str:
    context, value = detail.get("ctx", {}), detail["input"]
    if kind in _WANTED:
        return f"must be {_WANTED[kind]}, not {_called(value)}"
    if kind == "literal_error":
        return _not_one_of(str(context["expected"]), value)
    if kind in _COMPLAINTS:
        return _COMPLAINTS[kind].format(**context, input=value)
    return f"is not valid: {detail['msg']}"


def _not_one_of(expected: str, value: object) -> str:
    known = set(re.findall(r"'([^']*)'", expected))
    if not isinstance(value, str):
        return f"must be {expected}, not {_called(value)}"
    return f"must be {expected}, not {value[:40]!r}{did_you_mean(value, known)}"


def _called(value: object) -> str:
    return _CALLED.get(type(value), "a string" if isinstance(value, str) else "a date or time")


def _subject(path: KeyPath, draft: Draft) -> str:
    origin = draft.origin(path)
    if origin and origin != FLAG:
        return origin.removeprefix("env ")
    given = " (given on the command line)" if origin else ""
    if tables_in(annotation_at(path)):
        return f"{_table(path, draft.data)}{given}"
    if isinstance(path[-1], int):
        return f"entry {path[-1] + 1} of {path[-2]!r} {_place(path[:-2], draft.data)}{given}"
    return f"{path[-1]!r} {_place(path[:-1], draft.data)}{given}"


def _place(path: KeyPath, data: Any) -> str:
    return f"in {_table(path, data)}" if path else "at the top level"


def _table(path: KeyPath, data: Any) -> str:
    """How the file names a table: `[provider.retry]`, `[[agents]] 'researcher'`."""
    name = _name(path)
    owners = _names(path, data)
    if not isinstance(path[-1], int):
        shown = f"[{name}]"
    else:
        own = owners.pop()
        shown = f"[[{name}]] {own or f'number {path[-1] + 1}'}"
    owner = next(filter(None, reversed(owners)), None)
    return f"{shown} of {owner}" if owner else shown


def _name(path: KeyPath) -> str:
    return dotted(tuple(step for step in path if isinstance(step, str)))


def _names(path: KeyPath, data: Any) -> list[str | None]:
    """The name of each list entry on the path; None for one that has none."""
    names: list[str | None] = []
    for step in path:
        try:
            data = data[step]
        except (LookupError, TypeError):
            data = None
        if isinstance(step, int):
            name = data.get("name") if isinstance(data, dict) else None
            names.append(repr(name) if isinstance(name, str) else None)
    return names
