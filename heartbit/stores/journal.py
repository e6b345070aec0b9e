"""The journal's protocol: how a run is opened, worked on step by step, and ended.

Every method is one transaction. Nothing here decides what a run does next: callers hand in what the
rules said, and a store only makes sure that it fits what is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from heartbit.core.agent import AgentDefinition
from heartbit.core.delegation import BlackboardWrite
from heartbit.core.events import Event, RunStarted, RunStatus
from heartbit.core.messages import Json

StepKind = Literal["model", "tool", "sub_run", "summary"]
StepState = Literal["pending", "running", "external", "done"]
WhyNot = Literal["done", "leased", "in_doubt", "external", "ended", "unknown"]


@dataclass(frozen=True, kw_only=True, slots=True)
class NewStep:
    """A step whose outcome is missing.

    `queue` is where it is dispatched to, not before `delay` seconds have passed. A step that is not
    `repeatable` is in doubt when its worker is lost.
    """

    step: str
    kind: StepKind
    queue: str
    repeatable: bool = True
    state: StepState = "pending"
    delay: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class NewRun:
    """A run to be opened: its first event and the steps it begins with."""

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

    @property
    def definition(self) -> AgentDefinition:
        """The agent that runs."""
        return self.start.definition


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """The run that now exists; `opened` is false if it did already."""

    run_id: str
    opened: bool
    status: RunStatus


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A step held for `attempt` (`why_not` None), or the reason why it is not.

    `events` are those after the number the caller knew; `seq` is the number of the next one.
    """

    why_not: WhyNot | None
    attempt: int
    status: RunStatus | None
    cancelled: bool
    seq: int
    events: tuple[Event, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What becomes of the run itself with an append."""

    status: RunStatus
    output: Json | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Append:
    """Events for a run whose next one must have the number `expected`, and all that goes with them.

    With a `step`, `attempt` must hold it. A `verdict` is about a step whose lease has expired.
    """

    run_id: str
    expected: int
    events: Sequence[Event]
    step: str | None = None
    attempt: int | None = None
    verdict: bool = False
    steps: Sequence[NewStep] = ()
    board: Sequence[BlackboardWrite] = ()
    runs: Sequence[NewRun] = ()
    change: Change | None = None


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
    """What is known of a run without folding its journal."""

    run_id: str
    task_id: str
    parent_run_id: str | None
    root_run_id: str
    step_in_parent: str | None
    agent: str
    status: RunStatus
    output: Json | None
    completion: Json | None
    completion_done: bool
    cancel_requested: bool


class Transaction(Protocol):
    """Several appends that happen together or not at all: a run's before its parent's."""

    def append(self, append: Append) -> Appended:
        """As `Journal.append`."""


class Journal(Protocol):
    """Where runs are kept."""

    def open_run(self, run: NewRun) -> Opened:
        """Open a run, or find the one that is open under this id.

        Raises:
            RunStateError: the id belongs to a run with another prompt, agent or tenant.
        """

    def claim(
        self, run_id: str, step: str, *, owner: str, lease_seconds: float, known: int
    ) -> Claim:
        """Take a step for a new attempt, with the events after number `known`."""

    def append(self, append: Append) -> Appended:
        """Write an outcome.

        Raises:
            LeaseLost: another attempt holds the step.
        """

    def transaction(self) -> AbstractContextManager[Transaction]:
        """A transaction that is committed at the end of the block."""

    def events(self, run_id: str, after: int = 0) -> tuple[Event, ...]:
        """The events of a run, oldest first."""

    def run(self, run_id: str) -> RunRow:
        """The row of a run.

        Raises:
            RunNotFound: there is none.
        """

    def take_dispatch(self, run_id: str, steps: Sequence[str]) -> tuple[tuple[str, str], ...]:
        """Win the right to send these steps, as (step, queue): each is won once."""

    def undispatched(self, run_id: str) -> tuple[str, ...]:
        """The steps of a run that were never sent."""

    def set_completion(self, run_id: str, completion: Json) -> None:
        """Remember what waits for the end of the run; the first one stays."""

    def complete(self, run_id: str) -> None:
        """The end of the run has been published."""

    def request_cancel(self, run_id: str) -> tuple[str, ...]:
        """Ask for the end of a run tree; gives the ids of its open runs."""
