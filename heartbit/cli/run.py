"""`heartbit run`: one prompt, one run."""

from __future__ import annotations

import sys

import click

from heartbit.cli.group import global_flags, settings
from heartbit.cli.options import run_flags

FROM_STDIN = ("-",)


@click.command(no_args_is_help=False)
@click.argument("prompt", nargs=-1, required=True, metavar="PROMPT...")
@run_flags
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and no text.")
@global_flags
@click.pass_context
def run(ctx: click.Context, /, prompt: tuple[str, ...], as_json: bool, **flags: object) -> None:
    """Give PROMPT to the agents and stream the answer to stdout.

    Words of PROMPT are joined by blanks; `-` reads it from stdin. Progress goes to stderr. Ctrl-C
    cancels the run and reports what was used; pressed again, it ends at once.
    """
    text = prompt_text(prompt)
    from heartbit.cli.options import load_config
    from heartbit.cli.session import run_once

    loaded = load_config(settings(ctx)["config"], flags)
    ctx.exit(
        run_once(
            loaded,
            text,
            approve=bool(flags["approve"]),
            verbose=bool(flags["verbose"]),
            as_json=as_json,
            debug=settings(ctx)["debug"],
            stdin_is_free=prompt != FROM_STDIN,
        )
    )


def prompt_text(words: tuple[str, ...]) -> str:
    """The prompt that the words of a command line are, or stdin for `-`.

    Raises:
        click.UsageError: it is empty, or no text.
    """
    text = _from_stdin() if words == FROM_STDIN else " ".join(words)
    _check(text)
    return text


def _from_stdin() -> str:
    if sys.stdin is None:
        raise click.UsageError("stdin is closed, so no prompt can be read from it.")
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise click.UsageError(
            f"the prompt on stdin is not UTF-8 (byte {error.start + 1})."
        ) from error
    except OSError as error:
        raise click.UsageError(f"the prompt can't be read from stdin: {error.strerror}.") from error


def _check(text: str) -> None:
    if not text.strip():
        raise click.UsageError("the prompt is empty.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise click.UsageError("the prompt is not valid UTF-8.") from error
