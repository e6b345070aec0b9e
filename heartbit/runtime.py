"""What one process of a fleet holds: journal, agents and tools, shared by all its Celery tasks.

Made at its first use, never at import, and keyed by process: a forked child makes its own.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from heartbit.config import Config, find_config, load
from heartbit.core.commands import Command
from heartbit.core.events import Event
from heartbit.core.state import RunState
from heartbit.core.stream import RunIdentity
from heartbit.engines.durable import DurableEngine, Outbox
from heartbit.engines.perform import Outside, perform
from heartbit.engines.plan import RunPlace
from heartbit.errors import ConfigError
from heartbit.loop import BackgroundLoop, background_loop
from heartbit.orchestrator import Orchestrator, Resolved
from heartbit.stores.board import JournalBlackboard
from heartbit.stores.journal import Journal
from heartbit.stores.postgres import PostgresJournal
from heartbit.tools.base import Tool
from heartbit.wiring import open_orchestrator

SCRATCH_RUNS = 1024


class Runtime:
    """The engine of this process with everything it works with."""

    def __init__(
        self,
        *,
        journal: Journal,
        outbox: Outbox,
        orchestrator: Orchestrator,
        resources: AsyncExitStack,
        loop: BackgroundLoop,
        lease_seconds: float,
    ) -> None:
        self.journal = journal
        self.engine = DurableEngine(
            journal=journal,
            outbox=outbox,
            work=self._work,
            owner=f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}",
            lease_seconds=lease_seconds,
        )
        self._orchestrator = orchestrator
        self._resources = resources
        self._loop = loop
        self._tools: dict[str, Tool] = {}
        self._scratch: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def resolve(self, agent: str | None = None) -> Resolved:
        """The definition that a run is opened with now.

        Raises:
            ConfigError: there is no such agent, or a tool cannot be had.
        """
        resolved = self._loop.run(self._orchestrator.resolve(agent))
        self._tools |= resolved.tools
        return resolved

    def close(self) -> None:
        """Close all connections of this process."""
        self._loop.run(self._resources.aclose())
        self.journal.close()

    def _work(self, command: Command, state: RunState, place: RunPlace) -> Event:
        if not self._tools:
            self.resolve("orchestrator")
        event = self._loop.run(perform(command, state, self._outside(state, place)))
        assert event is not None  # noqa: S101 - only a sub-run has its outcome later
        return event

    def _outside(self, state: RunState, place: RunPlace) -> Outside:
        providers: Mapping[str, Any] = self._orchestrator.providers
        return Outside(
            identity=RunIdentity(
                run_id=place.run_id,
                root_run_id=place.root_run_id,
                parent_run_id=place.parent_run_id,
                agent=state.definition.name,
            ),
            provider=providers.__getitem__,
            tool=lambda spec: self._tools.get(spec.ref),
            blackboard=lambda scope: JournalBlackboard(self.journal, scope, place.run_id),
            sub_run=_never,
            listener=lambda step: None,
            workspace=self._orchestrator.workspace,
            scratch=self._scratch_of(place.run_id),
            tenant_id=place.tenant_id,
            user_id=place.user_id,
        )

    def _scratch_of(self, run_id: str) -> dict[str, Any]:
        with self._lock:
            scratch = self._scratch.setdefault(run_id, {})
            self._scratch.move_to_end(run_id)
            if len(self._scratch) > SCRATCH_RUNS:
                self._scratch.popitem(last=False)
            return scratch


async def _never(command: object) -> Event | None:
    raise AssertionError("a sub-run of the durable engine is a run of its own")


def configured(config: Config, outbox: Outbox) -> Runtime:
    """The runtime that a configuration describes.

    Raises:
        ConfigError: it says nothing of a database, or something it names cannot be had.
    """
    if config.database.url is None:
        raise ConfigError(
            "Durable runs need a PostgreSQL database: set [database] url in heartbit.toml, or "
            "$DATABASE_URL."
        )
    loop = background_loop()
    stack = AsyncExitStack()
    orchestrator = loop.run(stack.enter_async_context(open_orchestrator(config)))
    return Runtime(
        journal=PostgresJournal(config.database.url.get_secret_value()),
        outbox=outbox,
        orchestrator=orchestrator,
        resources=stack,
        loop=loop,
        lease_seconds=config.celery.lease_seconds,
    )


def load_config() -> Config:
    """The configuration of this process: $HEARTBIT_CONFIG, else ./heartbit.toml, else defaults."""
    path: Path | None = find_config(None, os.environ)
    return load(path, os.environ).config
