"""What every tool is: a spec the rules know, and a coroutine that does the work."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from heartbit.core.messages import Json
from heartbit.core.tools import ToolOutput, ToolSpec

if TYPE_CHECKING:
    from heartbit.stores.base import Blackboard


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolContext:
    """What a tool may know of the call it serves.

    `idempotency_key` (`run_id/step`) is the same for every attempt of the call. `connection` is the
    open transaction of a transactional tool, and None everywhere else; `prepared` is what such a
    tool has prepared before it was opened. `notes` is a blackboard that only this run sees.
    `scratch` lives as long as the agent's run in this process (a shell's working directory, the
    files it has read): each agent has its own, and nothing in it survives the process.
    """

    run_id: str = ""
    root_run_id: str = ""
    agent: str = ""
    step: str = ""
    attempt: int = 1
    tenant_id: str | None = None
    user_id: str | None = None
    workspace: Path | None = None
    blackboard: Blackboard | None = None
    notes: Blackboard | None = None
    connection: Any = None
    prepared: Any = None
    scratch: dict[str, Any] = field(default_factory=dict)

    @property
    def idempotency_key(self) -> str:
        """Stable over attempts: pass it to whatever can refuse to do the same thing twice."""
        return f"{self.run_id}/{self.step}"


class Tool(Protocol):
    """An executable tool. It may raise anything: a ToolError's text reaches the model as it is."""

    @property
    def spec(self) -> ToolSpec:
        """The description for the rules and the model."""

    async def call(self, arguments: Json, context: ToolContext) -> ToolOutput:
        """Do the work on arguments that were validated against the spec's schema."""


class TransactionalTool(Tool, Protocol):
    """A tool that writes to tables of its own, through `context.connection` and nowhere else."""

    async def prepare_call(self, arguments: Json, context: ToolContext) -> Any:
        """Do what is slow before the transaction is opened; it may be done more than once."""


class ProbingTool(Tool, Protocol):
    """A tool that can find out whether a call has happened; its spec says `probe`."""

    async def probe_call(self, arguments: Json, context: ToolContext) -> ToolOutput | None:
        """The output of the call if it has happened, None if it certainly has not.

        Whatever is raised means that nobody knows.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class BoundTool:
    """A spec with a coroutine function: the shape of every tool of our own."""

    spec: ToolSpec
    run: Callable[[Json, ToolContext], Awaitable[ToolOutput]]

    async def call(self, arguments: Json, context: ToolContext) -> ToolOutput:
        """Do the work on validated arguments."""
        return await self.run(arguments, context)
