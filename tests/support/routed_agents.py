"""An agent whose tools say in which process they run, or wait until they may."""

from __future__ import annotations

import os
import time
from pathlib import Path

import heartbit
from heartbit.core.messages import ToolResult
from heartbit.core.request import ModelRequest
from heartbit.providers.scripted import Reply, call


@heartbit.tool
def where() -> str:
    """Say where this runs."""
    return str(os.getpid())


@heartbit.tool(queue="quick")
def elsewhere() -> str:
    """Say where this runs; the configuration sends it somewhere else than it asks for."""
    return str(os.getpid())


def _begin(name: str) -> str:
    with Path("begun").open("a") as lines:
        lines.write(f"{name}\n")
    while not Path("go").exists():
        time.sleep(0.01)
    return f"{name} done"


@heartbit.tool
def look() -> str:
    """Wait until the file `go` is there."""
    return _begin("look")


@heartbit.tool
def fire() -> str:
    """The same."""
    return _begin("fire")


@heartbit.tool
def dawdle() -> str:
    """The same."""
    return _begin("dawdle")


def reply(request: ModelRequest) -> Reply:
    """Call the tools that the prompt names, then say what they said."""
    parts = [part for message in request.messages for part in message.parts]
    results = [part.content for part in parts if isinstance(part, ToolResult)]
    if results:
        return "|".join(results)
    return [call(name) for name in request.messages[0].text.split()]
