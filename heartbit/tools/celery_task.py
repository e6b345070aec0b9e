"""Celery tasks as tools: what a model is told about a task that other code bases work on.

The task itself is sent by the durable engine, and never runs here. Celery is imported when a tool
is looked up, and not before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from heartbit.core.messages import Json
from heartbit.core.tools import ToolOutput, ToolSpec
from heartbit.errors import ConfigError, ToolError
from heartbit.tools.arguments import Arguments
from heartbit.tools.base import ToolContext
from heartbit.tools.docstring import parse_docstring
from heartbit.tools.registry import CELERY_TASK, DURABLE_ONLY, ToolOptions
from heartbit.tools.spec import safe_name

# Queues of heartbit's own, where a task of somebody else must not get to by default.
OWN_QUEUES = "heartbit."
TOOL_QUEUE = "heartbit.tools"


@dataclass(frozen=True, kw_only=True, slots=True)
class CeleryTaskTool:
    """A Celery task under the name by which a model calls it."""

    spec: ToolSpec

    def with_spec(self, spec: ToolSpec) -> CeleryTaskTool:
        """The same task under another description."""
        return CeleryTaskTool(spec=spec)

    async def call(self, arguments: Json, context: ToolContext) -> ToolOutput:
        """Refuse: this process could not wait for the answer.

        Raises:
            ToolError: always.
        """
        raise ToolError(DURABLE_ONLY)


def celery_task(reference: str, options: ToolOptions | None = None) -> CeleryTaskTool:
    """The tool for `celery:package.tasks.name`, with the schema and the queue of its options.

    Without a schema the task must be registered in the current app, after its `include` and
    `imports` were imported; then its signature gives the schema, as with `@heartbit.tool`.

    Raises:
        ConfigError: nobody knows its arguments, or where to send it.
    """
    name = reference.removeprefix(CELERY_TASK)
    app, task = _look_up(name)
    try:
        schema = (options and options.input_schema) or _schema(task)
        spec = ToolSpec(
            name=safe_name(name.rpartition(".")[2]),
            description=_description(name, task),
            input_schema=schema,
            ref=CELERY_TASK + name,
            queue=(options and options.queue) or _queue(app, name, task),
        )
    except ConfigError as error:
        raise ConfigError(f"Tool {CELERY_TASK}{name}: {error.message} {_remedy(name)}") from None
    return CeleryTaskTool(spec=spec)


def _look_up(name: str) -> tuple[Any, Any]:
    """The current app, and the task if the app knows it."""
    from celery import current_app

    app: Any = current_app._get_current_object()  # type: ignore[attr-defined]
    if name not in app.tasks:
        try:
            app.loader.import_default_modules()
        except Exception as error:
            raise ConfigError(
                f"Tool {CELERY_TASK}{name}: the modules of the Celery app cannot be imported: "
                f"{type(error).__name__}: {error}"
            ) from error
    return app, app.tasks.get(name)


def _schema(task: Any) -> Json:
    if task is None:
        raise ConfigError("This process does not know the task, nor what arguments it takes.")
    try:
        return Arguments(task.run, descriptions=_documented(task).parameters, namespace={}).schema
    except ConfigError as error:
        reason = error.message.partition(": ")[2]
        raise ConfigError(f"{reason} Or describe its arguments yourself.") from error


def _documented(task: Any) -> Any:
    return parse_docstring(task.run.__doc__)


def _description(name: str, task: Any) -> str:
    text: str = _documented(task).description if task is not None else ""
    return text or f"The Celery task {name}."


def _queue(app: Any, name: str, task: Any) -> str | None:
    """None if the app's routes lead to its worker; a default that leads to us does not."""
    found = app.amqp.router.route({}, name).get("queue")
    if not str(getattr(found, "name", found) or "").startswith(OWN_QUEUES):
        return None
    if task is not None:
        return TOOL_QUEUE
    raise ConfigError("No route says which queue its worker reads.")


def _remedy(name: str) -> str:
    return (
        f'Write [[tools]] with name = "{CELERY_TASK}{name}", input_schema = {{...}} and, where '
        "needed, queue; or have the Celery app import the task's module (its `include`)."
    )
