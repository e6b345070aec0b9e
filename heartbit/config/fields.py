"""What the tables are made of: strictness, secrets, and `$VAR` in the few fields that expand it.

Nothing here reads the environment: validation is handed it as its context.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler

MASK = "***"
MAX_WHOLE = 2**63 - 1
_VARIABLE = re.compile(r"\$(?:\$|(?P<bare>[A-Za-z_]\w*)|\{(?P<braced>\w+)\}|\{)", re.ASCII)
_PUBLIC_NAME = re.compile(r"[A-Z_][A-Z0-9_]*")
_AFTER_PATH = re.compile(r"[?#].*", re.DOTALL)


class Table(BaseModel):
    """A TOML table. Unknown keys and values of another type are errors; it never changes.

    The schema is built when the first value is validated, so importing a table costs little.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        defer_build=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )


class Verbatim(str):
    """Text from outside the file (a flag, the environment), where `$` stands for itself."""

    __slots__ = ()


class SecretUrl(SecretStr):
    """A URL whose user, password and query are shown to nobody."""

    def _display(self) -> str:
        return masked_url(self.get_secret_value())


def masked_url(url: str) -> str:
    """The URL with `***` for its user, its password and whatever follows its path."""
    scheme, slashes, rest = url.partition("://")
    if not slashes:
        return MASK
    # The last @: a password may hold every other character, escaped or not.
    _, at, host = rest.rpartition("@")
    shown = _AFTER_PATH.sub(lambda found: found[0][0] + MASK, host)
    return f"{scheme}://{MASK if at else ''}{at}{shown}"


def expand(value: object, info: ValidationInfo) -> object:
    """`$NAME` and `${NAME}` become the variable's value, `$$` a dollar.

    Raises:
        ValueError: a variable that is not set.
    """
    if not isinstance(value, str) or isinstance(value, Verbatim):
        return value
    return _VARIABLE.sub(partial(_variable, info.context or {}), value)


def _variable(environ: Any, found: re.Match[str]) -> str:
    if found[0] == "$$":
        return "$"
    name = found["bare"] or found["braced"]
    if not name:
        raise ValueError("has a '${' without a name and a '}'; write $$ for a dollar")
    if name not in environ:
        raise ValueError(
            f"names {_shown(name)}, which is not set; set it, or write $$ for a dollar"
        )
    return str(environ[name])


def _shown(name: str) -> str:
    # "pa$sWord" is more likely half of a password than the name of a variable.
    public = _PUBLIC_NAME.fullmatch(name)
    return f"the environment variable {name}" if public else "an environment variable"


def _not_blank(secret: SecretStr) -> SecretStr:
    if not secret.get_secret_value().strip():
        raise ValueError("is empty")
    return secret


def _web(url: SecretUrl) -> SecretUrl:
    if not _is_address(url, "http", "https"):
        raise ValueError("must be an address that starts with http:// or https://")
    return url


def _postgres(url: SecretUrl) -> SecretUrl:
    if not url.get_secret_value().startswith(("postgresql://", "postgres://")):
        raise ValueError("must be an address that starts with postgresql://")
    return url


def _is_address(url: SecretUrl, *schemes: str) -> bool:
    try:
        parts = urlsplit(url.get_secret_value())
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def broken_rule(message: str, *where: int | str) -> ValidationError:
    """A failed rule of a validator, at a place below the one that is validated."""
    details = InitErrorDetails(
        type=PydanticCustomError("rule", "{message}", {"message": message}), loc=where, input=None
    )
    return ValidationError.from_exception_data("rule", [details])


def first_repeated(names: list[str]) -> int | None:
    """The position of the first name that was there before."""
    return next((at for at, name in enumerate(names) if name in names[:at]), None)


class BuiltWhenUsed:
    """Marks a table most files don't have: its schema is built when one does."""

    def __get_pydantic_core_schema__(
        self, source: type[Table], _: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        def validate(value: object, info: ValidationInfo) -> Table:
            return source.model_validate(value, context=info.context)

        return core_schema.with_info_plain_validator_function(validate)


T = TypeVar("T")
Many = Annotated[tuple[T, ...], Field(strict=False)]
Count = Annotated[int, Field(ge=1, le=MAX_WHOLE)]
Repeats = Annotated[int, Field(ge=2, le=MAX_WHOLE)]
Amount = Annotated[int, Field(ge=0, le=MAX_WHOLE)]
Seconds = Annotated[float, Field(ge=1)]
Duration = Annotated[float, Field(gt=0)]
Text = Annotated[str, Field(min_length=1)]
AnyCase = BeforeValidator(_lower)
Expanded = Annotated[SecretStr, BeforeValidator(expand)]
Secret = Annotated[SecretStr, BeforeValidator(expand), AfterValidator(_not_blank)]
Url = Annotated[SecretUrl, BeforeValidator(expand), AfterValidator(_not_blank)]
WebUrl = Annotated[SecretUrl, BeforeValidator(expand), AfterValidator(_web)]
PostgresUrl = Annotated[SecretUrl, BeforeValidator(expand), AfterValidator(_postgres)]
