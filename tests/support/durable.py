"""The durable engine for parity scripts: real Celery messages, a real journal, a real worker."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
from celery import Celery

from heartbit import runtime as process
from heartbit.core.events import Event, RunRouted, RunStarted
from heartbit.core.memory import Memory
from heartbit.core.result import PendingApproval
from heartbit.engines.plan import RunPlace
from heartbit.engines.recovery import resolution
from heartbit.loop import background_loop
from heartbit.orchestrator import Resolved
from heartbit.outbox import CeleryOutbox
from heartbit.providers.anthropic import AnthropicProvider
from heartbit.providers.base import Provider
from heartbit.runtime import Runtime
from heartbit.stores.memories.postgres import PostgresMemories
from heartbit.stores.postgres import PostgresJournal
from heartbit.stores.records import Approval
from heartbit.tools.memory import Memories
from tests.support.model_server import ModelServer
from tests.support.parity import Asked, Outcome, Script, answers

SECONDS = 30
"""When a script that hangs is given up."""
OPEN_WORK = """
    select count(*) from steps join runs on runs.id = steps.run_id
     where runs.root_run_id = %s and steps.state in ('pending', 'running')
"""


@dataclass(frozen=True)
class FixedOrchestrator:
    """What a runtime asks of an orchestrator, for one script."""

    providers: Mapping[str, Provider]
    workspace: Path | None
    resolved: Resolved

    async def resolve(self, agent: str | None = None) -> Resolved:
        """The script's agent."""
        return self.resolved


@dataclass(frozen=True)
class DurableEngineUnderTest:
    """Runs scripts on the worker of `app`."""

    app: Celery
    database: str
    batch_seconds: float | None = None

    def __call__(self, script: Script) -> Outcome:
        with ModelServer(answers(script)) as server, self._runtime(script, server) as made:
            run_id = str(uuid.uuid4())
            place = RunPlace(run_id=run_id, root_run_id=run_id)
            start = RunStarted(prompt=script.prompt, definition=script.agent, blackboard=run_id)
            made.engine.open(place, start, task_id=run_id)
            made.engine.resume(run_id)
            self._wait(made, script, run_id)
            outcome = self._outcome(made, run_id, server)
            return replace(outcome, remembered=self._remembered()) if script.remembers else outcome

    def _remembered(self) -> list[Memory]:
        store = PostgresMemories.at(self.database)
        try:
            return list(store.export())
        finally:
            store.close()

    @contextmanager
    def _runtime(self, script: Script, server: ModelServer) -> Iterator[Runtime]:
        provider = AnthropicProvider(model="test-model", api_key="test-key", base_url=server.url)
        memories = None
        if script.remembers:
            memories = Memories(store=PostgresMemories.at(self.database))
        resolved = Resolved(
            definition=script.agent,
            routed=RunRouted(decision="single_agent", selected_agent="", reason="A script's."),
            tools=script.executables(memories),
        )
        made = Runtime(
            journal=PostgresJournal(self.database),
            outbox=CeleryOutbox(),
            orchestrator=FixedOrchestrator({"default": provider}, None, resolved),  # type: ignore[arg-type]
            resources=AsyncExitStack(),
            loop=background_loop(),
            lease_seconds=15,
            batch_seconds=self.batch_seconds,
            memories=memories,
        )
        process.use(made)
        made.sweep.start()
        try:
            yield made
        finally:
            process.close()
            if memories is not None:
                memories.store.close()
            background_loop().run(provider.aclose())

    def _wait(self, made: Runtime, script: Script, run_id: str) -> None:
        deadline = time.monotonic() + SECONDS
        with psycopg.connect(self.database, autocommit=True) as connection:
            while not _ended(made, run_id):
                assert time.monotonic() < deadline, "the run does not end"
                asked = [a for a in made.journal.open_approvals() if a.root_run_id == run_id]
                if asked and script.decide is not None:
                    self._decide(made, script, asked[0])
                elif asked and not _count(connection, run_id):
                    return
                time.sleep(0.01)

    def _decide(self, made: Runtime, script: Script, approval: Approval) -> None:
        assert script.decide is not None
        decisions = script.decide(question(made, approval))
        made.journal.decide(
            approval.run_id, approval.step, decisions, calls_hash=approval.calls_hash, by="script"
        )
        decided = replace(approval, decided_by=None)
        made.engine.resolve(approval.run_id, resolution(decided, tuple(decisions)))

    def _outcome(self, made: Runtime, run_id: str, server: ModelServer) -> Outcome:
        journal = made.journal
        journals: dict[str, list[Event]] = {}
        for row in journal.tree(run_id):
            journals[row.step_in_parent or ""] = list(journal.events(row.run_id))
        output = made.engine.output(run_id)
        pending = [a for a in journal.open_approvals() if a.root_run_id == run_id]
        if pending:
            questions = tuple(question(made, approval) for approval in pending)
            output = replace(output, status="waiting", pending=questions)
        keys = journal.board_keys(run_id)
        return Outcome(
            output=output,
            journals=journals,
            asked=[Asked(request.json) for request in server.requests],
            blackboard={key: journal.board_read(run_id, key)[0] for key in keys},
        )


def question(made: Runtime, approval: Approval) -> PendingApproval:
    """An approval as a script is asked about it."""
    state = made.engine.progress(approval.run_id).state
    positions = [c.position for c in state.calls if c.fate == "ask" and c.asked == approval.step]
    return PendingApproval(
        run_id=approval.run_id,
        agent=approval.agent,
        step=approval.step,
        calls=approval.calls,
        positions=tuple(positions),
    )


def _ended(made: Runtime, run_id: str) -> bool:
    return made.journal.run(run_id).status in ("succeeded", "failed", "cancelled")


def _count(connection: Any, run_id: str) -> int:
    row = connection.execute(OPEN_WORK, [run_id]).fetchone()
    return int(row[0])
