"""Functions beside a tool's own: what it prepares before a call, and how it asks about a lost one.

Such a function takes the parameters of the tool that it needs, by name, and the context.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from heartbit.errors import ConfigError
from heartbit.tools.arguments import is_context, resolved_hints
from heartbit.tools.base import ToolContext
from heartbit.tools.threads import in_thread


class Companion:
    """A function that is called with some of a tool's arguments; a plain `def` in a thread.

    Raises:
        ConfigError: it has a parameter that the tool does not have.
    """

    def __init__(
        self, function: Callable[..., Any], known: Collection[str], namespace: Mapping[str, Any]
    ) -> None:
        self._function = function
        parameters = inspect.signature(function).parameters
        hinted = {n: p for n, p in parameters.items() if p.annotation is not p.empty}
        hints = resolved_hints(function, hinted, namespace)
        self._contexts = [name for name, hint in hints.items() if is_context(hint)]
        self._names = [name for name in parameters if name not in self._contexts]
        for name in self._names:
            if name not in known:
                raise ConfigError(
                    f"{function.__qualname__} has a parameter {name}, which is none of its tool's "
                    f"({', '.join(known) or 'it has none'}); one for the context is annotated "
                    "ToolContext."
                )

    async def run(self, values: Mapping[str, Any], context: ToolContext) -> Any:
        """What the function makes of the arguments of a call."""
        chosen = {name: values[name] for name in self._names if name in values}
        chosen |= dict.fromkeys(self._contexts, context)
        call = functools.partial(self._function, **chosen)
        if inspect.iscoroutinefunction(self._function):
            return await call()
        return await in_thread(call, self._function.__name__)
