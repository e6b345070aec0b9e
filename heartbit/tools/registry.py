"""Finding tools by reference, giving them the person's options, and keeping their names apart."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any

from heartbit.core.messages import Json
from heartbit.core.schema import schema_problem
from heartbit.core.tools import RESERVED, Effect, OnDoubt, ToolSpec
from heartbit.errors import ConfigError
from heartbit.tools.base import BoundTool, Tool
from heartbit.tools.function import FunctionTool, tool
from heartbit.tools.imports import is_reference, load_attribute
from heartbit.tools.spec import MAX_NAME_LENGTH, checked, safe_name

CELERY_TASK = "celery:"
DURABLE_ONLY = (
    "Celery tasks are tools of durable runs only, because somebody has to wait for their answers; "
    "start the run with `heartbit submit`."
)


def load_tool(reference: str) -> Tool:
    """The tool at `module:attribute`, or at the `python:module:attribute` of a tool's `ref`.

    The module is imported with the working directory first on `sys.path`, as the celery command
    does. A function that was never decorated is a tool, too, with every option at its default.

    Raises:
        ConfigError: the module or the attribute does not exist or is no tool, or importing it
            failed.
    """
    try:
        found, place = _find(reference)
    except ConfigError as error:
        raise ConfigError(f"Tool {reference}: {error.message}") from error
    return with_spec(found, replace(found.spec, ref=f"python:{place}"))


def own_tools() -> dict[str, Tool]:
    """The tools that come with heartbit, by the name an agent's list has them under."""
    from heartbit.tools.blackboard import BLACKBOARD_TOOLS
    from heartbit.tools.builtin import BUILTIN

    return {found.spec.name: found for found in (*BLACKBOARD_TOOLS, *BUILTIN.values())}


def instead_of(name: str, known: Collection[str]) -> str:
    """The end of a sentence about a bare `name` that is not `known`: what to write."""
    if near := get_close_matches(name, known, n=1):
        return f"; did you mean {near[0]!r}?"
    return "; a Python function is written package.module:function"


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolOptions:
    """What a person may set for the tool called `name`; None leaves the tool's own value."""

    name: str
    queue: str | None = None
    timeout_seconds: float | None = None
    effect: Effect | None = None
    on_doubt: OnDoubt | None = None
    input_schema: Json | None = None
    description: str | None = None


def with_options(found: Tool, options: ToolOptions) -> Tool:
    """The tool with these options in place of its own.

    Raises:
        ConfigError: an option has a value that this tool cannot have.
    """
    values = {each.name: getattr(options, each.name) for each in fields(options)}
    changes = {key: value for key, value in values.items() if key != "name" and value is not None}
    if options.effect is not None and "transactional" in (options.effect, found.spec.effect):
        _check_transactional(found, options.effect)
    if options.input_schema is not None:
        _check_schema(found.spec.name, options.input_schema)
    return with_spec(found, checked(replace(found.spec, **changes))) if changes else found


def with_spec(found: Tool, spec: ToolSpec) -> Tool:
    """The tool under another description; what it does stays the same."""
    if spec == found.spec:
        return found
    own: Callable[[ToolSpec], Tool] | None = getattr(found, "with_spec", None)
    return own(spec) if own else BoundTool(spec=spec, run=found.call)


def unique_names(groups: Iterable[tuple[str, Sequence[Tool]]]) -> tuple[list[Tool], list[str]]:
    """All tools of the groups, no two under one name, and a warning for each one left out.

    A group is a prefix and the tools of one source. Tools of several sources that have one name get
    their prefixes (`server_tool`), whatever the order of the sources; those with an empty prefix
    keep their name. A name that a source has twice is its first tool's, and a name heartbit uses
    itself is nobody's.
    """
    kept, warnings = _first_of_each(groups)
    counts = Counter(name for _, name, _ in kept)
    taken = set(counts)
    tools = []
    for prefix, name, found in kept:
        if prefix and counts[name] > 1:
            name = _free(safe_name(f"{prefix}_{name}"), taken)
            taken.add(name)
        tools.append(with_spec(found, replace(found.spec, name=name)))
    return tools, warnings


def _first_of_each(
    groups: Iterable[tuple[str, Sequence[Tool]]],
) -> tuple[list[tuple[str, str, Tool]], list[str]]:
    """(prefix, name, tool) of every tool that can stay, and a warning for each that cannot."""
    kept: dict[tuple[str, str], Tool] = {}
    warnings = []
    for prefix, tools in groups:
        for found in tools:
            name = safe_name(found.spec.name)
            if name in RESERVED:
                warnings.append(f"Tool {found.spec.ref} is left out: {name} is heartbit's own.")
            elif first := kept.get((prefix, name)):
                warnings.append(
                    f"Tool {found.spec.ref} is left out: "
                    f"{first.spec.ref} is called {name}, too, and comes first."
                )
            else:
                kept[prefix, name] = found
    return [(prefix, name, found) for (prefix, name), found in kept.items()], warnings


def _free(name: str, taken: Container[str]) -> str:
    """`name`, or with the first number that makes it one that is not taken."""
    number, candidate = 1, name
    while candidate in taken:
        number += 1
        candidate = f"{name[: MAX_NAME_LENGTH - len(str(number)) - 1]}_{number}"
    return candidate


def _find(reference: str) -> tuple[Tool, str]:
    """The tool, and its module:attribute."""
    if reference.startswith(CELERY_TASK):
        raise ConfigError(DURABLE_ONLY)
    if not is_reference(place := reference.removeprefix("python:")):
        raise ConfigError("write module:attribute, for example myapp.tools:book_room.")
    return _as_tool(load_attribute(place)), place


def _as_tool(value: Any) -> Tool:
    if isinstance(getattr(value, "spec", None), ToolSpec) and hasattr(value, "call"):
        found: Tool = value
        return found
    if hasattr(value, "apply_async") and isinstance(getattr(value, "name", None), str):
        raise ConfigError(f"it is a Celery task; write celery:{value.name}.")
    if inspect.isfunction(value) or inspect.ismethod(value):
        return tool(value)
    kind = "class" if isinstance(value, type) else type(value).__name__
    raise ConfigError(
        f"it is a {kind}, not a tool; "
        "write a function with type hints and decorate it with @heartbit.tool."
    )


def _check_transactional(found: Tool, effect: Effect) -> None:
    if found.spec.effect == effect:
        return
    if effect != "transactional":
        raise ConfigError(
            f"Tool {found.spec.name}: it is transactional in its code; no option can make it "
            f"{effect}."
        )
    if not isinstance(found, FunctionTool) or found.is_async:
        raise ConfigError(
            f"Tool {found.spec.name}: effect = transactional is for plain def functions only, "
            "because it runs inside the journal's transaction, where nothing may be awaited."
        )


def _check_schema(name: str, schema: Json) -> None:
    problem = schema_problem(schema)
    if problem is None and schema.get("type") != "object":
        problem = 'its type must be "object"'
    if problem:
        raise ConfigError(f"Tool {name}: input_schema is not usable: {problem}.")
