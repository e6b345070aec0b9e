"""What goes into a journal and what comes out of it: plain values, the same for every store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, Final, Literal, NoReturn, Protocol

from heartbit.core.agent import AgentDefinition, as_json
from heartbit.core.delegation import BlackboardWrite
from heartbit.core.events import Decision, Event, RunStarted, RunStatus
from heartbit.core.messages import Json, ToolCall
from heartbit.core.retry import Tried
from heartbit.errors import RunNotFound, RunStateError

StepKind = Literal["model", "tool", "sub_run", "summary", "memories"]
StepState = Literal["pending", "running", "external", "done", "held"]
WhyNot = Literal["done", "leased", "in_doubt", "poisoned", "external", "ended", "unknown"]
Fate = Literal["again", "in_doubt", "poisoned"]
ENDED: Final = frozenset({"succeeded", "failed", "cancelled"})
TITLE_CHARACTERS = 80


class _AnyTenant(Enum):
    EVERY = "every"


EVERY_TENANT: Final = _AnyTenant.EVERY
"""No restriction: for workers and for the operator, never for a request from outside."""

Tenant = str | None | Literal[_AnyTenant.EVERY]
"""A tenant's id; None is the tenant of runs that were opened without one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NewStep:
    """A step whose outcome is missing.

    `queue` is where it is sent to. Whoever appends it has `delay` seconds (one at least) to do so
    before the sweep does. A step that is not `repeatable` is in doubt when its worker is lost.

    With state `running` the step is begun by the caller at once, as attempt 1, and needs `owner`
    and `lease_seconds`. A `held` one waits for the admission of its run. An `external` one of kind
    `tool` is sent like a pending one, but never claimed: its outcome is appended as that of
    attempt 0. With `again_seconds` whoever appends the step sends it after the commit, and nobody
    else does before that time is over.
    """

    step: str
    kind: StepKind
    queue: str
    repeatable: bool = True
    state: StepState = "pending"
    delay: float = 0.0
    owner: str | None = None
    lease_seconds: float | None = None
    again_seconds: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class NewRun:
    """A run to be opened: its first event and the steps it begins with.

    A fork begins with the `kept` events of the run that its start names, too. They are copied there
    together with their steps and with what they have left on the blackboard of that run.
    """

    run_id: str
    task_id: str
    root_run_id: str
    start: RunStarted
    steps: Sequence[NewStep]
    parent_run_id: str | None = None
    step_in_parent: str | None = None
    tenant_id: str | None = None
    user_id: str | None = None
    priority: int = 0
    kept: Sequence[Event] = ()

    @property
    def definition(self) -> AgentDefinition:
        """The agent that runs."""
        return self.start.definition

    @property
    def title(self) -> str:
        """The beginning of the prompt on one line, in characters that any store can keep."""
        start = self.start.prompt[: 4 * TITLE_CHARACTERS]
        text = " ".join(start.replace("\0", " ").split())
        return text.encode("utf-8", "replace").decode()[:TITLE_CHARACTERS]

    @property
    def prompt_hash(self) -> str:
        """What tells one prompt from another."""
        return hashlib.sha256(self.start.prompt.encode(errors="surrogatepass")).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """The run that now exists; `opened` is false if it did already."""

    run_id: str
    opened: bool
    status: RunStatus


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A step held for `attempt` (`why_not` None), or the reason why it is not.

    `events` are those after the number the caller knew; `seq` is the number of the next one. A step
    that is `in_doubt` or `poisoned` waits for a verdict on `attempt`. `tried` is what the last
    attempt that was put off has left for the next ones.
    """

    why_not: WhyNot | None
    attempt: int
    status: RunStatus | None
    cancelled: bool
    seq: int
    events: tuple[Event, ...]
    tried: Tried = Tried()


class Lease(Protocol):
    """A step that is held for one of its attempts."""

    @property
    def run_id(self) -> str:
        """The run."""

    @property
    def step(self) -> str:
        """The step of the run."""

    @property
    def attempt(self) -> int:
        """The attempt that holds it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What becomes of the run itself with an append.

    The end of a run closes its open steps and approvals and clears its timers.
    """

    status: RunStatus
    output: Json | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class NewApproval:
    """A question to a human, with the exact calls; unanswered it expires after a time, if any."""

    step: str
    agent: str
    calls: tuple[ToolCall, ...]
    expires_seconds: float | None = None

    @property
    def calls_hash(self) -> str:
        """What a decision must name, so that it is never about other calls."""
        return calls_hash(as_json(self.calls))


def calls_hash(calls: list[Json]) -> str:
    """The fingerprint of calls as they are stored."""
    text = json.dumps(calls, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Append:
    """Events for a run whose next one must have the number `expected`, and all that goes with them.

    With a `step`, `attempt` must hold it; `beside` are other steps whose outcomes are among the
    events, with the attempts that must hold them. A `verdict` is about a step whose lease has
    expired; if it is to `park`, the step gets no outcome but waits, and can be claimed by naming
    the attempt that the verdict makes: the next one.

    `timers` are to be set (what -> seconds from now), `clear` names those that are done with; a
    decision that is appended clears its own.
    """

    run_id: str
    expected: int
    events: Sequence[Event]
    step: str | None = None
    attempt: int | None = None
    beside: Sequence[tuple[str, int]] = ()
    verdict: bool = False
    park: bool = False
    steps: Sequence[NewStep] = ()
    board: Sequence[BlackboardWrite] = ()
    runs: Sequence[NewRun] = ()
    approval: NewApproval | None = None
    timers: Mapping[str, float] = field(default_factory=dict)
    clear: Sequence[str] = ()
    change: Change | None = None

    @property
    def cleared(self) -> tuple[str, ...]:
        """All timers that are done with."""
        steps = [e.step for e in self.events if e.type == "approval_resolved"]
        resolved = [step.removesuffix("/decision") for step in steps]
        return (*self.clear, *(f"{what}/{s}" for s in resolved for what in ("decided", "expiry")))


@dataclass(frozen=True, kw_only=True, slots=True)
class Appended:
    """Done (`seq` is the number of the next event), or nothing was changed: `behind` has the events
    in between, or the run is over (`ended`).
    """

    ok: bool
    seq: int = 0
    ended: bool = False
    behind: tuple[Event, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRow:
    """What is known of a run without folding its journal; `title` is how its prompt begins."""

    run_id: str
    task_id: str
    parent_run_id: str | None
    root_run_id: str
    step_in_parent: str | None
    agent: str
    title: str
    status: RunStatus
    output: Json | None
    completion: Json | None
    completion_done: bool
    cancel_requested: bool
    tenant_id: str | None
    user_id: str | None
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Approval:
    """A question to a human. Decided without `decisions`: its run ended before anybody answered."""

    run_id: str
    step: str
    root_run_id: str
    agent: str
    calls: tuple[ToolCall, ...]
    calls_hash: str
    requested_at: datetime
    expires_at: datetime | None = None
    decisions: tuple[Decision, ...] | None = None
    decided_by: str | None = None
    decided_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class BoardEntry:
    """One write of a blackboard."""

    seq: int
    key: str
    version: int
    value: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpiredStep:
    """A step whose lease has run out.

    `again`: it is pending and to be sent to `queue`. Otherwise `attempt` still stands, and somebody
    must append a verdict on it: it is `in_doubt`, or `poisoned`, which is to say that its workers
    are lost again and again.
    """

    run_id: str
    step: str
    kind: StepKind
    queue: str
    attempt: int
    fate: Fate


@dataclass(frozen=True, kw_only=True, slots=True)
class UnsentStep:
    """A step to be sent; `count` says the how manieth time. An `external` one with a count above 1
    may be at work or done elsewhere: ask before it is sent again.
    """

    run_id: str
    step: str
    kind: StepKind
    queue: str
    external: bool
    count: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DueTimer:
    """A run to be looked after, and what for: `deadline`, `cancel`, `decided/{step}`,
    `expiry/{step}`, or what an engine has set.
    """

    run_id: str
    what: str


def check_same(run: NewRun, agent: str, prompt_hash: str, tenant_id: str | None) -> None:
    """Whether what is stored under a run's id is that run.

    Raises:
        RunStateError: it is another one.
    """
    if (run.definition.name, run.prompt_hash, run.tenant_id) != (agent, prompt_hash, tenant_id):
        raise RunStateError(
            f"The id {run.task_id} belongs to another run: same id, but another prompt, agent or "
            "tenant. Give every task an id of its own."
        )


def refuse_decision(
    run_id: str, step: str, found: Approval | None, calls_hash: str, *, expired: bool
) -> NoReturn:
    """Say why an approval could not be decided.

    Raises:
        RunNotFound: there is no such approval.
        RunStateError: why it is not open to this decision.
    """
    if found is None:
        raise RunNotFound(f"Run {run_id} has no approval {step}.")
    if found.decided_at is not None and found.decisions is None:
        raise RunStateError(f"Run {run_id} has ended; its approval {step} is void.")
    if found.decided_at is not None:
        who = f" by {found.decided_by}" if found.decided_by else ""
        raise RunStateError(f"Approval {step} of run {run_id} was decided already{who}.")
    if found.calls_hash != calls_hash:
        raise RunStateError(
            f"Approval {step} of run {run_id} is about other calls than those decided on; look at "
            "it again."
        )
    late = "has not expired yet" if expired else "has expired"
    raise RunStateError(f"Approval {step} of run {run_id} {late}.")
