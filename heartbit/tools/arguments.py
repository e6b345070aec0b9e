"""From a function's signature to the JSON Schema of its arguments, and from JSON to its arguments.

Everything is worked out once, when the function becomes a tool; a call only runs the validator.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from pydantic import PydanticUndefinedAnnotation, PydanticUserError, TypeAdapter, ValidationError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaWarningKind
from pydantic_core import PydanticSerializationError, to_json

from heartbit.core.messages import Json
from heartbit.errors import ConfigError, ToolError
from heartbit.tools.base import ToolContext

_REFUSED_KINDS: dict[Any, str] = {
    inspect.Parameter.VAR_POSITIONAL: "*{} cannot be described to a model",
    inspect.Parameter.VAR_KEYWORD: "**{} cannot be described to a model",
    inspect.Parameter.POSITIONAL_ONLY: "{} is positional-only, and a model passes names",
}
_VIOLATIONS = {
    "missing_keyword_only_argument": "is required",
    "unexpected_keyword_argument": "is not an argument of this tool",
}


class Arguments:
    """The arguments of one function: their JSON Schema, and their conversion from JSON.

    Parameters annotated `ToolContext` are not the model's to fill: they are in no schema, and get
    the context of the call.

    Raises:
        ConfigError: the signature cannot be described to a model.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        descriptions: Mapping[str, str],
        namespace: Mapping[str, Any],
    ) -> None:
        name = function.__qualname__
        parameters = inspect.signature(function).parameters
        _check(name, parameters)
        hints = resolved_hints(function, parameters, namespace)
        self._context_names = [key for key, hint in hints.items() if is_context(hint)]
        asked = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[key])
            for key, parameter in parameters.items()
            if key not in self._context_names
        ]
        try:
            self._adapter: TypeAdapter[dict[str, Any]] = TypeAdapter(_collector(function, asked))
            self.schema = _described(_json_schema(self._adapter), descriptions)
        except (PydanticUserError, PydanticUndefinedAnnotation) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"Tool {name}: its type hints have no JSON form: {reason}") from error

    def convert(self, arguments: Json, context: ToolContext) -> dict[str, Any]:
        """The keyword arguments of the call that `arguments` ask for.

        Raises:
            ToolError: they do not fit; every violation is named.
        """
        try:
            # As JSON and not as Python values: strict models, too, take a date from a string then.
            values: dict[str, Any] = self._adapter.validate_json(to_json(arguments))
        except ValidationError as error:
            raise ToolError(f"Input validation failed: {_violations(error)}") from error
        except PydanticSerializationError as error:
            raise ToolError("Input validation failed: the arguments are no valid JSON") from error
        for name in self._context_names:
            values[name] = context
        return values


class _SchemaWithoutTitles(GenerateJsonSchema):
    """A title repeats the name of its parameter, and the model pays for it in every turn."""

    ignored_warning_kinds: set[JsonSchemaWarningKind] = {
        "skipped-choice",
        "non-serializable-default",
    }

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _json_schema(adapter: TypeAdapter[Any]) -> Json:
    return adapter.json_schema(schema_generator=_SchemaWithoutTitles)


def _described(schema: Json, descriptions: Mapping[str, str]) -> Json:
    """`schema` with the docstring's descriptions where the type hints give none."""
    for name, parameter in schema["properties"].items():
        if text := descriptions.get(name):
            parameter.setdefault("description", text)
    return schema


def _check(name: str, parameters: Mapping[str, inspect.Parameter]) -> None:
    for parameter in parameters.values():
        if refused := _REFUSED_KINDS.get(parameter.kind):
            raise ConfigError(
                f"Tool {name}: {refused.format(parameter.name)}; "
                "write each parameter out, with a type hint."
            )
        if parameter.annotation is parameter.empty:
            raise ConfigError(
                f"Tool {name}: give the parameter {parameter.name} a type hint; "
                "the model learns from it what to pass."
            )


def resolved_hints(
    function: Callable[..., Any],
    parameters: Mapping[str, inspect.Parameter],
    namespace: Mapping[str, Any],
) -> dict[str, Any]:
    """The types of the parameters; what the function returns may stay a name nobody knows.

    Raises:
        ConfigError: a hint names what does not exist.
    """

    def annotated() -> None: ...

    annotated.__annotations__ = {name: each.annotation for name, each in parameters.items()}
    # Often imported for type checkers only, as nothing at run time needs it: so it is always known.
    names = {"ToolContext": ToolContext, **inspect.unwrap(function).__globals__, **namespace}
    try:
        return get_type_hints(annotated, names, include_extras=True)
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        raise ConfigError(
            f"Tool {function.__qualname__}: a type hint cannot be resolved ({error}); "
            "what it names must exist at run time, so import it outside `if TYPE_CHECKING`."
        ) from error


def is_context(hint: Any) -> bool:
    """Whether a parameter with this hint gets the context of the call."""
    return hint in (ToolContext, ToolContext | None)


def _collector(function: Callable[..., Any], parameters: list[inspect.Parameter]) -> Any:
    """A function with these parameters that returns its arguments: what pydantic validates for."""

    def collect(**arguments: Any) -> dict[str, Any]:
        return arguments

    collect.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    collect.__annotations__ = {each.name: each.annotation for each in parameters}
    collect.__name__ = function.__name__
    collect.__qualname__ = function.__qualname__
    collect.__module__ = function.__module__
    return collect


def _violations(error: ValidationError) -> str:
    return "; ".join(
        f"{_path(each['loc'])}{_VIOLATIONS.get(each['type'], each['msg'])}"
        for each in error.errors(include_url=False, include_input=False, include_context=False)
    )


def _path(location: tuple[int | str, ...]) -> str:
    return f"{'.'.join(map(str, location))}: " if location else ""
