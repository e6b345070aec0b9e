"""Which files an agent has read, so that it changes none it does not know.

The record is in the scratch of one agent's run: what another agent has read does not count.
"""

from __future__ import annotations

import os

from heartbit.errors import ToolError
from heartbit.tools.base import ToolContext
from heartbit.tools.builtin.workspace import Place

_KEY = "builtin.files"
# The inode tells a replaced file from the one that was read, even within one tick of the clock.
Stamp = tuple[int, int, int]


def remember(context: ToolContext, place: Place, status: os.stat_result) -> None:
    """Record that the agent knows the file as it was when `status` was taken."""
    context.scratch.setdefault(_KEY, {})[place.path] = _stamp(status)


def require_known(context: ToolContext, place: Place, status: os.stat_result) -> None:
    """Raise ToolError unless the agent has read the file and it is still what it was then."""
    known: Stamp | None = context.scratch.get(_KEY, {}).get(place.path)
    if known is None:
        raise ToolError(f"{place.shown} exists and has not been read; read it before changing it.")
    if known != _stamp(status):
        raise ToolError(f"{place.shown} was modified since it was read; read it again first.")


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_mtime_ns, status.st_size, status.st_ino
