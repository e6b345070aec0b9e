"""Finding tools by reference, giving them the person's options, and keeping their names apart."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from types import ModuleType
from typing import Any

from heartbit.core.messages import Json
from heartbit.core.schema import schema_problem
from heartbit.core.tools import RESERVED, Effect, OnDoubt, ToolSpec
from heartbit.errors import ConfigError
from heartbit.tools.base import BoundTool, Tool
from heartbit.tools.function import FunctionTool, tool
from heartbit.tools.spec import MAX_NAME_LENGTH, checked, near_misses, safe_name

_REFERENCE = re.compile(r"(?:python:)?([\w.]+):([\w.]+)")


def load_tool(reference: str) -> Tool:
    """The tool at `module:attribute`, or at the `python:module:attribute` of a tool's `ref`.

    The module is imported with the working directory first on `sys.path`, as the celery command
    does. A function that was never decorated is a tool, too, with every option at its default.

    Raises:
        ConfigError: the module or the attribute does not exist or is no tool, or importing it
            failed.
    """
    try:
        found, module_name, path = _find(reference)
    except ConfigError as error:
        raise ConfigError(f"Tool {reference}: {error.message}") from error
    return with_spec(found, replace(found.spec, ref=f"python:{module_name}:{path}"))


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolOptions:
    """What a person may set for the tool called `name`; None leaves the tool's own value."""

    name: str
    queue: str | None = None
    timeout_seconds: float | None = None
    effect: Effect | None = None
    on_doubt: OnDoubt | None = None
    input_schema: Json | None = None


def with_options(found: Tool, options: ToolOptions) -> Tool:
    """The tool with these options in place of its own.

    Raises:
        ConfigError: an option has a value that this tool cannot have.
    """
    values = {each.name: getattr(options, each.name) for each in fields(options)}
    changes = {key: value for key, value in values.items() if key != "name" and value is not None}
    if options.effect == "transactional":
        _check_transactional(found)
    if options.input_schema is not None:
        _check_schema(found.spec.name, options.input_schema)
    return with_spec(found, checked(replace(found.spec, **changes))) if changes else found


def with_spec(found: Tool, spec: ToolSpec) -> Tool:
    """The tool under another description; what it does stays the same."""
    if spec == found.spec:
        return found
    if isinstance(found, FunctionTool):
        return found.with_spec(spec)
    return BoundTool(spec=spec, run=found.call)


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


def _find(reference: str) -> tuple[Tool, str, str]:
    """The tool, the name of its module, and its path within."""
    if reference.startswith("celery:"):
        raise ConfigError(
            "Celery tasks need the durable path; start this run with `heartbit submit`."
        )
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise ConfigError("write module:attribute, for example myapp.tools:book_room.")
    module_name, path = match.groups()
    return _as_tool(_attribute(_import(module_name), path)), module_name, path


def _import(name: str) -> ModuleType:
    try:
        with _working_directory_on_path():
            return importlib.import_module(name)
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(_import_failure(name, error)) from error


def _import_failure(name: str, error: BaseException) -> str:
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing and f"{name}.".startswith(f"{missing}."):
        return f"there is no module {missing}, neither installed nor in the working directory."
    return f"importing {name} failed: {type(error).__name__}: {error}"


@contextmanager
def _working_directory_on_path() -> Iterator[None]:
    directory = os.getcwd()
    if directory in sys.path:
        yield
        return
    sys.path.insert(0, directory)
    try:
        yield
    finally:
        sys.path.remove(directory)


def _attribute(module: ModuleType, path: str) -> Any:
    value: Any = module
    for name in path.split("."):
        if not hasattr(value, name):
            public = [each for each in dir(value) if not each.startswith("_")]
            raise ConfigError(
                f"{module.__name__} has no attribute {path}.{near_misses(name, public)}"
            )
        value = getattr(value, name)
    return value


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


def _check_transactional(found: Tool) -> None:
    if found.spec.effect == "transactional":
        return
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
