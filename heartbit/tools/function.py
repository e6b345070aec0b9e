"""`@heartbit.tool`: a Python function is a tool.

The function stays what it was for the code that calls it; the model gets a schema made from its
type hints and docstring, and what it returns is turned into text.
"""

from __future__ import annotations

import copy
import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import FrameType
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

from pydantic_core import PydanticSerializationError, to_json

from heartbit.core.messages import Json
from heartbit.core.tools import Effect, OnDoubt, ToolOutput, ToolSpec
from heartbit.errors import ConfigError, ToolError
from heartbit.tools.arguments import Arguments
from heartbit.tools.base import ToolContext
from heartbit.tools.companions import Companion
from heartbit.tools.docstring import parse_docstring
from heartbit.tools.spec import checked
from heartbit.tools.threads import in_thread

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


class FunctionTool(Generic[P, R]):
    """A function as a tool, made by `tool`. Called directly it is the function."""

    spec: ToolSpec

    def __init__(self, function: Callable[P, R], spec: ToolSpec, arguments: Arguments) -> None:
        functools.update_wrapper(self, function)
        self.spec = spec
        self._function = function
        self._arguments = arguments
        self._prepare: Companion | None = None
        self._probe: Companion | None = None
        self.is_async = inspect.iscoroutinefunction(function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """What the function itself returns for these arguments."""
        return self._function(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        """The same function under the same description, however often it was loaded."""
        if not isinstance(other, FunctionTool):
            return NotImplemented
        return self._function == other._function and self.spec == other.spec

    def __hash__(self) -> int:
        return hash(self._function)

    def __repr__(self) -> str:
        return f"<tool {self.spec.name} ({self.spec.ref})>"

    def with_spec(self, spec: ToolSpec) -> FunctionTool[P, R]:
        """The same function under another description."""
        other = copy.copy(self)
        other.spec = spec
        return other

    async def call(self, arguments: Json, context: ToolContext) -> ToolOutput:
        """Call the function with `arguments` converted to the types of its parameters.

        A plain `def` runs in a thread, with the caller's context variables. Arguments that cannot
        be converted and a result that cannot be written as JSON are error outputs; what the
        function raises is raised here.
        """
        try:
            values = self._arguments.convert(arguments, context)
        except ToolError as error:
            return ToolOutput(content=error.message, is_error=True)
        return self._output(await self._run(values))

    def prepare(self, function: F) -> F:
        """Have `function` do what is slow before the transaction of each call: `@book.prepare`.

        It takes the tool's parameters by name, as many as it needs, and the context if it has a
        parameter annotated `ToolContext`. What it returns is the tool's `context.prepared`. It may
        be done more than once for one call.

        Raises:
            ConfigError: the tool is not transactional, or has no such parameter.
        """
        if self.spec.effect != "transactional":
            raise ConfigError(
                f"Tool {self.spec.name}: only a transactional tool prepares its calls; do the work "
                "in the tool itself."
            )
        self._prepare = self._companion(function, sys._getframe(1))
        return function

    def probe(self, function: F) -> F:
        """Have `function` find out whether a call has happened whose worker was lost in it.

        It takes parameters as that of `prepare` does, and returns the result of the call, None if
        it certainly has not happened (it is begun again then), and raises if nobody knows.

        Raises:
            ConfigError: the tool may be repeated anyway, or has no such parameter.
        """
        if self.spec.effect != "at_most_once":
            raise ConfigError(
                f"Tool {self.spec.name}: a call of a tool that is {self.spec.effect} is simply "
                "done again; only at_most_once needs a probe."
            )
        self._probe = self._companion(function, sys._getframe(1))
        self.spec = replace(self.spec, probe=True)
        return function

    async def prepare_call(self, arguments: Json, context: ToolContext) -> Any:
        """Do what is slow before the transaction of a call."""
        if self._prepare is None:
            return None
        return await self._prepare.run(self._arguments.convert(arguments, context), context)

    async def probe_call(self, arguments: Json, context: ToolContext) -> ToolOutput | None:
        """The output of a call if it has happened, None if it certainly has not.

        Raises:
            ToolError: nobody can tell.
        """
        if self._probe is None:
            raise ToolError(f"The tool {self.spec.name} has no probe any more.")
        found = await self._probe.run(self._arguments.convert(arguments, context), context)
        return None if found is None else self._output(found)

    def _companion(self, function: Callable[..., Any], frame: FrameType) -> Companion:
        known = self.spec.input_schema["properties"]
        return Companion(function, known, _names_around(function, frame))

    async def _run(self, values: dict[str, Any]) -> Any:
        call = cast("Callable[[], Any]", functools.partial(self._function, **values))
        result = call() if self.is_async else await in_thread(call, self.spec.name)
        return await result if inspect.isawaitable(result) else result

    def _output(self, result: Any) -> ToolOutput:
        if isinstance(result, ToolOutput):
            return result
        try:
            return ToolOutput(content=as_text(result))
        except PydanticSerializationError as error:
            undone = self.spec.effect == "transactional"
            what = "has written nothing, because" if undone else "was executed, but"
            return ToolOutput(
                content=f"{self.spec.name} {what} its result cannot be written as JSON: {error}",
                is_error=True,
            )


@overload
def tool(function: Callable[P, R], /) -> FunctionTool[P, R]: ...


@overload
def tool(
    *,
    effect: Effect = ...,
    name: str | None = ...,
    description: str | None = ...,
    timeout_seconds: float | None = ...,
    queue: str | None = ...,
    on_doubt: OnDoubt = ...,
) -> Callable[[Callable[P, R]], FunctionTool[P, R]]: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    effect: Effect = "at_most_once",
    name: str | None = None,
    description: str | None = None,
    timeout_seconds: float | None = None,
    queue: str | None = None,
    on_doubt: OnDoubt = "tell_model",
) -> Any:
    """Make a tool of a function: `@tool`, or `@tool(effect="idempotent", timeout_seconds=30)`.

    The JSON Schema of the arguments comes from the type hints, descriptions from the docstring
    (Google, NumPy or Sphinx style) or from `Annotated[..., Field(description=...)]`. A parameter
    annotated `ToolContext` gets the context of the call and is not shown to the model. The result
    is sent as text if it is a `str` and as JSON otherwise; `None` is an empty text.

    Args:
        effect: What a repetition of a call would mean. `pure` only reads; `idempotent` passes
            `context.idempotency_key` on; `transactional` writes through `context.connection` and
            touches nothing else, so that what it writes is kept together with its result, or not
            at all; `at_most_once` (the default) must not be repeated blindly.
        name: What the model calls it; the function's name by default.
        description: In place of the docstring's.
        timeout_seconds: How long a call may take. A thread cannot be stopped: a plain `def` that
            takes longer is given up, not ended.
        queue: The Celery queue of its calls; they are never batched with other steps then.
        on_doubt: What to do about an `at_most_once` call whose outcome is unknown.

    Raises:
        ConfigError: no tool can be made of the function; the message says why.
    """
    options = {
        "effect": effect,
        "timeout_seconds": timeout_seconds,
        "queue": queue,
        "on_doubt": on_doubt,
    }
    given = {"name": name, "description": description}
    options |= {key: value for key, value in given.items() if value is not None}
    if function is not None:
        return _build(function, _names_around(function, sys._getframe(1)), options)

    def decorate(function: Callable[..., Any]) -> FunctionTool[..., Any]:
        return _build(function, _names_around(function, sys._getframe(1)), options)

    return decorate


def _build(
    function: Callable[..., Any], namespace: Mapping[str, Any], options: dict[str, Any]
) -> FunctionTool[..., Any]:
    _check(function, options["effect"])
    text = parse_docstring(function.__doc__)
    arguments = Arguments(function, descriptions=text.parameters, namespace=namespace)
    found = {
        "name": function.__name__,
        "description": text.description,
        "input_schema": arguments.schema,
        "ref": f"python:{function.__module__}:{function.__qualname__}",
    }
    return FunctionTool(function, checked(ToolSpec(**(found | options))), arguments)


def _check(function: Callable[..., Any], effect: Effect) -> None:
    if not (inspect.isfunction(function) or inspect.ismethod(function)):
        kind = "class" if isinstance(function, type) else type(function).__name__
        raise ConfigError(f"@heartbit.tool makes tools of functions, and this is a {kind}.")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigError(f"Tool {function.__qualname__}: return the result, do not yield it.")
    if effect == "transactional" and inspect.iscoroutinefunction(function):
        raise ConfigError(
            f"Tool {function.__qualname__}: a transactional tool must be a plain def, "
            "because it runs inside the journal's transaction, where nothing may be awaited."
        )


def _names_around(function: Any, frame: FrameType) -> Mapping[str, Any]:
    """The local names its type hints may use: those of the code that defines and decorates it."""
    defined_here = getattr(function, "__globals__", None) is frame.f_globals
    return frame.f_locals if defined_here else {}


def as_text(value: Any) -> str:
    """What a tool's result is to a model: text as it is, anything else as JSON.

    Raises:
        PydanticSerializationError: it has no JSON form.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return str.__str__(value)  # an enum that is a str would print its name
    if isinstance(value, bytes | bytearray | memoryview):
        return _bytes_as_text(bytes(value))
    return to_json(value).decode()


def _bytes_as_text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return f"[binary data, {len(value)} bytes]"


def result_text(value: Any) -> str:
    """The same for a result of which only the text is wanted, whatever that may be."""
    try:
        return as_text(value)
    except (PydanticSerializationError, ValueError, RecursionError):
        return str(value)
