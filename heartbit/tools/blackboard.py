"""The three tools over the keys that the agents of one run share.

Every answer names versions, so that a model can write under a condition.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from heartbit.core.messages import Json
from heartbit.core.tools import ToolOutput, ToolSpec
from heartbit.errors import ToolError
from heartbit.stores.base import Blackboard
from heartbit.tools.base import BoundTool, ToolContext
from heartbit.tools.spec import near_misses

_KEY = {"type": "string", "minLength": 1, "description": "The key, for example `agent:writer`."}


async def _read(arguments: Json, context: ToolContext) -> ToolOutput:
    board, key = _board(context), arguments["key"]
    value, version = await board.read(key)
    if version == 0:
        return ToolOutput(content=_missing(key, await board.keys()))
    return ToolOutput(content=_entry(key, value, version))


async def _write(arguments: Json, context: ToolContext) -> ToolOutput:
    board, key = _board(context), arguments["key"]
    expected = arguments.get("expected_version")
    try:
        version = await board.write(key, arguments["value"], expected_version=expected)
    except ToolError as error:
        value, version = await board.read(key)
        if expected is None or expected == version:
            raise
        found = _entry(key, value, version) if version else "The key does not exist."
        return ToolOutput(content=f"{error.message}\n{found}", is_error=True)
    return ToolOutput(content=f"Wrote {_quoted(key)} (version {version}).")


async def _list(arguments: Json, context: ToolContext) -> ToolOutput:
    keys = await _board(context).keys()
    if not keys:
        return ToolOutput(content="The blackboard is empty.")
    count = "1 key" if len(keys) == 1 else f"{len(keys)} keys"
    return ToolOutput(content="\n".join([f"{count}:", *(f"- {key}" for key in keys)]))


def _board(context: ToolContext) -> Blackboard:
    if context.blackboard is None:
        raise ToolError("This run has no blackboard.")
    return context.blackboard


def _entry(key: str, value: Any, version: int) -> str:
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    return f"{_quoted(key)} (version {version}):\n{text}"


def _missing(key: str, keys: tuple[str, ...]) -> str:
    near = near_misses(key, keys)
    return f"Key {_quoted(key)} not found.{near or ' See blackboard_list for the keys there are.'}"


def _quoted(key: str) -> str:
    return json.dumps(key, ensure_ascii=False)


def _tool(
    name: str,
    run: Callable[[Json, ToolContext], Awaitable[ToolOutput]],
    description: str,
    properties: Json,
    required: list[str],
) -> BoundTool:
    schema = {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
    spec = ToolSpec(
        name=name,
        description=description,
        input_schema=schema,
        ref=f"builtin:{name}",
        effect="transactional",
        inline=True,
    )
    return BoundTool(spec=spec, run=run)


BLACKBOARD_TOOLS = (
    _tool(
        "blackboard_read",
        _read,
        "Read a key of the blackboard that all agents of this run share. Gives the value and its "
        "version. Results of other agents are under `agent:{name}`.",
        {"key": _KEY},
        ["key"],
    ),
    _tool(
        "blackboard_write",
        _write,
        "Write a key of the blackboard that all agents of this run share. Replaces the value, if "
        "there is one.",
        {
            "key": _KEY,
            "value": {"description": "Any JSON value."},
            "expected_version": {
                "type": "integer",
                "minimum": 0,
                "description": "Write only if the key is still at this version, as "
                "blackboard_read gave it; 0 means only if the key does not exist.",
            },
        },
        ["key", "value"],
    ),
    _tool(
        "blackboard_list",
        _list,
        "List the keys of the blackboard that all agents of this run share.",
        {},
        [],
    ),
)
