"""What the commands about durable runs share: their flags and the way to the journal."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import click

from heartbit.cli.group import settings

if TYPE_CHECKING:
    from heartbit.client import Client

json_flag = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
run_argument = click.argument("run_id", metavar="RUN")


def open_client(ctx: click.Context) -> Client:
    """The runs of the configured database.

    Raises:
        ConfigError: there is none.
    """
    prepare(ctx)
    from heartbit.client import connect

    return connect()


def prepare(ctx: click.Context) -> None:
    """Let everything in this process read the file of --config, and say warnings in our way."""
    from heartbit.cli.outcome import set_up_log

    given = settings(ctx)
    if given["config"]:
        os.environ["HEARTBIT_CONFIG"] = given["config"]
    set_up_log(given["debug"])


def print_json(value: Any) -> None:
    """One object on one line."""
    click.echo(json.dumps(value))
