"""`heartbit status`, `runs`, `replay` and `cancel`: durable runs, looked at from the journal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, get_args

import click

from heartbit.cli.durable import json_flag, open_client, print_json, run_argument
from heartbit.cli.group import global_flags
from heartbit.core.events import RunStatus

if TYPE_CHECKING:
    from heartbit.cli.tally import Tally
    from heartbit.client import Client


@click.command()
@run_argument
@json_flag
@global_flags
@click.pass_context
def status(ctx: click.Context, run_id: str, as_json: bool) -> None:
    """Print where RUN stands: agents, turns, tools, tokens, cost, and what waits for a human."""
    client = open_client(ctx)
    row = client.journal.run(run_id)
    tally = _tally(client, run_id)
    approvals = client.approvals(run_id)
    from heartbit.cli.overview import (
        approval_json,
        approval_lines,
        row_json,
        tree_lines,
        usage_json,
    )
    from heartbit.cli.words import one_line

    rows = {each.run_id: each for each in client.journal.tree(run_id)}
    root = tally.root
    firsts = first_numbers([len(each.calls) for each in approvals])
    numbered = list(zip(approvals, firsts, strict=True))
    if as_json:
        runs = [row_json(rows[e.run_id]) | usage_json(e) for e in root.everyone()] if root else []
        pending = [approval_json(*each) for each in numbered]
        print_json(row_json(row) | {"runs": runs, "pending": pending})
        return
    click.echo(f"{row.run_id}  {row.status}  {one_line(row.title)}")
    for line in tree_lines(root, rows) if root else ():
        click.echo(line)
    error = (row.output or {}).get("error")
    if error:
        click.echo(f"error: {one_line(error, 2000)}")
    for each in numbered:
        click.echo("\n".join(approval_lines(*each)))


def first_numbers(counts: list[int]) -> list[int]:
    """The number of the first call of each question: all calls of a run are numbered through."""
    return [1 + sum(counts[:index]) for index in range(len(counts))]


def _tally(client: Client, run_id: str) -> Tally:
    from heartbit.cli.tally import Tally

    tally = Tally()
    for entry in client.entries(run_id):
        tally.add(entry)
    return tally


@click.command()
@click.option("--status", type=click.Choice(get_args(RunStatus)), help="Only runs that stand so.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, help="How many, 20 by default.")
@json_flag
@global_flags
@click.pass_context
def runs(ctx: click.Context, status: RunStatus | None, limit: int, as_json: bool) -> None:
    """List the runs, newest first."""
    rows = open_client(ctx).journal.list_runs(limit=limit, status=status)
    from heartbit.cli.overview import row_json, run_lines

    if as_json:
        print_json({"runs": [row_json(row) for row in rows]})
        return
    for line in run_lines(rows):
        click.echo(line)
    if not rows:
        click.echo("no runs", err=True)


@click.command()
@run_argument
@json_flag
@global_flags
@click.pass_context
def cancel(ctx: click.Context, run_id: str, as_json: bool) -> None:
    """End RUN and everything below it."""
    client = open_client(ctx)
    row = client.journal.run(run_id)
    client.cancel(run_id)
    if as_json:
        print_json({"run_id": row.run_id, "cancel_requested": row.output is None})
    elif row.output is None:
        click.echo(f"cancelling {row.run_id}", err=True)
    else:
        click.echo(f"{row.run_id} has ended already: {row.status}", err=True)


@click.command()
@run_argument
@click.option("--json", "as_json", is_flag=True, help="Print the events, one JSON object a line.")
@global_flags
@click.pass_context
def replay(ctx: click.Context, run_id: str, as_json: bool) -> None:
    """Fold the journals of RUN and print what happened, turn by turn."""
    client = open_client(ctx)
    from heartbit.cli.turns import turn_lines
    from heartbit.core.run import replay as fold

    row = client.journal.run(run_id)
    entries = list(client.entries(row.run_id))
    if as_json:
        for entry in entries:
            click.echo(json.dumps(entry))
        return
    for line in turn_lines(entries):
        click.echo(line)
    state, commands = fold(client.journal.events(row.run_id))
    waits = f"; open: {', '.join(command.step for command in commands)}" if commands else ""
    click.echo(f"replayed: {state.status} after {state.turn} turns{waits}", err=True)
