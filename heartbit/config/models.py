"""heartbit.toml as one value: the root of the tables, and the small tables beside agents.

The text below a field is its entry in the reference. No I/O, no environment: load.py hands both in.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import Field, ValidationInfo, field_validator

from heartbit.config.agents import (
    ORCHESTRATOR,
    AgentTable,
    OrchestratorTable,
    PermissionTable,
    ToolTable,
)
from heartbit.config.fields import (
    BuiltWhenUsed,
    Count,
    Many,
    PostgresUrl,
    Seconds,
    Table,
    Text,
    Url,
    broken_rule,
    first_repeated,
)
from heartbit.config.knowledge import KnowledgeTable
from heartbit.config.later import (
    DaemonTable,
    HeartbeatTable,
    RestateTable,
    ScheduleTable,
    TelemetryTable,
)
from heartbit.config.memory import MemoryTable
from heartbit.config.provider import ProviderTable, inherited

N = TypeVar("N", AgentTable, ToolTable)


class CeleryTable(Table):
    """Durable runs: the message broker and how steps become Celery tasks."""

    broker_url: Url | None = None
    """Where Celery tasks are queued."""
    result_backend: Url | None = None
    """Where Celery keeps results."""
    steps: Literal["each", "batched"] = "each"
    """Whether each step is a Celery task, or one task goes on while it can."""
    lease_seconds: Seconds = 15
    """Seconds without a sign of life before another worker takes a step over."""
    batch_seconds: Seconds = 60
    """Seconds after which a batch hands on at the next step."""
    max_active_runs: Count | None = None
    """Submitted runs at work at a time, sub-agents not counted; the others wait as `queued`. A run
    that waits for a human is not at work. All processes that open runs must say the same."""


class DatabaseTable(Table):
    """Durable runs: the database of the journal."""

    url: PostgresUrl | None = None
    """The Postgres database."""


class WorkspaceTable(Table):
    """The directory that the built-in tools see."""

    root: Text = "."
    """The directory; `~` is the home directory. Nothing outside it can be reached."""


class PriceTable(Table):
    """What a model costs, in US dollars."""

    input_per_million: Annotated[float, Field(ge=0)]
    """A million input tokens."""
    output_per_million: Annotated[float, Field(ge=0)]
    """A million output tokens."""
    cache_read_per_million: Annotated[float, Field(ge=0)] | None = None
    """A million tokens read from the cache; like other input when not given."""
    cache_write_per_million: Annotated[float, Field(ge=0)] | None = None
    """A million tokens written to the cache; like other input when not given."""


class Config(Table):
    """Everything heartbit.toml can say."""

    provider: ProviderTable
    """Who serves the model."""
    orchestrator: OrchestratorTable = OrchestratorTable.model_construct()
    """The agent that hands work to the others."""
    agents: Many[AgentTable] = ()
    """The agents that do the work."""
    tools: Many[ToolTable] = ()
    """Options of single tools."""
    permissions: Many[PermissionTable] = ()
    """What may happen to tool calls."""
    celery: CeleryTable = CeleryTable.model_construct()
    """Durable runs: the message broker."""
    database: DatabaseTable = DatabaseTable.model_construct()
    """Durable runs: the journal."""
    workspace: WorkspaceTable = WorkspaceTable.model_construct()
    """The directory of the built-in tools."""
    pricing: dict[str, PriceTable] = {}
    """What models cost, by their names."""
    memory: Annotated[MemoryTable, BuiltWhenUsed()] | None = None
    """What agents remember."""
    knowledge: Annotated[KnowledgeTable, BuiltWhenUsed()] | None = None
    """Documents that agents can search."""
    daemon: Annotated[DaemonTable, BuiltWhenUsed()] | None = None
    """The HTTP API and what starts runs by itself."""
    telemetry: Annotated[TelemetryTable, BuiltWhenUsed()] | None = None
    """Traces."""
    heartbeat: Annotated[HeartbeatTable, BuiltWhenUsed()] | None = None
    """An agent that works towards a goal."""
    restate: Annotated[RestateTable, BuiltWhenUsed()] | None = None
    """Accepted for old files."""

    @field_validator("agents")
    @classmethod
    def _agents_differ(cls, agents: tuple[AgentTable, ...]) -> tuple[AgentTable, ...]:
        return _differ(agents, "is the name of another agent too")

    @field_validator("tools")
    @classmethod
    def _tools_differ(cls, tools: tuple[ToolTable, ...]) -> tuple[ToolTable, ...]:
        return _differ(tools, "is the name of another [[tools]] entry too")

    @field_validator("daemon")
    @classmethod
    def _schedules_have_agents(
        cls, daemon: DaemonTable | None, info: ValidationInfo
    ) -> DaemonTable | None:
        if daemon is None or "agents" not in info.data:  # wrong agents are told by themselves
            return daemon
        known = [*(agent.name for agent in info.data["agents"]), ORCHESTRATOR]
        for at, schedule in enumerate(daemon.schedules):
            if schedule.agent not in (None, *known):
                message = f"names {schedule.agent!r}, but there are only {', '.join(known)}"
                raise broken_rule(message, "schedules", at, "agent")
        return daemon

    @property
    def schedules(self) -> tuple[ScheduleTable, ...]:
        """What starts runs by itself."""
        return self.daemon.schedules if self.daemon else ()

    def provider_of(self, agent: AgentTable) -> ProviderTable:
        """The provider that serves `agent`: its own, or the one of the file."""
        return inherited(agent.provider, self.provider) if agent.provider else self.provider


def _differ(entries: tuple[N, ...], message: str) -> tuple[N, ...]:
    at = first_repeated([entry.name for entry in entries])
    if at is not None:
        raise broken_rule(message, at, "name")
    return entries
