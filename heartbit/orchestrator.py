"""`Orchestrator`: agents in one process, from Python; the command line stands on it, too."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from heartbit.agent import Agent, Limits, check_response_schema, define, settled_limits
from heartbit.core.agent import AgentDefinition, DispatchMode, MemoryPolicy, PermissionRule
from heartbit.core.delegation import ORCHESTRATOR_PROMPT
from heartbit.core.events import RunRouted, RunStarted
from heartbit.core.messages import Json
from heartbit.core.owner import NOBODY, Owner
from heartbit.core.result import RunOutput
from heartbit.core.routing import ORCHESTRATOR, Routing, RoutingMode, route
from heartbit.core.tools import ToolSpec
from heartbit.engines.standalone import Approver, OnEvent, OnText, StandaloneRun, World
from heartbit.errors import ConfigError, run_error
from heartbit.providers.base import Provider
from heartbit.stores.tool_database import ToolDatabase
from heartbit.toolbox import CeleryTasks, find_tools, put_in
from heartbit.tools.base import Tool
from heartbit.tools.blackboard import BLACKBOARD_TOOLS
from heartbit.tools.mcp import McpConnections
from heartbit.tools.registry import CELERY_TASK, DURABLE_ONLY, ToolOptions

if TYPE_CHECKING:
    from heartbit.tools.knowledge import Searchable
    from heartbit.tools.memory import Memories

_logger = logging.getLogger("heartbit")


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """What a run is opened with: the definition, why this agent, and the tools by their `ref`."""

    definition: AgentDefinition
    routed: RunRouted
    tools: Mapping[str, Tool]


class Orchestrator:
    """Runs agents on prompts. Runs are independent: any number may be under way at once.

    MCP servers are connected to for each run; inside `async with orchestrator:` they stay connected
    between runs.

    Args:
        provider: serves the orchestrator, and every agent without a provider of its own.
        agents: who can be given work; the first one is the one of `single_agent`.
        routing: `auto` gives the prompt to the agent if there is one only.
        limits: for the orchestrator, and for what an agent leaves open.
        response_schema: the structure of the result, whoever gives it; without one a single agent
            answers in its own.
        celery_tasks: looks up tools listed as `celery:task.name`, which only durable runs can have.
        database_url: where transactional tools have their tables, as postgresql://...
        memories: what the agents remember; each of them gets the memory tools.
        knowledge: documents that the agents can search; each of them gets `knowledge_search`.
        approver: decides about calls that need a human; without one such a run ends `waiting`.
        on_text: hears the text of the agent that answers the prompt.
        on_event: hears every event and every text of all agents, as JSON objects. What it,
            `on_text` or `approver` raises stops the run and comes out of `run`.
        on_warning: hears what a person should know; by default the logger `heartbit` does.

    Raises:
        ConfigError: two agents have one name, or the response_schema is of no use.
    """

    def __init__(
        self,
        *,
        provider: Provider,
        agents: Sequence[Agent] = (),
        routing: RoutingMode = "auto",
        dispatch_mode: DispatchMode = "parallel",
        squads: bool = True,
        limits: Limits | None = None,
        response_schema: Json | None = None,
        permissions: Sequence[PermissionRule] = (),
        approve: bool = False,
        approver: Approver | None = None,
        tool_options: Sequence[ToolOptions] = (),
        celery_tasks: CeleryTasks | None = None,
        workspace: Path | str | None = None,
        database_url: str | None = None,
        memories: Memories | None = None,
        knowledge: Searchable | None = None,
        on_text: OnText | None = None,
        on_event: OnEvent | None = None,
        on_warning: Callable[[str], None] | None = None,
    ) -> None:
        _check_names(agents)
        check_response_schema(response_schema)
        self._provider = provider
        self._agents = tuple(agents)
        self._routing = routing
        self._dispatch_mode = dispatch_mode
        self._squads = squads
        self._limits = limits or Limits()
        self._response_schema = response_schema
        self._permissions = tuple(permissions)
        self._approve = approve
        self._approver = approver
        self._tool_options = {options.name: options for options in tool_options}
        self._celery_tasks = celery_tasks
        self._workspace = Path(workspace) if workspace is not None else None
        self._database = ToolDatabase(database_url) if database_url else None
        self._memories = memories
        self._common_tools = (
            *(_memory_tools(memories) if memories else ()),
            *(_knowledge_tools(knowledge) if knowledge else ()),
        )
        self._on_text = on_text
        self._on_event = on_event
        self._warn = on_warning or _logger.warning
        self._connections: McpConnections | None = None
        self._told: set[str] = set()

    async def __aenter__(self) -> Self:
        self._connections = await McpConnections().__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        connections, self._connections = self._connections, None
        self._told = set()
        self._close_database()
        if connections is not None:
            await connections.__aexit__(kind, error, trace)

    async def run(self, prompt: Any) -> RunOutput:
        """Run to the end. A prompt that is no string is given to the agent as JSON.

        A run that needs a human whom nobody can ask comes back with status `waiting` and the
        calls in `pending`.

        Raises:
            ConfigError: a tool cannot be had.
            RunError: the run failed; its `output` tells what was used until then.
        """
        async with self.opened(prompt) as run:
            await run.drive()
        output = run.output
        if output.status == "failed":
            failure = run_error(output.error_code or "", output.error or "")
            failure.output = output
            raise failure
        return output

    @asynccontextmanager
    async def opened(
        self,
        prompt: Any,
        *,
        run_id: str | None = None,
        agent: str | None = None,
        owner: Owner = NOBODY,
    ) -> AsyncIterator[StandaloneRun]:
        """A run that is ready to be driven, for those who watch it or may stop it on its way."""
        async with self._connected() as connections:
            resolved = await self._resolve(connections, agent)
            _check_standalone(resolved.tools)
            run = StandaloneRun(
                self._world(resolved.tools, owner),
                RunStarted(prompt=as_prompt(prompt), definition=resolved.definition),
                run_id=run_id,
                routed=resolved.routed,
            )
            yield run
            if self._memories is not None and run.succeeded:
                from heartbit.engines.memories import pruned

                await pruned(self._memories.store)

    async def resolve(self, agent: str | None = None) -> Resolved:
        """The definition a run would be opened with now, for whoever runs it by other means.

        Only inside `async with orchestrator`: the tools stay usable as long as that block. With
        `agent`, the run is given to that one, whatever the routing says.

        Raises:
            ConfigError: there is no such agent, or a tool cannot be had.
        """
        async with self._connected() as connections:
            return await self._resolve(connections, agent)

    async def _resolve(self, connections: McpConnections, agent: str | None) -> Resolved:
        routing = self._route(agent)
        agents = self._involved(routing)
        found = await asyncio.gather(
            *(
                find_tools(a.tools, connections, self._tool_options, self._celery_tasks)
                for a in agents
            )
        )
        self._tell([*connections.warnings, *(w for each in found for w in each.warnings)])
        executables: dict[str, Tool] = {each.spec.ref: each for each in BLACKBOARD_TOOLS}
        specs = [put_in(self._with_common(each.tools), executables) for each in found]
        if self._database is None:
            _check_without_database(executables)
        return Resolved(
            definition=self._definition(routing, agents, specs),
            routed=RunRouted(
                decision=routing.decision,
                selected_agent=routing.agent,
                reason=routing.reason,
            ),
            tools=executables,
        )

    def _with_common(self, tools: Sequence[Tool]) -> tuple[Tool, ...]:
        """An agent's tools and those that all agents have, but for names that it uses itself."""
        taken = {each.spec.name for each in tools}
        return (*tools, *(each for each in self._common_tools if each.spec.name not in taken))

    def _tell(self, warnings: Sequence[str]) -> None:
        """Pass warnings on; while the connections stay open, each of them once."""
        for warning in warnings:
            if warning not in self._told:
                self._warn(warning)
        self._told = {*self._told, *warnings} if self._connections is not None else set()

    def _route(self, agent: str | None) -> Routing:
        names = [each.name for each in self._agents]
        if agent is None or agent == ORCHESTRATOR:
            return route("always_orchestrate" if agent else self._routing, names)
        if agent in names:
            return Routing(decision="single_agent", agent=agent, reason="The caller named it.")
        raise ConfigError(
            f"There is no agent {agent!r}; there are {', '.join([*names, ORCHESTRATOR])}."
        )

    @property
    def providers(self) -> Mapping[str, Provider]:
        """Who serves whom: by the `provider` of a definition."""
        own = {agent.name: agent.provider for agent in self._agents if agent.provider}
        return {"default": self._provider, **own}

    @property
    def workspace(self) -> Path | None:
        """The directory of the built-in tools."""
        return self._workspace

    @property
    def memories(self) -> Memories | None:
        """What the agents remember."""
        return self._memories

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[McpConnections]:
        if self._connections is not None:
            yield self._connections
            return
        async with McpConnections() as connections:
            try:
                yield connections
            finally:
                self._close_database()

    def _close_database(self) -> None:
        if self._database is not None:
            self._database.close()

    def _involved(self, routing: Routing) -> tuple[Agent, ...]:
        if routing.decision == "orchestrate":
            return self._agents
        return tuple(agent for agent in self._agents if agent.name == routing.agent)

    def _definition(
        self, routing: Routing, agents: Sequence[Agent], specs: Sequence[tuple[ToolSpec, ...]]
    ) -> AgentDefinition:
        alone = routing.decision == "single_agent"
        defined = tuple(
            define(
                agent,
                specs=own,
                shared=self._limits,
                default_model=self._provider.model,
                permissions=self._permissions,
                approve=self._approve,
                is_root=alone,
                memory=self._memory_policy,
            )
            for agent, own in zip(agents, specs, strict=True)
        )
        if not alone:
            return self._orchestrator(defined)
        schema = self._response_schema or defined[0].response_schema
        return replace(defined[0], response_schema=schema)

    @property
    def _memory_policy(self) -> MemoryPolicy | None:
        memories = self._memories
        return MemoryPolicy(consolidate_on_exit=memories.consolidate_on_exit) if memories else None

    def _orchestrator(self, delegates: tuple[AgentDefinition, ...]) -> AgentDefinition:
        board = tuple(each.spec for each in BLACKBOARD_TOOLS)
        sharing = tuple(replace(d, tools=_with_board(d.tools, board)) for d in delegates)
        return AgentDefinition(
            name=ORCHESTRATOR,
            system_prompt=ORCHESTRATOR_PROMPT if delegates else "",
            model=self._provider.model,
            delegates=sharing,
            dispatch_mode=self._dispatch_mode,
            squads=self._squads,
            response_schema=self._response_schema,
            permissions=self._permissions,
            approve=self._approve,
            **settled_limits(self._limits, self._limits, is_root=True),  # type: ignore[arg-type]
        )

    def _world(self, executables: Mapping[str, Tool], owner: Owner) -> World:
        return World(
            providers=self.providers,
            tools=executables,
            workspace=self._workspace,
            approver=self._approver,
            on_event=self._on_event,
            on_text=self._on_text,
            owner=owner,
            tables=self._database.tables if self._database else None,
            memories=self._memories,
        )


def _memory_tools(memories: Memories) -> Sequence[Tool]:
    from heartbit.tools.memory import memory_tools  # most runs have none, and start sooner

    return memory_tools(memories)


def _knowledge_tools(knowledge: Searchable) -> Sequence[Tool]:
    from heartbit.tools.knowledge import knowledge_tool

    return [knowledge_tool(knowledge)]


def as_prompt(value: Any) -> str:
    """What an agent is told: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _check_without_database(tools: Mapping[str, Tool]) -> None:
    for each in tools.values():
        if each.spec.effect == "transactional" and hasattr(each, "prepare_call"):
            raise ConfigError(
                f"Tool {each.spec.name} is transactional: it needs a database. Set url in "
                "[database] or $HEARTBIT_DATABASE_URL, or database_url of the Orchestrator."
            )


def _check_standalone(tools: Mapping[str, Tool]) -> None:
    """A process that was made for durable runs knows Celery tasks, but cannot wait for them."""
    if ref := next((ref for ref in tools if ref.startswith(CELERY_TASK)), None):
        raise ConfigError(f"Tool {ref}: {DURABLE_ONLY}")


def _check_names(agents: Sequence[Agent]) -> None:
    names = [agent.name for agent in agents]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"Two agents are called {name!r}; a name must be unique.")
        if name in (ORCHESTRATOR, "default"):
            raise ConfigError(f"No agent can be called {name!r}: heartbit uses that name itself.")


def _with_board(tools: tuple[ToolSpec, ...], board: tuple[ToolSpec, ...]) -> tuple[ToolSpec, ...]:
    """Agents that work together share a blackboard; one that lists its tools has them already."""
    names = {tool.name for tool in tools}
    return tools + tuple(tool for tool in board if tool.name not in names)
