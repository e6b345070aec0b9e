"""The in-process engine: the same rules as the durable one, events in memory, no service at all.

A run lives as long as the coroutine that drives it. Commands of one turn run as asyncio tasks; a
sub-run is a run of its own with its own journal, driven by the task of the step that started it.
"""

from __future__ import annotations

import asyncio
import inspect
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from heartbit.core.calls import blackboard_writes
from heartbit.core.commands import AskApproval, Command, Finish, RefuseCall, StartSubRun
from heartbit.core.decisions import unanswered
from heartbit.core.events import (
    ApprovalRequested,
    ApprovalResolved,
    DeadlinePassed,
    Decision,
    Event,
    RunCancelled,
    RunRouted,
    RunStarted,
    SubRunFinished,
)
from heartbit.core.messages import Json
from heartbit.core.owner import NOBODY, Owner
from heartbit.core.result import (
    PendingApproval,
    RunOutput,
    including,
    pending_approval,
    run_output,
)
from heartbit.core.run import advance
from heartbit.core.state import RunState
from heartbit.core.stream import RunIdentity, event_entry, text_delta, turn_restarted
from heartbit.core.tools import ToolSpec
from heartbit.engines.ids import sub_run_id
from heartbit.engines.perform import Outside, perform, settle
from heartbit.engines.transactions import Tables, committed
from heartbit.providers.base import Listener, Provider
from heartbit.stores.in_memory import InMemoryBlackboards
from heartbit.tools.base import Tool

if TYPE_CHECKING:
    from heartbit.tools.memory import Memories

OnEvent = Callable[[Json], None]
OnText = Callable[[str], None]
T = TypeVar("T")
Decisions = Sequence[Decision] | None
Approver = Callable[[PendingApproval], Decisions | Awaitable[Decisions]]


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """What all runs of one tree share.

    `approver` decides about calls that must be asked for; it gives one decision per call, or None
    to leave the run waiting. Without an approver a run waits: nothing is ever allowed by default.
    What `approver`, `on_event` or `on_text` raises stops the whole tree and comes out of `drive`;
    the journal of the root then has no end. `tables` opens transactions for tools, if there is a
    database; each is committed right after its call. `memories` are those of all agents.
    """

    providers: Mapping[str, Provider]
    tools: Mapping[str, Tool] = field(default_factory=dict)
    workspace: Path | None = None
    approver: Approver | None = None
    on_event: OnEvent | None = None
    on_text: OnText | None = None
    blackboards: InMemoryBlackboards = field(default_factory=InMemoryBlackboards)
    tables: Callable[[float | None], AbstractContextManager[Tables]] | None = None
    memories: Memories | None = None
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    owner: Owner = NOBODY

    def tool(self, spec: ToolSpec) -> Tool | None:
        """The executable of a spec."""
        return self.tools.get(spec.ref)


class StandaloneRun:
    """One run on its way: `drive` it, then read its `output` and `events`.

    `drive` may be cancelled: the journal then ends with RunCancelled, sub-runs included, and the
    output tells what was used until then.
    """

    def __init__(
        self,
        world: World,
        started: RunStarted,
        *,
        run_id: str | None = None,
        routed: RunRouted | None = None,
        parent: RunIdentity | None = None,
    ) -> None:
        run_id = run_id or str(uuid.uuid4())
        self.identity = RunIdentity(
            run_id=run_id,
            root_run_id=parent.root_run_id if parent else run_id,
            parent_run_id=parent.run_id if parent else None,
            agent=started.definition.name,
        )
        self.events: list[Event] = []
        self.children: dict[str, StandaloneRun] = {}
        self._world = world
        self._started = replace(started, blackboard=started.blackboard or run_id)
        self._routed = routed
        self._state: RunState | None = None
        self._asked: ApprovalRequested | None = None
        self._tasks: list[asyncio.Task[Event | None]] = []
        self._outside = self._make_outside()

    @property
    def state(self) -> RunState:
        """Where the run stands."""
        assert self._state is not None  # noqa: S101 - drive() starts it
        return self._state

    @property
    def succeeded(self) -> bool:
        """Whether it has come to a result."""
        return self._state is not None and self._state.status == "succeeded"

    @property
    def output(self) -> RunOutput:
        """The result so far; `waiting` when only a human can let it go on."""
        pending = self.pending
        status = self.state.status
        if status == "running" and pending:
            status = "waiting"
        output = run_output(self.identity.run_id, self.state, status, pending)
        return including(output, (child.output for child in self._unfinished.values()))

    @property
    def _unfinished(self) -> dict[str, StandaloneRun]:
        return {step: child for step, child in self.children.items() if not child.state.ended}

    @property
    def pending(self) -> tuple[PendingApproval, ...]:
        """The questions that are open in this run and its sub-runs."""
        if self.state.ended:
            return ()
        mine: tuple[PendingApproval, ...] = ()
        if self._asked is not None:
            identity = self.identity
            mine = (pending_approval(identity.run_id, identity.agent, self._asked),)
        return mine + tuple(question for run in self.children.values() for question in run.pending)

    async def drive(self) -> None:
        """Run until the end, or until only a human can let it go on."""
        try:
            await self._run_in_time()
        except asyncio.CancelledError:
            await self._end_cancelled()
            raise
        except _ListenerFailed as failed:
            await self._stop_tasks()
            raise failed.error from None
        except BaseException:
            await self._stop_tasks()
            raise

    async def _run_in_time(self) -> None:
        deadline = asyncio.timeout(self._started.definition.run_timeout_seconds)
        try:
            async with deadline:
                await self._run()
        except TimeoutError:
            if not deadline.expired():
                raise
            commands = await self._append(DeadlinePassed())
            await self._cancel_tasks()
            await self._take_inline(commands)

    async def _run(self) -> None:
        commands: Sequence[Command] = await self._append(self._started)
        if self._routed is not None:
            await self._append(self._routed)
        while True:
            commands = await self._take_inline(commands)
            if self.state.ended:
                await self._cancel_tasks()
                return
            event = await self._next_event(commands)
            if event is None:
                return
            commands = await self._append(event)

    async def _take_inline(self, commands: Sequence[Command]) -> Sequence[Command]:
        """Settle the commands that need nothing from the world; give the others back."""
        left: list[Command] = []
        queue = list(commands)
        while queue:
            command = queue.pop(0)
            if isinstance(command, RefuseCall | AskApproval | Finish):
                queue += await self._append(settle(command, self.state))
            else:
                left.append(command)
        return left

    async def _next_event(self, commands: Sequence[Command]) -> Event | None:
        """Start `commands` and wait for the next outcome; None: there is nothing to wait for."""
        if len(commands) == 1 and not self._tasks and not isinstance(commands[0], StartSubRun):
            return await perform(commands[0], self.state, self._outside)
        for command in commands:
            self._spawn(perform(command, self.state, self._outside))
        while self._tasks:
            if not any(task.done() for task in self._tasks):
                await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            task = next(task for task in self._tasks if task.done())
            self._tasks.remove(task)
            if (event := task.result()) is not None:
                return event
        return None

    def _spawn(self, work: Awaitable[Event | None]) -> None:
        self._tasks.append(asyncio.ensure_future(work))

    async def _append(self, event: Event) -> tuple[Command, ...]:
        """Take an event into the journal: the one place where the run's state changes."""
        state = self._state
        if state is not None and isinstance(event, SubRunFinished):
            for write in blackboard_writes(state, event):
                await self._world.blackboards.scope(write.scope).write(write.key, write.value)
        self._state, commands = advance(state, event)
        self.events.append(event)
        if self._world.on_event is not None:
            self._world.on_event(event_entry(self.identity, len(self.events), event))
        if isinstance(event, ApprovalRequested):
            self._ask(event)
        return commands

    def _ask(self, event: ApprovalRequested) -> None:
        self._asked = event
        if self._world.approver is not None:
            self._spawn(self._decide(event, self._world.approver))

    async def _decide(self, event: ApprovalRequested, approver: Approver) -> Event | None:
        question = pending_approval(self.identity.run_id, self.identity.agent, event)
        in_time = asyncio.timeout(self._started.definition.approval_timeout_seconds)
        decisions: Decisions
        try:
            async with in_time:
                decisions = await self._answer(question, approver)
        except TimeoutError:
            if not in_time.expired():
                raise
            decisions = unanswered(self.state, event.step)
        if decisions is None:
            return None
        self._asked = None
        return ApprovalResolved(step=f"{event.step}/decision", decisions=tuple(decisions))

    async def _answer(self, question: PendingApproval, approver: Approver) -> Decisions:
        """Put one question at a time, whichever agents are asking."""
        async with self._world.asking:
            answer = approver(question)
            return await answer if inspect.isawaitable(answer) else answer

    async def _end_cancelled(self) -> None:
        try:
            await self._cancel_tasks()
        finally:  # a second cancellation may come before the first one's work is done
            if not self.state.ended:
                await self._append(RunCancelled(usage=self.state.usage))

    async def _cancel_tasks(self) -> None:
        """Stop what is under way, and keep what its sub-runs have used."""
        for outcome in await self._stop_tasks():
            if isinstance(outcome, SubRunFinished):
                await self._append(outcome)
        for step, waiting in self._unfinished.items():
            await waiting._end_cancelled()
            await self._append(_sub_run_finished(step, waiting))

    async def _stop_tasks(self) -> list[Event | BaseException | None]:
        tasks = list(self._tasks)
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    async def _sub_run(self, command: StartSubRun) -> Event | None:
        child = StandaloneRun(
            self._world,
            RunStarted(
                prompt=command.prompt,
                definition=command.definition,
                blackboard=command.blackboard,
            ),
            run_id=sub_run_id(self.identity.run_id, command.step),
            parent=self.identity,
        )
        self.children[command.step] = child
        try:
            await child.drive()
        except asyncio.CancelledError:
            return _sub_run_finished(command.step, child)
        return _sub_run_finished(command.step, child) if child.state.ended else None

    def _make_outside(self) -> Outside:
        world = self._world
        return Outside(
            identity=self.identity,
            provider=world.providers.__getitem__,
            tool=world.tool,
            blackboard=world.blackboards.scope,
            sub_run=self._sub_run,
            listener=self._listener,
            workspace=world.workspace,
            tenant_id=world.owner.tenant_id,
            user_id=world.owner.user_id,
            transaction=partial(committed, world.tables) if world.tables else None,
            memories=world.memories,
        )

    def _listener(self, step: str) -> Listener | None:
        """Text goes to `on_event` from every agent, and to `on_text` from the root only."""
        is_root = self.identity.parent_run_id is None
        on_text = self._world.on_text if is_root else None
        if on_text is None and self._world.on_event is None:
            return None
        return _Stream(self.identity, step, on_text, self._world.on_event)


class _ListenerFailed(BaseException):
    """What a listener raised, on its way past everything that handles a provider's errors."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class _Stream:
    """Passes a streamed reply on to whoever listens."""

    def __init__(
        self,
        identity: RunIdentity,
        step: str,
        on_text: OnText | None,
        on_event: OnEvent | None,
    ) -> None:
        self._identity = identity
        self._step = step
        self._attempt = 1
        self._on_text = on_text
        self._on_event = on_event

    def text(self, delta: str) -> None:
        if self._on_event is not None:
            _tell(self._on_event, text_delta(self._identity, self._step, self._attempt, delta))
        if self._on_text is not None:
            _tell(self._on_text, delta)

    def restarted(self, reason: str) -> None:
        self._attempt += 1
        if self._on_event is not None:
            entry = turn_restarted(self._identity, self._step, self._attempt, reason)
            _tell(self._on_event, entry)


def _tell(listener: Callable[[T], None], value: T) -> None:
    try:
        listener(value)
    except Exception as error:
        raise _ListenerFailed(error) from error


def _sub_run_finished(step: str, run: StandaloneRun) -> SubRunFinished:
    output = run.output
    return SubRunFinished(
        step=step,
        sub_run_id=output.run_id,
        sub_agent=run.identity.agent,
        status=output.status,
        result=output.result,
        error=output.error,
        usage=output.usage,
        tool_calls_made=output.tool_calls_made,
        cost_usd=output.cost_usd,
    )
