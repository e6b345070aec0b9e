"""The tools that come with heartbit: files, search, a shell, web pages and a todo list.

An agent has only those its `tools` name. State (working directory, files read, todo list) lives in
the scratch of one agent's run, so that no agent sees or moves another's.
The package itself imports nothing: asking for `BUILTIN` loads the tools, and what is heavy (the
HTTP client, subprocesses, HTML conversion) is loaded by the first call that needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from heartbit.tools.base import BoundTool

    BUILTIN: Mapping[str, BoundTool]

__all__ = ["BUILTIN", "builtin_tool"]


def builtin_tool(name: str) -> BoundTool:
    """The built-in tool called `name`; raises KeyError if there is none."""
    from heartbit.tools.builtin.catalogue import BUILTIN

    return BUILTIN[name]


def __getattr__(name: str) -> Any:
    if name != "BUILTIN":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from heartbit.tools.builtin.catalogue import BUILTIN

    return BUILTIN
