"""The command line. Importing this package imports nothing, so that every start is quick.

A command's module holds its flags; what a command needs to do its work is imported when it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Be the command line, and give its exit code; a person never sees a traceback.

    Ctrl-C and SIGTERM end the process with exit code 3 from here on. When it runs on its own
    arguments it has nothing to do afterwards, and nothing may change its exit code any more.
    """
    from heartbit.cli.ending import end_on_signals, ignore_signals

    end_on_signals()
    from heartbit.cli.entry import run_command_line

    code = run_command_line(arguments)
    if arguments is None:
        ignore_signals()
    return code


def __getattr__(name: str) -> Any:
    """`celery_commands`: the commands as `celery -A heartbit heartbit ...`."""
    if name != "celery_commands":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from heartbit.cli.group import heartbit

    return heartbit
