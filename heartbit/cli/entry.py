"""From the process to click and back: exit codes, one-line errors, pipes that close."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TextIO

import click

from heartbit.cli.ending import CANCELLED
from heartbit.cli.exits import FAILED, Unexpected
from heartbit.cli.group import NAME, heartbit


def run_command_line(arguments: Sequence[str] | None) -> int:
    """The exit code of the command that `arguments` (by default the process's own) ask for."""
    _prepare_streams()
    return _finish(_exit_code(arguments))


def _exit_code(arguments: Sequence[str] | None) -> int:
    given = list(arguments) if arguments is not None else None
    try:
        code = heartbit.main(given, prog_name=NAME, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        _say(f"error: {error.format_message()}{_where_to_look(error)}")
        return error.exit_code
    except click.Abort:
        return CANCELLED
    except Exception as error:
        if "--debug" in (sys.argv if given is None else given):
            raise
        _say(f"error: {Unexpected(error).format_message()}")
        return FAILED
    except SystemExit as error:  # click's answer to a pipe that nobody reads any more
        return error.code if isinstance(error.code, int) else FAILED
    return code if isinstance(code, int) else 0


def _where_to_look(error: click.ClickException) -> str:
    """The help to read after a wrong flag; a sentence of ours says what to do by itself."""
    if type(error) is click.UsageError or not isinstance(error, click.UsageError):
        return ""
    return f" See `{error.ctx.command_path if error.ctx else NAME} --help`."


def _say(line: str) -> None:
    click.echo(line, err=True)


def _prepare_streams() -> None:
    """Text that the terminal's encoding doesn't have is escaped; a closed stream swallows."""
    for name in ("stdout", "stderr"):
        stream: TextIO | None = getattr(sys, name)
        if stream is None:
            nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for good
            setattr(sys, name, nowhere)
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _finish(code: int) -> int:
    """Write out what is buffered; nothing after this may print a traceback."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _discard(stream)
    return code


def _discard(stream: TextIO) -> None:
    """Give the last flush of the interpreter somewhere to write to."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
