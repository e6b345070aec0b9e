"""A durable engine on a workbench: a journal in memory, messages that lie there to be delivered.

Nothing happens by itself. A test delivers messages in any order, any number of times, lets time
pass, sweeps, and lets workers die while they work or before they send.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from heartbit.core.agent import AgentDefinition, PermissionRule
from heartbit.core.commands import CallModel, CallTool, Command, Summarise
from heartbit.core.events import ContextSummarised, Decision, Event, RunStarted
from heartbit.core.state import RunState
from heartbit.engines.durable import DurableEngine
from heartbit.engines.leases import Held
from heartbit.engines.plan import RunPlace
from heartbit.engines.ports import Announce, Answer, Dispatch, Done, ExternalCall
from heartbit.engines.recovery import Sweep
from heartbit.stores.memory_journal import InMemoryJournal
from tests.support.journals import call, delegating, replied, returned, spec

RUN = "00000000-0000-4000-8000-000000000001"
LEASE_SECONDS = 15.0
MANY_ROUNDS = 400

Message = tuple[str, ...]
"""("step", run, step), ("look", run) or ("end", run)."""

LOOK = spec("look", effect="pure")
PAY = spec("pay", effect="at_most_once")
FIRE = spec("fire", effect="at_most_once", on_doubt="ask_human")
SUBS = (
    AgentDefinition(name="ada", system_prompt="I am ada.", tools=(LOOK,)),
    AgentDefinition(name="bob", system_prompt="I am bob.", tools=(PAY,)),
)
SOLO = AgentDefinition(name="solo", system_prompt="Act.", tools=(LOOK, PAY, FIRE))
CHIEF = AgentDefinition(
    name="chief",
    system_prompt="Lead.",
    tools=(LOOK, PAY, FIRE),
    delegates=SUBS,
    permissions=(PermissionRule(tool="fire", action="ask"),),
)


class Died(BaseException):
    """A worker process is gone."""


@dataclass
class Clock:
    """A clock that only a test moves."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Outbox:
    """Messages, in the order in which they were sent; sending fails while `dead`."""

    messages: list[Message] = field(default_factory=list)
    queues: dict[Message, str] = field(default_factory=dict)
    chords: list[tuple[str, set[str]]] = field(default_factory=list)
    dead: bool = False
    calls: list[ExternalCall] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)
    revoked: list[str] = field(default_factory=list)
    unreachable: bool = False

    def steps(self, dispatches: Sequence[Dispatch]) -> None:
        for each in dispatches:
            if each.call is not None:
                self.calls.append(each.call)
                continue
            self.queues["step", each.run_id, each.step] = each.queue
            self._send(("step", each.run_id, each.step))

    def sub_runs(self, parent_run_id: str, run_ids: Sequence[str]) -> None:
        self.chords.append((parent_run_id, set(run_ids)))
        for run_id in run_ids:
            self._send(("look", run_id))

    def finished(self, run_id: str) -> None:
        self._send(("end", run_id))
        for parent, members in self.chords:
            if run_id in members:
                members.remove(run_id)
                if not members:
                    self._send(("look", parent))

    def wake(self, run_id: str) -> None:
        self._send(("look", run_id))

    def chore(self, task: str, queue: str) -> None:
        self._send(("chore", task))

    def reachable(self) -> bool:
        return not self.unreachable

    def empty_queues(self) -> Sequence[str]:
        return ()

    def answer(self, task_id: str) -> Answer:
        return self.answers.get(task_id, Answer(state="unknown"))

    def revoke(self, task_ids: Sequence[str]) -> None:
        self.revoked += task_ids

    def _send(self, message: Message) -> None:
        if self.dead:
            raise Died
        self.messages.append(message)


Say = Callable[[RunState], Event]


def script(state: RunState) -> Event:
    """The model of the workbench: the chief uses everything there is, its helpers one tool."""
    turn, name = state.turn, state.definition.name
    match name, turn:
        case "chief", 1:
            sub = delegating(("ada", "look"), ("bob", "pay"))
            return replied(1, call("look", "a"), call("pay", "b"), sub)
        case "chief", 2:
            return replied(2, call("fire", "c"), call("look", "d"))
        case "ada", 1:
            return replied(1, call("look", "a"))
        case "bob", 1:
            return replied(1, call("pay", "a"))
        case _:
            return replied(turn, f"{name} is done")


def calling(*tools: str) -> Say:
    """A model that calls these tools in its first turn, and then says that it is done."""

    def say(state: RunState) -> Event:
        calls = [call(tool, str(n)) for n, tool in enumerate(tools)]
        return replied(1, *calls) if state.turn == 1 else replied(state.turn, "done")

    return say


class Bench:
    """One journal, one outbox, and as many workers as a test wants, all with the same `options`."""

    def __init__(
        self,
        say: Say = script,
        agent: AgentDefinition = CHIEF,
        *,
        batched: bool = False,
        announce: Announce | None = None,
        journal: Callable[[Clock], InMemoryJournal] = InMemoryJournal,
        **options: Any,
    ) -> None:
        self._announce = announce
        self._options = options
        self._batch_seconds = 5.0 if batched else None
        self.clock = Clock()
        self.journal = journal(self.clock)
        self.outbox = Outbox()
        self.begun: Counter[tuple[str, str]] = Counter()
        self.effects: Counter[tuple[str, str, str]] = Counter()
        self.places: list[RunPlace] = []
        self.before: Callable[[Held, Command], None] = lambda held, command: None
        self.after: Callable[[Held, Command], None] = lambda held, command: None
        self._say = say
        self._workers = 0
        self.engine = self.worker()
        self.sweep = Sweep(self.journal, self.engine, lease_seconds=LEASE_SECONDS)
        start = RunStarted(prompt="Go.", definition=agent, blackboard=RUN)
        self.engine.open(RunPlace(run_id=RUN, root_run_id=RUN), start, task_id=RUN)
        self.journal.set_completion(RUN, {"waits": True})

    def worker(self) -> DurableEngine:
        """Another process, which knows only the journal."""
        self._workers += 1
        return DurableEngine(
            journal=self.journal,
            outbox=self.outbox,
            work=self._work,
            announce=self._announce,
            owner=f"worker {self._workers}",
            lease_seconds=LEASE_SECONDS,
            clock=self.clock,
            batch_seconds=self._batch_seconds,
            **self._options,
        )

    def deliver(self, message: Message, engine: DurableEngine | None = None) -> None:
        """What the task of a message does."""
        to = engine or self.engine
        match message:
            case "step", run_id, step:
                to.step(run_id, step)
            case "look", run_id:
                to.resume(run_id)
            case "end", run_id:
                self.journal.complete(run_id)

    def deliver_all(self) -> None:
        """Deliver until no message is left."""
        while self.outbox.messages:
            self.deliver(self.outbox.messages.pop(0))

    def start(self) -> None:
        """The task that began the run has arrived; every message is delivered."""
        self.engine.resume(RUN)
        self.deliver_all()

    def die_in(self, step: str) -> None:
        """The worker dies when it has begun this step."""

        def die(held: Held, command: Command) -> None:
            if command.step == step:
                raise Died

        self.before = die

    def live(self) -> None:
        """Nobody dies any more."""
        self.before = self.after = lambda held, command: None
        self.outbox.dead = False

    def later(self, seconds: float = LEASE_SECONDS + 1) -> None:
        """Let time pass, and sweep."""
        self.clock.now += seconds
        self.sweep.once()

    def decide(self, *verdicts: Decision) -> None:
        """Answer the oldest question, as a human does whose message is lost."""
        [asked, *_] = self.journal.open_approvals()
        self.journal.decide(
            asked.run_id, asked.step, verdicts, calls_hash=asked.calls_hash, by="someone"
        )

    def until_it_ends(self) -> str:
        """Deliver, sweep and approve until the run has ended; gives its status.

        What expires is not answered.
        """
        for _ in range(MANY_ROUNDS):
            self.deliver_all()
            if self.status in ("succeeded", "failed", "cancelled"):
                return self.status
            for asked in self.journal.open_approvals():
                if asked.expires_at is not None:
                    continue
                state = self.engine.progress(asked.run_id).state
                waiting = [c.position for c in state.calls if c.asked == asked.step]
                self.decide(*(Decision(position=p, verdict="approve") for p in waiting))
            self.later()
        raise AssertionError("the run does not end")

    @property
    def status(self) -> str:
        """Of the root run."""
        return self.journal.run(RUN).status

    @property
    def steps(self) -> list[str | None]:
        """The steps of the root run's journal, in order."""
        return [event.step for event in self.journal.events(RUN)]

    def event(self, step: str) -> Event:
        """The outcome of a step of the root run."""
        return next(e for e in self.journal.events(RUN) if e.step == step)

    def _work(self, command: Command, state: RunState, place: RunPlace, held: Held) -> Done:
        self.begun[held.run_id, command.step] += 1
        self.places.append(place)
        self.before(held, command)
        done = self._done(command, state, place)
        self.after(held, command)
        return done

    def _done(self, command: Command, state: RunState, place: RunPlace) -> Done:
        match command:
            case CallModel():
                return Done(event=self._say(state))
            case CallTool():
                self.effects[place.run_id, command.step, command.spec.effect] += 1
                return Done(event=returned(command.step, f"{command.call.name} did it"))
            case Summarise():
                event = ContextSummarised(step=command.step, summary="All.", upto=command.upto)
                return Done(event=event)
        raise AssertionError(f"no step of a worker: {command}")
