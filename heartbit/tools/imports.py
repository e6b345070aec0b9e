"""Finding what a person names as `package.module:attribute`."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from heartbit.errors import ConfigError
from heartbit.tools.spec import near_misses

_REFERENCE = re.compile(r"([\w.]+):([\w.]+)")


def is_reference(text: str) -> bool:
    """Whether it has the form `module:attribute`."""
    return _REFERENCE.fullmatch(text) is not None


def load_attribute(reference: str) -> Any:
    """What stands at `module:attribute`.

    The module is imported with the working directory first on `sys.path`, as the celery command
    does.

    Raises:
        ConfigError: there is no such module or attribute, or importing it failed.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise ConfigError(f"{reference!r} is not of the form module:attribute.")
    module_name, path = match.groups()
    return _attribute(_import(module_name), path)


def _import(name: str) -> ModuleType:
    try:
        with _working_directory_on_path():
            return importlib.import_module(name)
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(_import_failure(name, error)) from error


def _import_failure(name: str, error: BaseException) -> str:
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing and f"{name}.".startswith(f"{missing}."):
        return f"there is no module {missing}, neither installed nor in the working directory."
    return f"importing {name} failed: {type(error).__name__}: {error}"


@contextmanager
def _working_directory_on_path() -> Iterator[None]:
    directory = os.getcwd()
    if directory in sys.path:
        yield
        return
    sys.path.insert(0, directory)
    try:
        yield
    finally:
        sys.path.remove(directory)


def _attribute(module: ModuleType, path: str) -> Any:
    value: Any = module
    for name in path.split("."):
        if not hasattr(value, name):
            public = [each for each in dir(value) if not each.startswith("_")]
            raise ConfigError(
                f"{module.__name__} has no attribute {path}.{near_misses(name, public)}"
            )
        value = getattr(value, name)
    return value
