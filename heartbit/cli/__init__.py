"""The command line. Importing this package imports nothing, so that every start is quick.

A command's module holds its flags; what a command needs to do its work is imported when it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit code; a person never sees a traceback."""
    try:
        from heartbit.cli.entry import run_command_line
    except KeyboardInterrupt:
        return 3
    return run_command_line(arguments)


def __getattr__(name: str) -> Any:
    """`celery_commands`: the commands as `celery -A heartbit heartbit ...`."""
    if name != "celery_commands":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from heartbit.cli.group import heartbit

    return heartbit
