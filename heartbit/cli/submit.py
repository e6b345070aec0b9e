"""`heartbit submit` and `heartbit result`: a durable run begins, and its end is fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from heartbit.cli.durable import json_flag, open_client, print_json, run_argument
from heartbit.cli.group import global_flags
from heartbit.cli.run import prompt_text

if TYPE_CHECKING:
    from heartbit.client import RunHandle


wait_flag = click.option(
    "--wait", is_flag=True, help="Wait for the end, or for a question to a human."
)


@click.command(no_args_is_help=False)
@click.argument("prompt", nargs=-1, required=True, metavar="PROMPT...")
@click.option("--agent", metavar="NAME", help="Who gets the prompt, whatever the routing says.")
@click.option("--run-id", metavar="ID", help="The run's id; given again, it is the same run.")
@click.option("--approve", is_flag=True, help="Ask about every tool call first.")
@click.option(
    "--priority", type=int, default=0, metavar="N", help="The highest starts first; 0 by default."
)
@wait_flag
@json_flag
@global_flags
@click.pass_context
def submit(
    ctx: click.Context,
    /,
    prompt: tuple[str, ...],
    agent: str | None,
    run_id: str | None,
    approve: bool,
    priority: int,
    wait: bool,
    as_json: bool,
) -> None:
    """Open a durable run on PROMPT, print its id, and leave it to the workers.

    It is in the journal before the command returns: with no broker or no worker it starts later.
    With --wait the result is printed in place of the id, and the exit code is the run's.
    """
    text = prompt_text(prompt)
    client = open_client(ctx)
    handle = client.submit(text, agent=agent, run_id=run_id, approve=approve, priority=priority)
    if wait:
        ctx.exit(waited(handle, as_json=as_json))
    elif as_json:
        print_json({"run_id": handle.id})
    else:
        click.echo(handle.id)


def waited(handle: RunHandle, *, as_json: bool) -> int:
    """The end of a run on stdout, or what it waits for; gives the run's exit code."""
    from heartbit.cli.outcome import report

    click.echo(f"run {handle.id}", err=True)
    return report(handle.client.wait(handle.id, for_humans=False), as_json=as_json)


@click.command()
@run_argument
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=0,
    metavar="SECONDS",
    help="How long to wait for the end.",
)
@json_flag
@global_flags
@click.pass_context
def result(ctx: click.Context, run_id: str, wait: float, as_json: bool) -> None:
    """Print the result of RUN; the exit code is the run's, 4 if it has not ended."""
    from heartbit.cli.outcome import report

    ctx.exit(report(open_client(ctx).wait(run_id, wait), as_json=as_json))
