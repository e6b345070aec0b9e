"""From a configuration to what is put on stage: its agents, without their models and tools.

The agents keep everything that the rules look at: prompts, limits, permissions, schemas, effects.
A model is replaced by a script, and a tool by a stub that notes its calls, unless it only touches
heartbit's own tables: blackboards and memories are real. No key is needed, nothing is paid, and no
tool of the user's ever runs.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from heartbit.apps import celery_tool
from heartbit.chaos.script import script_for
from heartbit.config import Config, load
from heartbit.config.environment import CONFIG_FILE, PROVIDER_KEYS
from heartbit.config.fields import SecretUrl
from heartbit.config.memory import EmbeddingTable
from heartbit.config.models import DatabaseTable
from heartbit.config.provider import ProviderTable
from heartbit.core.agent import AgentDefinition, as_json
from heartbit.core.events import RunRouted
from heartbit.core.messages import Completion, Json
from heartbit.core.request import ModelRequest
from heartbit.core.tools import MEMORY_REFS, ToolOutput, ToolSpec
from heartbit.errors import ConfigError
from heartbit.orchestrator import Orchestrator, Resolved
from heartbit.providers.base import Listener
from heartbit.providers.scripted import ScriptedProvider
from heartbit.tools.base import BoundTool, Tool, ToolContext
from heartbit.tools.blackboard import BLACKBOARD_TOOLS
from heartbit.tools.imports import load_attribute
from heartbit.tools.memory import Memories, memory_tools
from heartbit.wiring import DEMO_SCRIPT, open_orchestrator

# Long enough that calls which are begun together are under way together.
SECONDS_PER_CALL = 0.02
NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"
NO_BROKER = "redis://127.0.0.1:1/0"
NO_KEY = "no key"
UNSET = {"DATABASE_URL": NOWHERE} | dict.fromkeys(PROVIDER_KEYS.values(), NO_KEY)
REAL = {tool.spec.ref: tool for tool in BLACKBOARD_TOOLS}


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """What processes of one chaos need to know of the agents; it can be sent to them.

    `script` is the `module:attribute` of a function that says what models reply; without one it is
    made up from the tools that the agents have.
    """

    definition: AgentDefinition
    script: str | None = None

    @property
    def agents(self) -> tuple[AgentDefinition, ...]:
        """All agents that may run."""
        return (self.definition, *self.definition.delegates)

    @property
    def remembers(self) -> bool:
        """Whether any of the agents has memories."""
        return any(agent.memory is not None for agent in self.agents)

    @property
    def tools(self) -> Iterator[ToolSpec]:
        """All tools that may be called."""
        return (spec for agent in self.agents for spec in agent.tools)


def read_config(path: Path) -> Config:
    """The configuration of a file, for this process and whatever it imports.

    From now on it sees no server of the person's, and misses no key: what `$DATABASE_URL` and the
    keys' variables do not say need not be said.

    Raises:
        ConfigError: the file is not valid.
    """
    os.environ[CONFIG_FILE] = str(path)
    os.environ["HEARTBIT_DATABASE_URL"] = NOWHERE
    os.environ["CELERY_BROKER_URL"] = os.environ["CELERY_RESULT_BACKEND"] = NO_BROKER
    for variable, instead in UNSET.items():
        os.environ.setdefault(variable, instead)
    return load(path, os.environ).config


def build_stage(config: Config, *, agent: str | None = None, script: str | None = None) -> Stage:
    """The stage for what a configuration describes; MCP servers are asked for their tools.

    Raises:
        ConfigError: there is no such agent or script, or a tool cannot be had.
    """
    if script is not None and not callable(load_attribute(script)):
        raise ConfigError(f"{script} is no function of a request.")
    definition = asyncio.run(_resolved(_without_services(config), agent))
    return Stage(definition=_with_stubs(definition), script=script)


async def _resolved(config: Config, agent: str | None) -> AgentDefinition:
    async with open_orchestrator(config, celery_tasks=celery_tool) as orchestrator:
        return (await orchestrator.resolve(agent)).definition


def _without_services(config: Config) -> Config:
    """The same without models, and with a database that nobody connects to."""
    nobody = ProviderTable.model_construct(name="scripted", model=DEMO_SCRIPT)
    agents = tuple(each.model_copy(update={"provider": None}) for each in config.agents)
    nowhere = DatabaseTable(url=SecretUrl(NOWHERE))
    instead = {"provider": nobody, "agents": agents, "pricing": {}, "database": nowhere}
    if config.memory is not None:
        here = {"type": "in_memory", "embedding": EmbeddingTable()}
        instead["memory"] = config.memory.model_copy(update=here)
    return config.model_copy(update=instead)


def _with_stubs(definition: AgentDefinition) -> AgentDefinition:
    delegates = tuple(_with_stubs(each) for each in definition.delegates)
    tools = tuple(_stubbed(spec) for spec in definition.tools)
    return replace(definition, tools=tools, delegates=delegates)


def _stubbed(spec: ToolSpec) -> ToolSpec:
    """The same for the rules; what is in doubt is told to the model, for there is no human."""
    if spec.ref in REAL or spec.ref.startswith(MEMORY_REFS):
        return spec
    return replace(spec, ref=f"chaos:{spec.ref}", on_doubt="tell_model")


class StagedOrchestrator(Orchestrator):
    """What a runtime asks of an orchestrator, answered for a stage."""

    def __init__(self, stage: Stage, directory: Path, memories: Memories | None = None) -> None:
        self._stage = stage
        self._real = REAL | {t.spec.ref: t for t in (memory_tools(memories) if memories else ())}
        self._notes = Notes(directory)
        reply: Any = load_attribute(stage.script) if stage.script else script_for(stage.definition)
        super().__init__(provider=NotingProvider(ScriptedProvider(reply), self._notes.request))

    async def resolve(self, agent: str | None = None) -> Resolved:
        """The definition of the stage, whoever is asked for."""
        why = RunRouted(decision="single_agent", selected_agent="", reason="It is on stage.")
        tools = {spec.ref: self._tool(spec) for spec in self._stage.tools} | self._real
        return Resolved(definition=self._stage.definition, routed=why, tools=tools)

    def _tool(self, spec: ToolSpec) -> Tool:
        async def run(arguments: Json, context: ToolContext) -> ToolOutput:
            self._notes.call(spec, context)
            await asyncio.sleep(SECONDS_PER_CALL)
            return ToolOutput(content=f"{spec.name} is done.")

        return BoundTool(spec=spec, run=run)


class NotingProvider:
    """Notes each request before it is served."""

    def __init__(self, provider: ScriptedProvider, note: Callable[[ModelRequest], None]) -> None:
        self._provider = provider
        self._note = note
        self.name = provider.name
        self.model = provider.model

    async def complete(self, request: ModelRequest, listener: Listener | None = None) -> Completion:
        """As the provider does."""
        self._note(request)
        await asyncio.sleep(SECONDS_PER_CALL)
        return await self._provider.complete(request, listener)


class Notes:
    """What models were asked and tools have done, line by line, whoever is killed meanwhile."""

    def __init__(self, directory: Path) -> None:
        self._requests = directory / "requests"
        self._calls = directory / "calls"

    def request(self, request: ModelRequest) -> None:
        """A model is asked."""
        append_line(self._requests, fingerprint(request))

    def call(self, spec: ToolSpec, context: ToolContext) -> None:
        """A tool is called."""
        entry = {"run_id": context.run_id, "step": context.step, "effect": spec.effect}
        append_line(self._calls, json.dumps(entry | {"tool": spec.name}))

    def requests(self) -> list[str]:
        """All requests so far."""
        return read_lines(self._requests)

    def calls(self) -> list[Json]:
        """All calls so far."""
        return [json.loads(line) for line in read_lines(self._calls)]


def fingerprint(request: ModelRequest) -> str:
    """What tells one request from another."""
    asked = replace(request, tried=None)  # that is about how it is asked
    text = json.dumps(as_json(asked), sort_keys=True)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def append_line(path: Path, line: str) -> None:
    """One write to the end of a file, which several processes may do at once."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)


def read_lines(path: Path) -> list[str]:
    """The lines of a file; none if there is no such file."""
    return path.read_text().splitlines() if path.exists() else []
