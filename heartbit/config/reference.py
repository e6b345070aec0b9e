"""The configuration reference, written from the tables themselves.

`python -m heartbit.config.reference` prints it; docs/reference/configuration.md is its output.
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from heartbit.config import defaults
from heartbit.config.environment import MCP_SERVERS, VARIABLES
from heartbit.config.fields import SecretUrl, Table
from heartbit.config.later import RestateTable
from heartbit.config.load import LATER
from heartbit.config.models import Config
from heartbit.config.provider import ProviderTable
from heartbit.config.walk import dotted, item_of, tables_in

_INTRODUCTION = """\
# Configuration

<!-- Written by `python -m heartbit.config.reference`; change the tables, not this page. -->

heartbit reads one TOML file: the one given with `--config`, else the one named by
`HEARTBIT_CONFIG`, else `heartbit.toml` in the working directory. Workers do the same. A file in
which every key is explained is `config/heartbit.toml`.

A setting is looked for in this order: flags, environment, file, defaults. When a flag or the
environment names another provider than the file, the file's `model`, `base_url`, `api_key` and
`cascade` are left out: they belong to the file's provider.

**Without a file** there are three agents, `researcher`, `analyst` and `writer`. With a file there
are the agents it lists; if it lists none, the orchestrator answers by itself.

**`$VAR`** (or `${VAR}`) is replaced by the environment variable in keys, tokens, headers, addresses
and the `env` of MCP servers, and nowhere else. A variable that is not set is an error; `$$` is a
dollar. Keys and tokens are never shown, addresses without their user, password and query.

**Mistakes** are errors: unknown keys, wrong types, rules that are broken. Each is one sentence with
file and line. `heartbit config check` lists all of them, `heartbit config show` lists every
setting with the place it comes from.
"""
_ENVIRONMENT = """
## Environment

An empty variable counts as not set. A `HEARTBIT_*` variable that heartbit does not know is a
warning.

| variable | sets |
|---|---|
"""
_ENVIRONMENT_REST = """\
| `{MCP_SERVERS}` | `mcp_servers` of every agent: a comma-separated list of addresses |
| `HEARTBIT_CONFIG` | the file to read |
| `ANTHROPIC_API_KEY`, `OPENROUTER_API_KEY`, `OPENAI_API_KEY` | `api_key` wherever the provider \
of that name has none |
"""
_OWN_PROVIDER = """\
An agent's own `[agents.provider]` has the same keys. `name` and `model` are required there; `retry`
and `timeouts` are those of `[provider]` unless given, and for the same provider without a
`base_url` of its own so are address and key."""
_CHOSEN = {(ProviderTable, "name"), (ProviderTable, "model")}
_TYPES = {bool: "true or false", int: "whole number", float: "number", str: "string"}


def reference() -> str:
    """The page, as Markdown."""
    variables = "".join(f"| `{v.name}` | `{dotted(v.path)}` |\n" for v in VARIABLES)
    rest = _ENVIRONMENT_REST.replace("{MCP_SERVERS}", MCP_SERVERS)
    sections = "".join(_sections(Config, "", set()))
    return f"{_INTRODUCTION}{sections}{_ENVIRONMENT}{variables}{rest}"


def _sections(table: type[Table], name: str, done: set[type[Table]]) -> Iterator[str]:
    """The sections of the tables inside `table`, each table once."""
    for key, field in table.model_fields.items():
        inner = f"{name}.{key}".removeprefix(".")
        for part in tables_in(field.annotation) or tables_in(item_of(field.annotation)):
            if part not in done:
                done.add(part)
                yield _section(part, inner, get_origin(field.annotation))
                yield from _sections(part, inner, done)


def _section(table: type[Table], name: str, holder: Any) -> str:
    title = {tuple: f"[[{name}]]", dict: f"[{name}.NAME]"}.get(holder, f"[{name}]")
    rows = "".join(_row(table, key, field) for key, field in table.model_fields.items())
    head = "| key | type | default | meaning |\n|---|---|---|---|\n"
    about = inspect.getdoc(table)
    return f"\n## `{title}`\n\n{about}{_remark(table, name)}\n\n{head}{rows}"


def _remark(table: type[Table], name: str) -> str:
    if name == "daemon":
        return " Read and checked, but apart from the schedules not used yet."
    if name in LATER:
        return " Read and checked, but not used yet."
    if table is ProviderTable:
        models = ", ".join(f"`{model}` ({name})" for name, model in defaults.MODELS.items())
        return f" Models that are used when none is named: {models}.\n\n{_OWN_PROVIDER}"
    return ""


def _row(table: type[Table], key: str, field: FieldInfo) -> str:
    meaning = " ".join(documentation(table)[key].split())
    return f"| `{key}` | {_type(field)} | {_default(table, key, field)} | {meaning} |\n"


def _default(table: type[Table], key: str, field: FieldInfo) -> str:
    if (table, key) in _CHOSEN:
        return "see meaning"
    if field.is_required():
        return "required"
    value = field.default
    empty = value is None or isinstance(value, Table) or value in ((), {})
    return "" if empty or table is RestateTable else f"`{json.dumps(value)}`"


def _type(field: FieldInfo) -> str:
    # the bounds of an optional number stand in the annotation, those of a plain one beside it
    bounds = [*field.metadata, *_metadata(field.annotation)]
    at_least = next((f", {m.ge} or more" for m in bounds if isinstance(m, Ge)), "")
    above = next((f", above {m.gt}" for m in bounds if isinstance(m, Gt)), "")
    return f"{_named(field.annotation)}{at_least}{above}"


def _metadata(annotation: Any) -> Iterator[Any]:
    for part in get_args(annotation):
        for mark in getattr(part, "__metadata__", ()):
            yield from mark.metadata if isinstance(mark, FieldInfo) else [mark]


def _named(annotation: Any) -> str:
    if tables_in(annotation):
        return "table"
    item = item_of(annotation)
    if item is not None:
        many = "list" if get_origin(annotation) is tuple else "table"
        return f"{many} of {_named(item)}s"
    return _scalar(annotation)


def _scalar(annotation: Any) -> str:
    parts = [part for part in get_args(annotation) if part is not type(None)]
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{json.dumps(choice)}`" for choice in parts)
    if inspect.isclass(annotation):
        if issubclass(annotation, SecretStr):
            return "address" if issubclass(annotation, SecretUrl) else "secret"
        return _TYPES.get(annotation, "value")
    return _scalar(parts[0]) if parts else "value"


def documentation(table: type[Table]) -> dict[str, str]:
    """The text that stands below each field of a table, inherited ones included."""
    found: dict[str, str] = {}
    for base in reversed(table.__mro__):
        if issubclass(base, Table):
            found |= _documented(inspect.getfile(base)).get(base.__name__, {})
    return found


@cache
def _documented(file: str) -> dict[str, dict[str, str]]:
    module = ast.parse(Path(file).read_text(encoding="utf-8"))
    return {node.name: dict(_texts(node)) for node in module.body if isinstance(node, ast.ClassDef)}


def _texts(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, text in zip(node.body, node.body[1:], strict=False):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(
                value=ast.Constant(value=str(s))
            ):
                yield name, s


if __name__ == "__main__":
    sys.stdout.write(reference())
