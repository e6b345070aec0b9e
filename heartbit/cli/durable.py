"""What the commands about durable runs share: the way to the journal, and the end of a run."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from heartbit.cli.exits import OF_STATUS
from heartbit.cli.group import settings
from heartbit.cli.words import one_line, pretty, printable, stats

if TYPE_CHECKING:
    from heartbit.client import Client
    from heartbit.core.result import RunOutput

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
    given = settings(ctx)
    if given["config"]:
        os.environ["HEARTBIT_CONFIG"] = given["config"]
    if given["debug"]:
        logging.basicConfig(level=logging.INFO)
    else:
        logging.getLogger().addHandler(logging.NullHandler())
        logging.getLogger("heartbit").addHandler(_Warnings(logging.WARNING))


class _Warnings(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"warning: {one_line(record.getMessage(), 1000)}", err=True)


def print_json(value: Any) -> None:
    """One object on one line."""
    click.echo(json.dumps(value))


def report(output: RunOutput, *, as_json: bool) -> int:
    """The result on stdout, everything else on stderr; gives the exit code of the run."""
    if as_json:
        print_json(output.as_json())
    else:
        _print_result(output)
    if output.status != "succeeded":
        click.echo(_why(output), err=True)
    for question in output.pending:
        for call in question.calls:
            said = f"[{one_line(question.agent)}] {one_line(call.name)} {pretty(call.arguments)}"
            click.echo(said, err=True)
    if output.pending:
        decide = f"`heartbit approve {output.run_id}` or `heartbit deny {output.run_id}`"
        click.echo(f"Decide with {decide}.", err=True)
    click.echo(stats(output), err=True)
    return OF_STATUS[output.status]


def _print_result(output: RunOutput) -> None:
    if output.structured is not None:
        click.echo(json.dumps(output.structured, indent=2, ensure_ascii=False))
    elif output.result is not None and output.status == "succeeded":
        click.echo(printable(output.result) if sys.stdout.isatty() else output.result)


def _why(output: RunOutput) -> str:
    match output.status:
        case "failed":
            return f"error: {one_line(output.error or 'the run failed', 2000)}"
        case "waiting":
            return "waiting for an approval of:"
        case "cancelled":
            return "cancelled"
        case status:
            return f"{status}: not ended yet; `heartbit watch {output.run_id}` follows it"
