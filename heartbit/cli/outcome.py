"""The end of a durable run as a person or a script sees it, and warnings on the way."""

from __future__ import annotations

import json
import logging
import sys

import click

from heartbit.cli.durable import print_json
from heartbit.cli.exits import OF_STATUS
from heartbit.cli.words import one_line, pretty, printable, stats
from heartbit.core.result import RunOutput


def set_up_log(debug: bool) -> None:
    """Warnings on stderr in our way; with --debug the whole log."""
    if debug:
        logging.basicConfig(level=logging.INFO)
    else:
        logging.getLogger().addHandler(logging.NullHandler())
        logging.getLogger("heartbit").addHandler(_Warnings(logging.WARNING))


class _Warnings(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"warning: {one_line(record.getMessage(), 1000)}", err=True)


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
