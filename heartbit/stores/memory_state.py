"""The rows of a journal in memory: immutable, so that old tables undo a transaction."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from heartbit.core.events import Decision, Event, RunStatus
from heartbit.core.messages import Json
from heartbit.core.retry import Tried
from heartbit.stores.records import (
    ENDED,
    Approval,
    Lease,
    NewApproval,
    NewRun,
    NewStep,
    RunRow,
    StepState,
)

SUSPECTS = "heartbit.suspects"
ALONE, POISON = 10, 100
MANY = 5
NEVER = float("inf")

Key = tuple[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A run with its journal."""

    new: NewRun
    events: tuple[Event, ...]
    created_at: float
    status: RunStatus = "queued"
    output: Json | None = None
    completion: Json | None = None
    completion_after: float | None = None
    completion_done: bool = False
    cancel_requested: bool = False
    finished_at: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether it can go on."""
        return self.status not in ENDED

    @property
    def row(self) -> RunRow:
        """The row that callers see."""
        return RunRow(
            run_id=self.new.run_id,
            task_id=self.new.task_id,
            parent_run_id=self.new.parent_run_id,
            root_run_id=self.new.root_run_id,
            step_in_parent=self.new.step_in_parent,
            agent=self.new.definition.name,
            title=self.new.title,
            status=self.status,
            output=self.output,
            completion=self.completion,
            completion_done=self.completion_done,
            cancel_requested=self.cancel_requested,
            tenant_id=self.new.tenant_id,
            user_id=self.new.user_id,
            created_at=moment(self.created_at),
            finished_at=None if self.finished_at is None else moment(self.finished_at),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A step of a run."""

    new: NewStep
    state: StepState
    attempt: int
    dispatch_after: float
    owner: str | None = None
    lease_expires_at: float = NEVER
    suspicion: int = 0
    dispatched_at: float | None = None
    dispatch_count: int = 0
    tried: Tried = Tried()
    not_before: float = 0.0

    @property
    def to_dispatch(self) -> bool:
        """Whether it is one of those that are sent."""
        return self.state == "pending" or (self.state == "external" and self.new.kind == "tool")

    @property
    def is_active(self) -> bool:
        """Whether it is to be done or being done, and nobody has to decide about it first."""
        return self.state == "running" or (self.to_dispatch and self.dispatch_after < NEVER)

    @property
    def queue(self) -> str:
        """Where it is sent to."""
        return SUSPECTS if self.suspicion >= ALONE else self.new.queue

    def expired(self, now: float) -> bool:
        """Whether its lease has run out."""
        return self.state == "running" and self.lease_expires_at < now

    def sent(self, now: float, after: float) -> Step:
        """The step once it was sent, to be looked at again at `after`."""
        return replace(
            self, dispatched_at=now, dispatch_count=self.dispatch_count + 1, dispatch_after=after
        )

    def sent_again(self, now: float, again_seconds: float) -> Step:
        """The same, later each time."""
        return self.sent(now, now + again_seconds * 2 ** min(self.dispatch_count, 8))

    def freed(self, state: StepState) -> Step:
        """The step when nobody holds it any more."""
        return replace(self, state=state, owner=None, lease_expires_at=NEVER)

    def released(self, now: float, delay: float) -> Step:
        """The step when it is handed back, to be sent after `delay`."""
        return replace(self.freed("pending"), dispatched_at=None, dispatch_after=now + delay)

    def put_off(self, now: float, seconds: float, tried: Tried) -> Step:
        """The step when it is handed back to go on later, and not before."""
        return replace(self.released(now, seconds), tried=tried, not_before=now + seconds)

    def parked(self, now: float) -> Step:
        """The step when it waits for somebody to decide about its attempt in doubt."""
        return replace(
            self.freed("external"),
            attempt=self.attempt + 1,
            dispatched_at=self.dispatched_at or now,
            dispatch_after=NEVER,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """An approval."""

    run_id: str
    root_run_id: str
    new: NewApproval
    requested_at: float
    expires_at: float | None
    decisions: tuple[Decision, ...] | None = None
    decided_by: str | None = None
    decided_at: float | None = None

    def open_to(self, calls_hash: str, now: float, *, expired: bool) -> bool:
        """Whether it can be decided: about these calls, in time or (`expired`) after it."""
        late = self.expires_at is not None and self.expires_at <= now
        return self.decided_at is None and self.new.calls_hash == calls_hash and late == expired

    @property
    def row(self) -> Approval:
        """The row that callers see."""
        return Approval(
            run_id=self.run_id,
            step=self.new.step,
            root_run_id=self.root_run_id,
            agent=self.new.agent,
            calls=self.new.calls,
            calls_hash=self.new.calls_hash,
            requested_at=moment(self.requested_at),
            expires_at=None if self.expires_at is None else moment(self.expires_at),
            decisions=self.decisions,
            decided_by=self.decided_by,
            decided_at=None if self.decided_at is None else moment(self.decided_at),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """One write of a blackboard, its value as JSON; `run_seq` is the number of the run's next event
    at that time.
    """

    key: str
    version: int
    text: str
    run_id: str
    run_seq: int


@dataclass(kw_only=True, slots=True)
class Tables:
    """All rows. `tasks` has the run of each task; `boards` the writes of each scope."""

    runs: dict[str, Run] = field(default_factory=dict)
    tasks: dict[str, str] = field(default_factory=dict)
    steps: dict[Key, Step] = field(default_factory=dict)
    approvals: dict[Key, Asked] = field(default_factory=dict)
    timers: dict[Key, float] = field(default_factory=dict)
    boards: dict[str, tuple[Written, ...]] = field(default_factory=dict)
    sweeps: dict[str, float] = field(default_factory=dict)

    def copy(self) -> Tables:
        """The same rows, in tables of their own."""
        return Tables(
            runs=dict(self.runs),
            tasks=dict(self.tasks),
            steps=dict(self.steps),
            approvals=dict(self.approvals),
            timers=dict(self.timers),
            boards=dict(self.boards),
            sweeps=dict(self.sweeps),
        )

    def steps_of(self, run_id: str) -> list[tuple[Key, Step]]:
        """The steps of one run."""
        return [(key, step) for key, step in self.steps.items() if key[0] == run_id]

    def suspicion(self, step: Step) -> int:
        """How suspicious a step is once its present lease is lost, too."""
        if step.suspicion >= ALONE:
            return POISON
        together = sum(s.state == "running" and s.owner == step.owner for s in self.steps.values())
        return step.suspicion + (5 if together < MANY else 1)

    def holds(self, lease: Lease) -> bool:
        """Whether a lease is still that of its step's present attempt."""
        step = self.steps.get((lease.run_id, lease.step))
        return step is not None and step.state == "running" and step.attempt == lease.attempt

    def version(self, scope: str, key: str) -> int:
        """The newest version of a key."""
        return max((w.version for w in self.boards.get(scope, ()) if w.key == key), default=0)


def new_step(new: NewStep, now: float) -> Step:
    """The row of a step that is appended."""
    begun = new.state == "running"
    step = Step(
        new=new,
        state=new.state,
        attempt=1 if begun else 0,
        owner=new.owner,
        lease_expires_at=NEVER if new.lease_seconds is None else now + new.lease_seconds,
        dispatch_after=now if begun else now + max(new.delay, 1.0),
    )
    return step if new.again_seconds is None else step.sent_again(now, new.again_seconds)


def moment(seconds: float) -> datetime:
    """A time of the clock as people read it."""
    return datetime.fromtimestamp(seconds, UTC)
