"""heartbit: the runtime that makes LLM agents durable on Celery.

Names are loaded when they are first used: importing heartbit imports nothing else, and never a
Celery application.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heartbit.agent import Agent, Limits
    from heartbit.apps import install
    from heartbit.client import RunEvents, RunHandle, stream, submit
    from heartbit.core.agent import ContextStrategy, PermissionRule, SessionPrune
    from heartbit.core.events import Decision
    from heartbit.core.messages import Usage
    from heartbit.core.result import PendingApproval, RunOutput
    from heartbit.core.retry import RetryPolicy
    from heartbit.core.tools import ToolOutput
    from heartbit.errors import (
        ConfigError,
        HeartbitError,
        JournalError,
        ProviderError,
        RunError,
        ToolError,
    )
    from heartbit.orchestrator import Orchestrator
    from heartbit.providers.anthropic import AnthropicProvider
    from heartbit.providers.cascade import CascadingProvider
    from heartbit.providers.openai import OpenAIProvider, OpenRouterProvider
    from heartbit.providers.retry import RetryingProvider
    from heartbit.providers.scripted import ScriptedProvider
    from heartbit.stores.memories.in_memory import InMemoryMemories
    from heartbit.stores.memories.postgres import PostgresMemories
    from heartbit.tools.base import ToolContext
    from heartbit.tools.function import tool
    from heartbit.tools.mcp import McpServer
    from heartbit.tools.memory import Memories

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "AnthropicProvider",
    "CascadingProvider",
    "ConfigError",
    "ContextStrategy",
    "Decision",
    "HeartbitError",
    "InMemoryMemories",
    "JournalError",
    "Limits",
    "McpServer",
    "Memories",
    "OpenAIProvider",
    "OpenRouterProvider",
    "Orchestrator",
    "PendingApproval",
    "PermissionRule",
    "PostgresMemories",
    "ProviderError",
    "RetryPolicy",
    "RetryingProvider",
    "RunError",
    "RunEvents",
    "RunHandle",
    "RunOutput",
    "ScriptedProvider",
    "SessionPrune",
    "ToolContext",
    "ToolError",
    "ToolOutput",
    "Usage",
    "install",
    "stream",
    "submit",
    "tool",
]

_HOMES = {
    "heartbit.agent": ("Agent", "Limits"),
    "heartbit.apps": ("install",),
    "heartbit.client": ("RunEvents", "RunHandle", "stream", "submit"),
    "heartbit.core.agent": ("ContextStrategy", "PermissionRule", "SessionPrune"),
    "heartbit.core.events": ("Decision",),
    "heartbit.core.messages": ("Usage",),
    "heartbit.core.result": ("PendingApproval", "RunOutput"),
    "heartbit.core.retry": ("RetryPolicy",),
    "heartbit.core.tools": ("ToolOutput",),
    "heartbit.errors": (
        "ConfigError",
        "HeartbitError",
        "JournalError",
        "ProviderError",
        "RunError",
        "ToolError",
    ),
    "heartbit.orchestrator": ("Orchestrator",),
    "heartbit.providers.anthropic": ("AnthropicProvider",),
    "heartbit.providers.cascade": ("CascadingProvider",),
    "heartbit.providers.openai": ("OpenAIProvider", "OpenRouterProvider"),
    "heartbit.providers.retry": ("RetryingProvider",),
    "heartbit.providers.scripted": ("ScriptedProvider",),
    "heartbit.stores.memories.in_memory": ("InMemoryMemories",),
    "heartbit.stores.memories.postgres": ("PostgresMemories",),
    "heartbit.tools.base": ("ToolContext",),
    "heartbit.tools.function": ("tool",),
    "heartbit.tools.mcp": ("McpServer",),
    "heartbit.tools.memory": ("Memories",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load a public name from its home."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
