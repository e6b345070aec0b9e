"""How a built-in tool is made of a description and a function.

A function returns the text for the model, or raises ToolError with it; whatever the operating
system refuses becomes an error result here, so that no tool repeats it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from heartbit.core.messages import Json
from heartbit.core.tools import Effect, ToolOutput, ToolSpec
from heartbit.errors import ToolError
from heartbit.tools.base import BoundTool, ToolContext
from heartbit.tools.builtin.text import encodable

Answer = Callable[[Json, ToolContext], Awaitable[str]]


def build_tool(
    name: str,
    description: str,
    *,
    properties: Json,
    required: tuple[str, ...] = (),
    effect: Effect,
    answer: Answer,
    inline: bool = False,
) -> BoundTool:
    """The built-in tool `name`, whose `answer` becomes its output."""
    schema: Json = {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }
    spec = ToolSpec(
        name=name,
        description=description,
        input_schema=schema,
        ref=f"builtin:{name}",
        effect=effect,
        inline=inline,
    )
    return BoundTool(spec=spec, run=_output_of(answer))


def in_thread(work: Callable[[Json, ToolContext], str]) -> Answer:
    """`work`, which blocks, as a coroutine that runs it in a thread."""

    async def answer(arguments: Json, context: ToolContext) -> str:
        from heartbit.tools import threads

        return await threads.in_thread(partial(work, arguments, context), work.__name__)

    return answer


def _output_of(answer: Answer) -> Callable[[Json, ToolContext], Awaitable[ToolOutput]]:
    async def run(arguments: Json, context: ToolContext) -> ToolOutput:
        try:
            return ToolOutput(content=encodable(await answer(arguments, context)))
        except ToolError as failure:
            return ToolOutput(content=encodable(failure.message), is_error=True)
        except OSError as failure:
            return ToolOutput(content=encodable(_refusal(failure)), is_error=True)

    return run


def _refusal(failure: OSError) -> str:
    reason = failure.strerror or type(failure).__name__
    where = f" ({failure.filename})" if isinstance(failure.filename, str) else ""
    return f"The operating system refused: {reason}{where}."
