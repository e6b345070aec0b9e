"""What an exit code means, and the errors that carry one."""

from __future__ import annotations

import click

from heartbit.cli.ending import CANCELLED
from heartbit.core.events import RunStatus

FAILED = 1
USAGE = 2
OF_STATUS: dict[RunStatus, int] = {
    "succeeded": 0,
    "failed": FAILED,
    "cancelled": CANCELLED,
    "waiting": 4,
    "running": 4,
    "queued": 4,
}


class BadConfiguration(click.ClickException):
    """The file, a flag or the environment is wrong."""

    exit_code = USAGE


class Unexpected(click.ClickException):
    """Something broke that should not be able to."""

    exit_code = FAILED

    def __init__(self, error: Exception) -> None:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        super().__init__(f"internal error: {what}; run again with --debug.")
