"""Flags that several commands have, and the configuration they lead to."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from heartbit.config import Loaded

F = TypeVar("F", bound=Callable[..., Any])


def run_flags(function: F) -> F:
    """What can be said about a run."""
    for option in reversed(
        [
            click.option("--approve", is_flag=True, help="Ask about every tool call first."),
            click.option("-v", "--verbose", is_flag=True, help="Print every event on stderr."),
            click.option("--model", metavar="M", help="The model, in place of the configured one."),
            click.option(
                "--provider", metavar="P", help="anthropic, openrouter, openai or scripted."
            ),
        ]
    ):
        function = option(function)
    return function


def load_config(file: str | None, flags: Mapping[str, object]) -> Loaded:
    """The configuration, flags included.

    Raises:
        ConfigError: it is not valid.
    """
    from heartbit.config import find_config, load

    overrides = {"provider.name": flags.get("provider"), "provider.model": flags.get("model")}
    return load(find_config(file, os.environ), os.environ, overrides=overrides)
