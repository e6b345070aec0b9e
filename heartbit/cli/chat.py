"""`heartbit chat`: one line, one answer, until an empty line."""

from __future__ import annotations

import click

from heartbit.cli.group import global_flags, settings
from heartbit.cli.options import run_flags


@click.command()
@run_flags
@global_flags
@click.pass_context
def chat(ctx: click.Context, /, **flags: object) -> None:
    """Talk to the agents, line by line; an empty line or Ctrl-D ends it.

    Each line is a run that is told the conversation so far. Ctrl-C cancels the answer that is being
    given; at the prompt it ends the chat.
    """
    from heartbit.cli.dialogue import hold
    from heartbit.cli.options import load_config

    loaded = load_config(settings(ctx)["config"], flags)
    ctx.exit(
        hold(
            loaded,
            approve=bool(flags["approve"]),
            verbose=bool(flags["verbose"]),
            debug=settings(ctx)["debug"],
        )
    )
