"""The composition root: from a configuration to providers, agents and an orchestrator.

The only module that knows both what heartbit.toml says and what it is made into.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from heartbit.agent import Agent, Limits
from heartbit.config import Config
from heartbit.config.agents import AgentTable, LimitsTable, McpHttpTable, ToolTable
from heartbit.config.environment import PROVIDER_KEYS
from heartbit.config.memory import EmbeddingTable, MemoryTable
from heartbit.config.provider import ProviderTable
from heartbit.core.agent import ContextStrategy, PermissionRule, SessionPrune
from heartbit.core.cascade import Gate
from heartbit.core.pricing import Price
from heartbit.core.retry import RetryPolicy
from heartbit.engines.standalone import Approver, OnEvent, OnText
from heartbit.errors import ConfigError
from heartbit.orchestrator import Orchestrator
from heartbit.providers.base import Provider
from heartbit.providers.cascade import CascadingProvider
from heartbit.providers.http import HttpClient, Timeouts
from heartbit.providers.priced import PricedProvider
from heartbit.providers.retry import RetryingProvider
from heartbit.toolbox import CeleryTasks
from heartbit.tools.imports import load_attribute
from heartbit.tools.mcp import McpServer
from heartbit.tools.registry import ToolOptions

if TYPE_CHECKING:
    from heartbit.library import Library
    from heartbit.providers.embedder import Embedder
    from heartbit.stores.memories.base import MemoryStore
    from heartbit.tools.knowledge import Searchable
    from heartbit.tools.memory import Memories

DEMO_SCRIPT = "heartbit.demo.script:reply"

_logger = logging.getLogger("heartbit")


@asynccontextmanager
async def open_orchestrator(
    config: Config,
    *,
    approve: bool = False,
    approver: Approver | None = None,
    on_text: OnText | None = None,
    on_event: OnEvent | None = None,
    on_warning: Callable[[str], None] | None = None,
    on_indexing: Callable[[int, int], None] | None = None,
    celery_tasks: CeleryTasks | None = None,
    durable: bool = False,
) -> AsyncIterator[Orchestrator]:
    """The orchestrator that `config` describes; its connections are closed at the end.

    Args:
        approve: ask about every round of tools of every agent, whatever the permissions say.
        on_indexing: hears how many of how many documents have been looked at.
        durable: for runs of many processes: memories are in a database, and documents are indexed
            by `heartbit knowledge index`, not by the first search.

    Raises:
        ConfigError: something that the configuration names cannot be had.
    """
    async with AsyncExitStack() as stack:
        http = HttpClient()
        stack.push_async_callback(http.aclose)
        orchestrator = Orchestrator(
            provider=build_provider(config.provider, config, http),
            agents=[build_agent(table, config, http) for table in config.agents],
            routing=config.orchestrator.routing,
            dispatch_mode=config.orchestrator.dispatch_mode,
            squads=config.orchestrator.enable_squads is not False,
            limits=build_limits(config.orchestrator),
            permissions=build_permissions(config),
            approve=approve,
            approver=approver,
            tool_options=[build_options(table) for table in config.tools],
            celery_tasks=celery_tasks,
            workspace=_workspace(config),
            database_url=_revealed(config.database.url) or memory_url(config),
            memories=_memories(config, http, stack, durable),
            knowledge=_knowledge(config, http, stack, durable, on_warning, on_indexing),
            on_text=on_text,
            on_event=on_event,
            on_warning=on_warning,
        )
        yield await stack.enter_async_context(orchestrator)


def _memories(
    config: Config, http: HttpClient, stack: AsyncExitStack, durable: bool
) -> Memories | None:
    if config.memory is None:
        return None
    if durable and config.memory.type == "in_memory":
        raise ConfigError(
            "Memories of type in_memory end with their process, and a durable run has many "
            "processes: set type to postgres in [memory]."
        )
    memories = build_memories(config.memory, memory_url(config), http)
    stack.callback(memories.store.close)
    return memories


def _knowledge(
    config: Config,
    http: HttpClient,
    stack: AsyncExitStack,
    durable: bool,
    on_warning: Callable[[str], None] | None,
    on_indexing: Callable[[int, int], None] | None,
) -> Searchable | None:
    if config.knowledge is None:
        return None
    from heartbit.library import knowledge_of

    knowledge = knowledge_of(
        build_library(config, http),
        refreshed=not durable,
        on_warning=on_warning or _logger.warning,
        on_progress=on_indexing,
    )
    stack.push_async_callback(knowledge.aclose)
    return knowledge


def build_library(config: Config, http: HttpClient) -> Library:
    """Where the documents of [knowledge] are kept, and what keeps them up to date.

    Raises:
        ConfigError: the embedding model cannot be had.
    """
    from heartbit.library import open_library

    embedding = config.memory.embedding if config.memory else EmbeddingTable()
    return open_library(config, build_embedder(embedding, http))


def memory_url(config: Config) -> str | None:
    """The database that memories are kept in, if they are.

    Raises:
        ConfigError: there is none, or it is not the one that runs have.
    """
    if config.memory is None or config.memory.type == "in_memory":
        return None
    own, shared = _revealed(config.memory.database_url), _revealed(config.database.url)
    if own is None and shared is None:
        raise ConfigError(
            "Memories of type postgres need a database: set database_url in [memory], or url in "
            "[database]."
        )
    if own and shared and own != shared:
        raise ConfigError(
            "database_url in [memory] is another database than url in [database]; memories are "
            "kept in one transaction with the run, so leave database_url out."
        )
    return own or shared


def stored_memories(config: Config, http: HttpClient | None = None) -> Memories:
    """The memories in the configured database, for those who look after them.

    Raises:
        ConfigError: they are in no database, or there is none.
    """
    table = config.memory or MemoryTable(type="postgres")
    if table.type == "in_memory":
        raise ConfigError(
            "Memories of type in_memory end with the process that has them; set type to postgres "
            "in [memory] to look at them from outside."
        )
    url = memory_url(config.model_copy(update={"memory": table}))
    return build_memories(table, url, http or HttpClient())


def build_memories(table: MemoryTable, url: str | None, http: HttpClient) -> Memories:
    """What agents remember, as a table says; `url` is that of type postgres.

    Raises:
        ConfigError: the embedding model cannot be had.
    """
    from heartbit.core.memory import Weights
    from heartbit.tools.memory import Memories

    store: MemoryStore
    if url is None:
        from heartbit.stores.memories.in_memory import InMemoryMemories

        store = InMemoryMemories()
    else:
        from heartbit.stores.memories.postgres import PostgresMemories

        store = PostgresMemories.at(url)
    return Memories(
        store=store,
        embedder=build_embedder(table.embedding, http),
        weights=Weights(**table.weights.model_dump()),
        reflection_threshold=table.reflection_threshold,
        consolidate_on_exit=table.consolidate_on_exit,
    )


def build_embedder(table: EmbeddingTable, http: HttpClient) -> Embedder | None:
    """The embedding model of a table; None if texts are found by their words only.

    Raises:
        ConfigError: it wants a key or a package that is not there.
    """
    if table.provider == "none":
        return None
    named: dict[str, Any] = {"model": table.model} if table.model else {}
    if table.provider == "local":
        from heartbit.providers.local_embedder import LocalEmbedder

        return LocalEmbedder(cache_dir=table.cache_dir, **named)
    key = os.environ.get(table.api_key_env)
    if not key and table.base_url is None:
        raise ConfigError(
            f"There is no API key for embeddings: set ${table.api_key_env}, or base_url in "
            "[memory.embedding] for a server that needs none."
        )
    from heartbit.providers.embeddings import OpenAIEmbedder, RetryingEmbedder

    embedder = OpenAIEmbedder(
        api_key=key or None,
        base_url=_revealed(table.base_url),
        dimension=table.dimension,
        http=http,
        **named,
    )
    return RetryingEmbedder(embedder, RetryPolicy())


def _workspace(config: Config) -> Path:
    return Path(config.workspace.root).expanduser().absolute()


def build_provider(table: ProviderTable, config: Config, http: HttpClient) -> Provider:
    """The provider of a table: tiers, each with its own retries, and prices around it all."""
    policy = RetryPolicy(
        max_retries=table.retry.max_retries,
        base_delay_ms=table.retry.base_delay_ms,
        max_delay_ms=table.retry.max_delay_ms,
    )
    tiers = [RetryingProvider(build_adapter(tier, http), policy) for tier in table.tiers()]
    provider: Provider = tiers[0]
    if len(tiers) > 1:
        provider = CascadingProvider(tiers, Gate(**table.cascade.gate.model_dump()))
    if not config.pricing:
        return provider
    prices = {model: Price(**price.model_dump()) for model, price in config.pricing.items()}
    return PricedProvider(provider, prices)


def build_adapter(table: ProviderTable, http: HttpClient) -> Provider:
    """The adapter of one provider, without anything around it.

    Raises:
        ConfigError: the provider wants a key and there is none.
    """
    _check_key(table)
    common: dict[str, Any] = {
        "model": table.model,
        "api_key": _revealed(table.api_key),
        "base_url": _revealed(table.base_url),
        "http": http,
        "timeouts": Timeouts(**table.timeouts.model_dump()),
    }
    match table.name:
        case "anthropic":
            from heartbit.providers.anthropic import AnthropicProvider

            return AnthropicProvider(prompt_caching=table.prompt_caching, **common)
        case "openrouter":
            from heartbit.providers.openai import OpenRouterProvider

            return OpenRouterProvider(**common)
        case "openai":
            from heartbit.providers.openai import OpenAIProvider

            return OpenAIProvider(**common)
        case "scripted":
            return _scripted(table.model)


def _check_key(table: ProviderTable) -> None:
    """A server at an address of one's own may want no key; the providers themselves do."""
    variable = PROVIDER_KEYS.get(table.name)
    if variable and table.api_key is None and table.base_url is None:
        raise ConfigError(
            f"There is no API key for {table.name}: set ${variable}, or api_key in [provider]; "
            "`--provider scripted` answers without one."
        )


def _scripted(model: str) -> Provider:
    """A scripted provider; its model is the `module:attribute` of a script, or the demo's."""
    from heartbit.providers.scripted import ScriptedProvider

    script = load_attribute(model if ":" in model else DEMO_SCRIPT)
    if not callable(script) and not isinstance(script, list | tuple):
        raise ConfigError(f"{model} is no script: a script is a function or a list of replies.")
    return ScriptedProvider(script, model=model)


def build_agent(table: AgentTable, config: Config, http: HttpClient) -> Agent:
    """The agent of a table, with its tools still as they are named."""
    own = build_provider(config.provider_of(table), config, http) if table.provider else None
    servers = [_mcp_server(server) for server in table.mcp_servers]
    prune = table.session_prune
    return Agent(
        name=table.name,
        description=table.description,
        system_prompt=table.system_prompt,
        tools=[*table.tools, *servers],
        provider=own,
        response_schema=table.response_schema,
        session_prune=SessionPrune(**prune.model_dump()) if prune else None,
        **_limits(table),
    )


def _mcp_server(table: Any) -> McpServer:
    if isinstance(table, McpHttpTable):
        url, header = _revealed(table.url), _revealed(table.auth_header)
        return McpServer(url, auth_header=header, mode=table.mode)
    env = {name: value.get_secret_value() for name, value in table.env.items()}
    return McpServer(command=table.command, args=table.args, env=env)


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def build_limits(table: LimitsTable) -> Limits:
    """The limits that `[orchestrator]` sets, for itself and for what agents leave open."""
    return Limits(**_limits(table))


def _limits(table: LimitsTable) -> dict[str, Any]:
    names = (
        "max_turns",
        "max_tokens",
        "max_total_tokens",
        "run_timeout_seconds",
        "tool_timeout_seconds",
        "approval_timeout_seconds",
        "max_tool_output_bytes",
        "max_identical_tool_calls",
        "reasoning_effort",
        "tool_profile",
    )
    limits = {name: getattr(table, name) for name in names}
    return limits | {"context_strategy": _context_strategy(table)}


def _context_strategy(table: LimitsTable) -> ContextStrategy | None:
    if table.summarize_threshold is not None:
        return ContextStrategy(type="summarize", threshold=table.summarize_threshold)
    if table.context_strategy is None:
        return None
    return ContextStrategy(**table.context_strategy.model_dump())


def build_options(table: ToolTable) -> ToolOptions:
    """What a `[[tools]]` entry says about a tool."""
    return ToolOptions(**table.model_dump())


def build_permissions(config: Config) -> tuple[PermissionRule, ...]:
    """The `[[permissions]]` in their order."""
    return tuple(PermissionRule(**rule.model_dump()) for rule in config.permissions)
