"""`heartbit config`: what is wrong with the configuration, and what it comes to."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from heartbit.cli.exits import USAGE
from heartbit.cli.group import global_flags, settings

if TYPE_CHECKING:
    from heartbit.config import Setting


@click.group()
@global_flags
def config() -> None:
    """Check the configuration, or show what is in effect."""


@config.command()
@global_flags
@click.pass_context
def check(ctx: click.Context) -> None:
    """Print every problem of the configuration, one per line; exit code 2 if there is any.

    Python functions that it lists as tools are imported.
    """
    from heartbit.config import check as problems_of
    from heartbit.config import find_config, load
    from heartbit.config.tools import tool_problems, unused_options

    path = find_config(settings(ctx)["config"], os.environ)
    problems = problems_of(path, os.environ)
    loaded = None if problems else load(path, os.environ)
    if loaded is not None:
        problems = tool_problems(loaded)
    for problem in problems:
        click.echo(str(problem), err=True)
    if problems or loaded is None:
        ctx.exit(USAGE)
    for warning in (*loaded.warnings, *unused_options(loaded)):
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"ok: {path}" if path else "ok: no heartbit.toml here, the defaults are used")


@config.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@global_flags
@click.pass_context
def show(ctx: click.Context, as_json: bool) -> None:
    """Print every setting in effect with its origin; secrets are masked."""
    from heartbit.cli.options import load_config
    from heartbit.config import show as settings_of

    loaded = load_config(settings(ctx)["config"], {})
    found = settings_of(loaded)
    if as_json:
        shown = {each.key: {"value": each.value, "origin": each.origin} for each in found}
        click.echo(json.dumps(shown, indent=2))
    elif sys.stdout.isatty():
        _print_table(found)
    else:
        _print_lines(found)


def _print_lines(found: list[Setting]) -> None:
    rows = [(each.key, _text(each.value), each.origin) for each in found]
    widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    for key, value, origin in rows:
        click.echo(f"{key:{widths[0]}}  {value:{min(widths[1], 60)}}  {origin}")


def _print_table(found: list[Setting]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("setting", "value", "origin", box=None, pad_edge=False, header_style="bold")
    for each in found:
        table.add_row(Text(each.key), Text(_text(each.value)), Text(each.origin, style="dim"))
    Console().print(table)


def _text(value: Any) -> str:
    """A value on one line."""
    return json.dumps(value, ensure_ascii=False)
