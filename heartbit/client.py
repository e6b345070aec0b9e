"""Durable runs from outside of any worker: submit, look, decide, cancel.

What is asked for is in the journal before anybody is told: a message that cannot be sent is sent by
the sweep of some worker. Nothing here does a step of a run.
"""

from __future__ import annotations

import atexit
import os
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from heartbit.apps import ensure_app
from heartbit.config import Config
from heartbit.core.agent import AgentDefinition, as_json
from heartbit.core.decisions import checked
from heartbit.core.events import (
    ApprovalRequested,
    ApprovalResolved,
    Decision,
    Event,
    RunStarted,
    RunStatus,
)
from heartbit.core.messages import Json, Usage
from heartbit.core.result import PendingApproval, RunOutput, including, pending_approval
from heartbit.core.run import replay
from heartbit.core.stream import RunIdentity, event_entry
from heartbit.embedded.address import find_running, state_directory
from heartbit.engines.durable import DurableEngine
from heartbit.engines.ids import run_id_of_task
from heartbit.engines.plan import RunPlace, root_run
from heartbit.engines.ports import Done, Outbox
from heartbit.errors import RunStateError, run_error
from heartbit.loop import BackgroundLoop
from heartbit.orchestrator import as_prompt
from heartbit.outbox import CeleryOutbox
from heartbit.runtime import database_url, load_config, redis_url
from heartbit.runtime import journal as process_journal
from heartbit.stores.journal import Approval, Journal, RunRow
from heartbit.stores.postgres import PostgresJournal
from heartbit.stores.records import ENDED, NewRun, calls_hash
from heartbit.stores.stream_reader import StreamItem, StreamReader
from heartbit.stores.streams import START
from heartbit.wiring import open_orchestrator

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 1.0
CONNECTIONS = 2
LOCAL_REDIS = "redis://localhost:6379/0"


class _ClientOutbox(CeleryOutbox):
    """The end of a run is published by the sweep: this process has no agents and no results."""

    def finished(self, run_id: str) -> None:
        """Nothing to do here."""


class Client:
    """The runs of one journal, opened with the agents of `config`."""

    def __init__(
        self,
        journal: Journal,
        config: Config,
        outbox: Outbox,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.journal = journal
        self._config = config
        self._clock = clock
        self._sleep = sleep
        self._engine = DurableEngine(journal=journal, outbox=outbox, work=_never, owner="client")

    def submit(
        self,
        prompt: Any,
        *,
        agent: str | None = None,
        run_id: str | None = None,
        approve: bool = False,
    ) -> RunHandle:
        """Open a run and have it started. A prompt that is no string is given as JSON.

        Args:
            run_id: the same id again gives the same run; without one it is new.
            approve: ask about every round of tools, whatever the permissions say.

        Raises:
            ConfigError: there is no such agent, or a tool cannot be had.
            RunStateError: the id belongs to a run with another prompt or agent.
        """
        task_id = run_id or str(uuid.uuid4())
        new = self.new_run(prompt, task_id=task_id, agent=agent, approve=approve)
        self.journal.open_run(new)
        self.send(new.run_id)
        return RunHandle(id=new.run_id, client=self)

    def new_run(
        self, prompt: Any, *, task_id: str, agent: str | None = None, approve: bool = False
    ) -> NewRun:
        """A run as it would be opened now, for whoever writes it into the journal.

        Raises:
            ConfigError: there is no such agent, or a tool cannot be had.
        """
        run_id = run_id_of_task(task_id)
        start = RunStarted(
            prompt=as_prompt(prompt), definition=self._resolve(agent, approve), blackboard=run_id
        )
        return root_run(RunPlace(run_id=run_id, root_run_id=run_id), start, task_id=task_id)

    def send(self, run_id: str) -> None:
        """Have the steps of an open run worked on that were never sent."""
        self._engine.resume(run_id)

    def run(self, run_id: str) -> RunHandle:
        """A run that exists.

        Raises:
            RunNotFound: it does not.
        """
        return RunHandle(id=self.journal.run(run_id).run_id, client=self)

    def output(self, run_id: str) -> RunOutput:
        """What a run has come to: its output, or how far it and its sub-runs are."""
        row = self.journal.run(run_id)
        if row.output is not None:
            return decode_output(row.output)
        tree = self._below(row)
        outputs = [self._engine.output(each.run_id) for each in tree if each.status not in ENDED]
        own = next(each for each in outputs if each.run_id == row.run_id)
        below = [each for each in outputs if each.run_id != row.run_id]
        status: RunStatus = "waiting" if only_waits(tree) else row.status
        pending = tuple(self.question(a) for each in tree for a in self._open_of(each))
        return replace(including(own, below), status=status, pending=pending)

    def approvals(self, run_id: str) -> tuple[Approval, ...]:
        """The open questions of a run and of all below it, oldest first."""
        tree = self._below(self.journal.run(run_id))
        found = [approval for row in tree for approval in self._open_of(row)]
        return tuple(sorted(found, key=lambda a: (a.requested_at, a.run_id)))

    def question(self, approval: Approval) -> PendingApproval:
        """What an approval asks, with the places of its calls in their turn."""
        for event in self.journal.events(approval.run_id):
            if isinstance(event, ApprovalRequested) and event.step == approval.step:
                return pending_approval(approval.run_id, approval.agent, event)
        raise RunStateError(f"The journal of run {approval.run_id} has no {approval.step}.")

    def decide(
        self, question: PendingApproval, decisions: Sequence[Decision], *, by: str | None = None
    ) -> None:
        """Answer a question, about exactly the calls that it shows, and have the run go on.

        Raises:
            InvalidDecision: not every call has one decision, or an edit could not be run.
            RunStateError: it was answered before, is about other calls by now, or has expired.
        """
        state, _ = replay(self.journal.events(question.run_id))
        fitting = checked(state, question, decisions)
        self.journal.decide(
            question.run_id,
            question.step,
            fitting,
            calls_hash=calls_hash(as_json(question.calls)),
            by=by,
        )
        event = ApprovalResolved(step=f"{question.step}/decision", decisions=fitting, decided_by=by)
        self._engine.resolve(question.run_id, event)

    def cancel(self, run_id: str) -> None:
        """Ask for the end of the whole tree of a run; one that has ended stays as it is."""
        self._engine.cancel(run_id)

    def wait(
        self, run_id: str, seconds: float | None = None, *, for_humans: bool = True
    ) -> RunOutput:
        """The output of a run when it has ended, or when the time is over.

        With `for_humans=False` also when it only waits for a human.
        """
        until = None if seconds is None else self._clock() + seconds
        pause = FIRST_PAUSE_SECONDS
        while True:
            row = self.journal.run(run_id)
            left = LONGEST_PAUSE_SECONDS if until is None else until - self._clock()
            waits = not for_humans and only_waits(self._below(row))
            if row.output is not None or waits or left <= 0:
                return self.output(run_id)
            self._sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def entries(self, run_id: str) -> Iterator[Json]:
        """All journals of a run and those below it, as `on_event` tells them, run by run."""
        for row in self._below(self.journal.run(run_id)):
            yield from entries_of(row, self.journal.events(row.run_id))

    def follow(self, run_id: str, offset: str | None = None) -> AsyncGenerator[StreamItem]:
        """Everything that a run tree says after an offset, until its root has ended.

        Raises:
            ConfigError: it is no offset.
        """
        url = redis_url(self._config) or LOCAL_REDIS
        return StreamReader(url, self.journal).follow(run_id, offset or START)

    def _below(self, row: RunRow) -> list[RunRow]:
        """The run and everything it has started, parents first."""
        found: dict[str, RunRow] = {}
        for each in self.journal.tree(row.run_id):
            if each.run_id == row.run_id or each.parent_run_id in found:
                found[each.run_id] = each
        return list(found.values())

    def _open_of(self, row: RunRow) -> list[Approval]:
        if row.status in ENDED:
            return []
        return [a for a in self.journal.approvals(row.run_id) if a.decided_at is None]

    def _resolve(self, agent: str | None, approve: bool) -> AgentDefinition:
        """In a loop of its own: the caller may be in one, and MCP servers need one."""
        loop = BackgroundLoop()
        try:
            return loop.run(_resolved(self._config, agent, approve))
        finally:
            loop.stop()


@dataclass(frozen=True, kw_only=True, slots=True)
class RunHandle:
    """A durable run, from any process that reaches the journal."""

    id: str
    client: Client

    def status(self) -> RunStatus:
        """Where it stands; `waiting` when only a human can let it go on."""
        return self.client.output(self.id).status

    def events(self) -> list[Json]:
        """Its journal so far and those of the runs below it, as `on_event` tells them."""
        return list(self.client.entries(self.id))

    def pending(self) -> tuple[PendingApproval, ...]:
        """What waits for a human: exactly the calls that would be run."""
        return self.client.output(self.id).pending

    def approve(
        self,
        question: PendingApproval,
        *,
        edits: Mapping[int, Json] | None = None,
        by: str | None = None,
    ) -> None:
        """Let all calls of a question run, those at the positions of `edits` with other arguments.

        Raises:
            InvalidDecision: an edit could not be run.
            RunStateError: it was answered before, is about other calls by now, or has expired.
        """
        changed = edits or {}
        places = [*question.positions, *(p for p in changed if p not in question.positions)]
        decisions = [
            Decision(position=p, verdict="edit", arguments=changed[p])
            if p in changed
            else Decision(position=p, verdict="approve")
            for p in places
        ]
        self.client.decide(question, decisions, by=by)

    def deny(
        self, question: PendingApproval, *, reason: str | None = None, by: str | None = None
    ) -> None:
        """Let no call of a question run; the model reads the reason.

        Raises:
            RunStateError: it was answered before, is about other calls by now, or has expired.
        """
        decisions = [
            Decision(position=p, verdict="deny", reason=reason) for p in question.positions
        ]
        self.client.decide(question, decisions, by=by)

    def cancel(self) -> None:
        """End it and everything below it; an ended run stays as it is."""
        self.client.cancel(self.id)

    def result(self, timeout: float | None = None) -> RunOutput:
        """Wait for the end, at most `timeout` seconds.

        Raises:
            TimeoutError: it has not ended by then; it goes on.
            RunError: it failed or was cancelled; the error's `output` tells what was used.
        """
        output = self.client.wait(self.id, timeout)
        if output.status not in ENDED:
            raise TimeoutError(f"Run {self.id} is {output.status} after {timeout:g} seconds.")
        if output.status != "succeeded":
            failure = run_error(output.error_code or "", output.error or output.status)
            failure.output = output
            raise failure
        return output


def submit(
    prompt: Any,
    *,
    agent: str | None = None,
    run_id: str | None = None,
    approve: bool = False,
    config: Config | None = None,
) -> RunHandle:
    """Open a durable run and return at once; see `Client.submit`.

    Without a `config` it is that of this process: $HEARTBIT_CONFIG, else ./heartbit.toml.

    Raises:
        ConfigError: there is no database, no such agent, or a tool cannot be had.
        RunStateError: the id belongs to a run with another prompt or agent.
    """
    return connect(config).submit(prompt, agent=agent, run_id=run_id, approve=approve)


def connect(config: Config | None = None) -> Client:
    """The runs of the configured database; without any, of the `heartbit dev` that runs here.

    Raises:
        ConfigError: there is no database.
    """
    if config is not None:
        journal = PostgresJournal(database_url(config), pool_size=CONNECTIONS)
        ensure_app()
        atexit.register(journal.close)
        return Client(journal, config, _ClientOutbox())
    settled = local_config()
    database_url(settled)
    ensure_app()
    return Client(process_journal(), settled, _ClientOutbox())


def local_config() -> Config:
    """The configuration of this process, with the servers of `heartbit dev` where it has none.

    Raises:
        ConfigError: it is not valid.
    """
    lend(os.environ, load_config())
    return load_config()


def lend(environ: MutableMapping[str, str], config: Config) -> None:
    """Have this process use the servers of a running `heartbit dev` for what has no address."""
    running = find_running(state_directory(environ))
    if running is None:
        return
    if config.database.url is None and running.database_url:
        environ["HEARTBIT_DATABASE_URL"] = running.database_url
    if config.celery.broker_url is None and running.broker_url:
        environ["CELERY_BROKER_URL"] = running.broker_url


def only_waits(tree: Sequence[RunRow]) -> bool:
    """Whether nothing below a run, itself included, goes on before a human has decided."""
    still_open = [row for row in tree if row.status not in ENDED]
    parents = {row.parent_run_id for row in still_open}
    return bool(still_open) and all(
        row.status == "waiting" or row.run_id in parents for row in still_open
    )


def decode_output(stored: Json) -> RunOutput:
    """The output of an ended run, as the journal keeps it."""
    return RunOutput(**stored | {"usage": Usage(**stored["usage"])})


def entries_of(row: RunRow, events: Sequence[Event]) -> Iterator[Json]:
    """The events of one run as entries."""
    identity = RunIdentity(
        run_id=row.run_id,
        root_run_id=row.root_run_id,
        parent_run_id=row.parent_run_id,
        agent=row.agent,
    )
    for seq, event in enumerate(events, 1):
        yield event_entry(identity, seq, event)


async def _resolved(config: Config, agent: str | None, approve: bool) -> AgentDefinition:
    async with open_orchestrator(config, approve=approve) as orchestrator:
        return (await orchestrator.resolve(agent)).definition


def _never(*_: object) -> Done:
    raise AssertionError("a client does no step of a run")
