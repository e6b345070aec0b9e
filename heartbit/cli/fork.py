"""`heartbit fork`: a run that keeps the beginning of another one, and goes on in its own way."""

from __future__ import annotations

from pathlib import Path

import click

from heartbit.cli.durable import json_flag, open_client, print_json, run_argument
from heartbit.cli.group import global_flags
from heartbit.cli.submit import wait_flag, waited


@click.command()
@run_argument
@click.option(
    "--from-turn",
    type=click.IntRange(min=1),
    required=True,
    metavar="N",
    help="The turn that is asked anew; all before it is kept.",
)
@click.option("--model", metavar="M", help="The model from turn N on.")
@click.option(
    "--prompt-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="F",
    help="The text that the conversation begins with, in place of the run's.",
)
@wait_flag
@json_flag
@global_flags
@click.pass_context
def fork(
    ctx: click.Context,
    run_id: str,
    from_turn: int,
    model: str | None,
    prompt_file: Path | None,
    wait: bool,
    as_json: bool,
) -> None:
    """Open a run that keeps everything of RUN before a turn, and print its id.

    What the kept turns did is not done again: their tool results are those of RUN, which goes on,
    or stays ended, as if nothing had happened. With --prompt-file the kept turns stay as they were
    below the new text; from turn 1 nothing but the agent is kept.
    """
    prompt = None if prompt_file is None else _text(prompt_file)
    client = open_client(ctx)
    handle = client.fork(run_id, from_turn, model=model, prompt=prompt)
    if wait:
        ctx.exit(waited(handle, as_json=as_json))
    elif as_json:
        print_json({"run_id": handle.id, "forked_from": {"run_id": run_id, "turn": from_turn}})
    else:
        click.echo(handle.id)


def _text(file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise click.UsageError(f"{file} cannot be read as text: {error}.") from error
    if not text:
        raise click.UsageError(f"{file} holds no text.")
    return text
