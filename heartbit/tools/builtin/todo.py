"""The tools `todowrite` and `todoread`: an agent's own list of what it still has to do.

It is among the notes of the run, so that a durable run finds it on every machine.
"""

from __future__ import annotations

from heartbit.core.messages import Json
from heartbit.errors import ToolError
from heartbit.stores.base import Blackboard
from heartbit.tools.base import ToolContext
from heartbit.tools.builtin.build import build_tool

MAX_TODOS = 200
_KEY = "todos"
_MARKS = {"pending": " ", "in_progress": ">", "completed": "x", "cancelled": "-"}

WRITE_DESCRIPTION = """Replace your todo list by this one (send all of it, not only what changed).

Use it for work of several steps; at most one entry may be in_progress."""
READ_DESCRIPTION = "Show your todo list, as you last wrote it."


async def write_todos(arguments: Json, context: ToolContext) -> str:
    """Replace the list of this agent's run."""
    todos = arguments["todos"]
    running = sum(todo["status"] == "in_progress" for todo in todos)
    if running > 1:
        raise ToolError(
            f"{running} todos are in_progress; at most one may be. Nothing was changed."
        )
    await _notes(context).write(_KEY, todos)
    return _rendered(todos)


async def read_todos(arguments: Json, context: ToolContext) -> str:
    """The list of this agent's run."""
    todos, version = await _notes(context).read(_KEY)
    return _rendered(todos if version else [])


def _notes(context: ToolContext) -> Blackboard:
    if context.notes is None:
        raise ToolError("This run keeps no notes.")
    return context.notes


def _rendered(todos: list[dict[str, str]]) -> str:
    if not todos:
        return "The todo list is empty."
    return "\n".join(
        f"{number}. [{_MARKS[todo['status']]}] {todo['content']}"
        f" ({todo['status']}, {todo['priority']} priority)"
        for number, todo in enumerate(todos, 1)
    )


_TODO: Json = {
    "type": "object",
    "properties": {
        "content": {"type": "string", "minLength": 1, "description": "What is to be done."},
        "status": {
            "enum": list(_MARKS),
            "description": "How far it is.",
        },
        "priority": {"enum": ["high", "medium", "low"], "description": "How urgent it is."},
    },
    "required": ["content", "status", "priority"],
    "additionalProperties": False,
}

TODOWRITE = build_tool(
    "todowrite",
    WRITE_DESCRIPTION,
    properties={
        "todos": {
            "type": "array",
            "items": _TODO,
            "maxItems": MAX_TODOS,
            "description": "The whole list, in the order of work.",
        }
    },
    required=("todos",),
    effect="transactional",
    inline=True,
    answer=write_todos,
)

TODOREAD = build_tool(
    "todoread",
    READ_DESCRIPTION,
    properties={},
    effect="pure",
    inline=True,
    answer=read_todos,
)
