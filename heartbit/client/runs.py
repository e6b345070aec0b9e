"""`Client`: the runs of one journal, for a program that does no step of them."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from heartbit.apps import celery_tool
from heartbit.client.events import RunEvents
from heartbit.client.handle import RunHandle
from heartbit.client.outputs import decode_output, entries_of, only_waits
from heartbit.config import Config
from heartbit.core.agent import AgentDefinition, as_json
from heartbit.core.decisions import checked
from heartbit.core.events import (
    ApprovalRequested,
    ApprovalResolved,
    Decision,
    Origin,
    RunStarted,
    RunStatus,
)
from heartbit.core.fork import fork
from heartbit.core.messages import Json
from heartbit.core.owner import NOBODY, Owner
from heartbit.core.result import PendingApproval, RunOutput, including, pending_approval
from heartbit.core.run import replay
from heartbit.engines.durable import DurableEngine
from heartbit.engines.ids import run_id_of_task
from heartbit.engines.plan import RunPlace, root_run
from heartbit.engines.ports import Announce, Done, Outbox
from heartbit.errors import RunStateError
from heartbit.loop import BackgroundLoop
from heartbit.orchestrator import as_prompt
from heartbit.runtime import LOCAL_REDIS, redis_url
from heartbit.stores.journal import Approval, Journal, RunRow
from heartbit.stores.records import ENDED, NewRun, calls_hash
from heartbit.stores.stream_reader import StreamItem, StreamReader
from heartbit.stores.streams import START
from heartbit.wiring import open_orchestrator

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 1.0


class Client:
    """The runs of one journal, opened with the agents of `config`."""

    def __init__(
        self,
        journal: Journal,
        config: Config,
        outbox: Outbox,
        *,
        announce: Announce | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.journal = journal
        self._config = config
        self._clock = clock
        self._sleep = sleep
        self._max_active_runs = config.celery.max_active_runs
        self._engine = DurableEngine(
            journal=journal,
            outbox=outbox,
            work=_never,
            owner="client",
            announce=announce,
            max_active_runs=self._max_active_runs,
        )

    def submit(
        self,
        prompt: Any,
        *,
        agent: str | None = None,
        run_id: str | None = None,
        approve: bool = False,
        tenant_id: str | None = None,
        user_id: str | None = None,
        priority: int = 0,
    ) -> RunHandle:
        """Open a run and have it started. A prompt that is no string is given as JSON.

        Args:
            run_id: the same id again gives the same run; without one it is new.
            approve: ask about every round of tools, whatever the permissions say.
            tenant_id: whose run it is: callers of other tenants do not see it. Tools are told.
            user_id: for which of the tenant's users; tools are told.
            priority: the highest comes first where runs wait for their admission.

        Raises:
            ConfigError: there is no such agent, or a tool cannot be had.
            RunStateError: the id belongs to a run with another prompt, agent or tenant.
        """
        owner = Owner(tenant_id=tenant_id, user_id=user_id, priority=priority)
        task_id = run_id or str(uuid.uuid4())
        new = self.new_run(prompt, task_id=task_id, agent=agent, approve=approve, owner=owner)
        return self._open(new)

    def new_run(
        self,
        prompt: Any,
        *,
        task_id: str,
        agent: str | None = None,
        approve: bool = False,
        owner: Owner = NOBODY,
    ) -> NewRun:
        """A run as it would be opened now, for whoever writes it into the journal.

        Raises:
            ConfigError: there is no such agent, or a tool cannot be had.
        """
        run_id = run_id_of_task(task_id)
        start = RunStarted(
            prompt=as_prompt(prompt), definition=self._resolve(agent, approve), blackboard=run_id
        )
        place = RunPlace(
            run_id=run_id,
            root_run_id=run_id,
            tenant_id=owner.tenant_id,
            user_id=owner.user_id,
        )
        return self._root_run(place, start, task_id=task_id, priority=owner.priority)

    def fork(
        self,
        run_id: str,
        from_turn: int,
        *,
        model: str | None = None,
        prompt: str | None = None,
    ) -> RunHandle:
        """Open a run that keeps everything before a turn of another one, and asks that turn anew.

        What the kept turns did is not done again: results of tools and of sub-agents are those of
        the first run, and count in the usage as they did there. The run is for the same tenant and
        user, and its blackboard has what was on that of the first one by then.

        Args:
            model: asked from that turn on, by the agent and all sub-agents of the same provider.
            prompt: what the conversation begins with; kept turns stay below it as they were.

        Raises:
            RunNotFound: there is no such run.
            RunStateError: it has no such turn, it is a sub-run, or its turns before that one do
                not fit the prompt.
        """
        row = self.journal.run(run_id)
        if row.parent_run_id is not None:
            raise RunStateError(f"Run {row.run_id} is a sub-run: fork {row.root_run_id}, its root.")
        origin, new_id = Origin(run_id=row.run_id, turn=from_turn), str(uuid.uuid4())
        events = self.journal.events(row.run_id)
        forked = fork(events, origin, blackboard=new_id, model=model, prompt=prompt)
        place = RunPlace(
            run_id=new_id, root_run_id=new_id, tenant_id=row.tenant_id, user_id=row.user_id
        )
        return self._open(self._root_run(place, forked.start, task_id=new_id, kept=forked.kept))

    def send(self, run_id: str) -> None:
        """Have the steps of an open run worked on that were never sent."""
        self._engine.resume(run_id)

    def _root_run(self, place: RunPlace, start: RunStarted, **options: Any) -> NewRun:
        return root_run(place, start, held=self._max_active_runs is not None, **options)

    def _open(self, new: NewRun) -> RunHandle:
        self._engine.open_run(new)
        self.send(new.run_id)
        return RunHandle(id=new.run_id, client=self)

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
        return self._reader().follow(run_id, offset or START)

    def stream(self, run_id: str, *, after: str | None = None) -> RunEvents:
        """The same for any run of the tree, as entries with offsets; see `heartbit.stream`."""
        return RunEvents(run_id=run_id, journal=self.journal, reader=self._reader(), after=after)

    def _reader(self) -> StreamReader:
        return StreamReader(redis_url(self._config) or LOCAL_REDIS, self.journal)

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


async def _resolved(config: Config, agent: str | None, approve: bool) -> AgentDefinition:
    opened = open_orchestrator(config, approve=approve, celery_tasks=celery_tool, durable=True)
    async with opened as orchestrator:
        return (await orchestrator.resolve(agent)).definition


def _never(*_: object) -> Done:
    raise AssertionError("a client does no step of a run")
