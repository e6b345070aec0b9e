"""The journal's protocol: how a run is opened, worked on step by step, and ended.

Every method is one transaction. Nothing here decides what a run does next: callers hand in what the
rules said, and a store only makes sure that it fits what is stored.

Whatever somebody outside asks for names a `tenant`: the store then answers as if the runs of all
others did not exist. Times are seconds from the store's now, by the store's clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from heartbit.core.events import Decision, Event, RunStatus
from heartbit.core.messages import Json
from heartbit.core.retry import Tried
from heartbit.stores.records import (
    EVERY_TENANT,
    Append,
    Appended,
    Approval,
    BoardEntry,
    Change,
    Claim,
    DueTimer,
    ExpiredStep,
    Lease,
    NewApproval,
    NewRun,
    NewStep,
    Opened,
    RunRow,
    StepKind,
    StepState,
    Tenant,
    UnsentStep,
    WhyNot,
)

__all__ = [
    "EVERY_TENANT",
    "Append",
    "Appended",
    "Approval",
    "BoardEntry",
    "Change",
    "Claim",
    "DueTimer",
    "ExpiredStep",
    "Journal",
    "Lease",
    "NewApproval",
    "NewRun",
    "NewStep",
    "Opened",
    "RunRow",
    "StepKind",
    "StepState",
    "Tenant",
    "ToolTransaction",
    "Transaction",
    "UnsentStep",
    "WhyNot",
]


L = TypeVar("L", bound=Lease)


class Transaction(Protocol):
    """Several appends that happen together or not at all: a run's before its parent's.

    An append that is refused changes nothing and may be tried again. What is read here is what this
    transaction sees. Blackboards are written at the end of the block.
    """

    def append(self, append: Append) -> Appended:
        """As `Journal.append`."""

    def events(self, run_id: str, after: int = 0) -> tuple[Event, ...]:
        """As `Journal.events`."""

    def run(self, run_id: str) -> RunRow:
        """As `Journal.run`."""


class ToolTransaction(Transaction, Protocol):
    """A transaction in which a tool writes to tables of its own, before its outcome is appended."""

    @property
    def connection(self) -> Any:
        """The store's connection (psycopg); None if the store has no tables."""

    def settle(self) -> None:
        """The tool has done its part.

        Raises:
            ToolError: what it has done cannot be kept.
        """

    def disconnect(self) -> None:
        """Take the connection away from a tool that was given up and may still be at it."""

    def lost(self, error: BaseException) -> bool:
        """Whether the tool failed with `error` because the database was lost on the way."""


class RunReads(Protocol):
    """What can be asked about runs."""

    def events(
        self, run_id: str, after: int = 0, *, tenant: Tenant = EVERY_TENANT
    ) -> tuple[Event, ...]:
        """The events of a run after a number, oldest first; none if there is no such run."""

    def run(self, run_id: str, *, tenant: Tenant = EVERY_TENANT) -> RunRow:
        """The row of a run.

        Raises:
            RunNotFound: there is none.
        """

    def tree(self, run_id: str, *, tenant: Tenant = EVERY_TENANT) -> tuple[RunRow, ...]:
        """The rows of all runs of the tree that a run belongs to, oldest first."""

    def list_runs(
        self,
        *,
        limit: int = 50,
        status: RunStatus | None = None,
        tenant: Tenant = EVERY_TENANT,
        before: str | None = None,
    ) -> tuple[RunRow, ...]:
        """Root runs, newest first; `before` is the id of the last run of the page in front."""


class Approvals(Protocol):
    """Questions to humans, and their answers."""

    def open_approvals(
        self, *, tenant: Tenant = EVERY_TENANT, limit: int = 100
    ) -> tuple[Approval, ...]:
        """What waits for a human, oldest first."""

    def approvals(self, run_id: str, *, tenant: Tenant = EVERY_TENANT) -> tuple[Approval, ...]:
        """All approvals of one run, oldest first."""

    def decide(
        self,
        run_id: str,
        step: str,
        decisions: Sequence[Decision],
        *,
        calls_hash: str,
        by: str | None,
        expired: bool = False,
        tenant: Tenant = EVERY_TENANT,
    ) -> None:
        """Answer an approval; the timer `decided/{step}` wakes the run should nobody else do it.

        `calls_hash` is of the calls that were decided about. `expired`: nobody has answered in
        time, and these are the decisions for that case.

        Raises:
            RunNotFound: there is no such approval.
            RunStateError: it was decided already, is about other calls, or has expired (or not
                yet, if `expired`), or its run has ended.
        """


class Boards(Protocol):
    """Blackboards: every write of a key is a new version, and the highest one is its value."""

    def board_read(self, scope: str, key: str) -> tuple[Any, int]:
        """The value of a key and its version; (None, 0) if there is none.

        Raises:
            ToolError: it cannot be a key.
        """

    def board_keys(self, scope: str) -> tuple[str, ...]:
        """All keys of a scope, sorted."""

    def board_after(self, scope: str, seq: int) -> tuple[BoardEntry, ...]:
        """The writes of a scope after number `seq`, in order: what a copy has not seen."""

    def board_write(
        self, scope: str, key: str, value: Any, *, run_id: str, expected: int | None = None
    ) -> int:
        """Write a key outside of any append, and give its new version.

        Raises:
            ToolError: the key is not at version `expected`, it cannot be a key, or the value is
                not JSON.
        """


class Sweeping(Protocol):
    """What keeps runs going when workers, messages or whole brokers are lost.

    Whatever is handed out here is handed out to one caller, and again after `again_seconds` unless
    it has been dealt with by then.
    """

    def admit_sweep(self, name: str, *, every_seconds: float) -> bool:
        """Win the right to sweep now: one process of the fleet per `every_seconds`."""

    def admit(self, limit: int | None) -> tuple[str, ...]:
        """Let runs begin whose steps are `held`, and give their ids: their steps can be sent now.

        The highest priority comes first, then the oldest, as long as fewer than `limit` run trees
        (None: any number) have something to do; one that only waits for a human has nothing. The
        time that a run may take begins with its admission.
        """

    def expired_steps(self, *, limit: int, again_seconds: float) -> tuple[ExpiredStep, ...]:
        """Steps whose lease has run out: to be sent again, or to be judged."""

    def unsent_steps(
        self, *, limit: int, again_seconds: float, empty_queues: Sequence[str] = ()
    ) -> tuple[UnsentStep, ...]:
        """Steps that were never sent, or not claimed since: twice as late each time, but after two
        seconds if their queue is known to be empty.
        """

    def due_timers(self, *, limit: int, again_seconds: float) -> tuple[DueTimer, ...]:
        """Timers whose time has come; each comes back until it is cleared or its run has ended."""

    def set_timer(self, run_id: str, what: str, seconds: float) -> None:
        """Have an open run looked after in `seconds`; the same timer is only moved."""

    def clear_timer(self, run_id: str, what: str) -> None:
        """Nobody needs to look after the run for this."""

    def unpublished(self, *, limit: int, again_seconds: float) -> tuple[str, ...]:
        """Ended runs for whose end something waits that was not told so."""


class Journal(RunReads, Approvals, Boards, Sweeping, Protocol):
    """Where runs are kept."""

    def open_run(self, run: NewRun) -> Opened:
        """Open a run, or find the one that is open under this id.

        Raises:
            RunStateError: the id belongs to a run with another prompt, agent or tenant.
        """

    def claim(
        self,
        run_id: str,
        step: str,
        *,
        owner: str,
        lease_seconds: float,
        known: int,
        doubt: int | None = None,
    ) -> Claim:
        """Take a step for a new attempt, with the events after number `known`.

        `doubt` is the attempt in doubt, or parked, that may be followed by another one after all.
        A claim whose events this heartbit cannot read is given back before the error is raised.
        """

    def append(self, append: Append) -> Appended:
        """Write an outcome.

        Raises:
            LeaseLost: another attempt holds the step, or it has its outcome.
            BoardConflict: a key is not at the version that a write expects.
            RunNotFound: there is no such run.
            RunStateError: the id of a sub-run is taken, or the journal is shorter than expected.
        """

    def transaction(self) -> AbstractContextManager[Transaction]:
        """A transaction that is committed at the end of the block."""

    def tool_transaction(
        self, seconds: float | None = None, *, quick: bool = False
    ) -> AbstractContextManager[ToolTransaction]:
        """The same for a tool with tables of its own, on a connection that is kept for such tools.

        A statement in it may take `seconds`. A `quick` tool does nothing between its statements: if
        its process is frozen, what it holds is soon free for others.
        """

    def extend_leases(self, held: Sequence[L], lease_seconds: float) -> tuple[L, ...]:
        """Renew leases; gives those that are still held. Never waits for others."""

    def stopped_runs(self, run_ids: Sequence[str]) -> tuple[str, ...]:
        """Those of these runs that have ended, or whose tree is asked to end."""

    def release(self, run_id: str, step: str, attempt: int, *, delay: float = 0.0) -> None:
        """Hand a step back that was not begun; the sweep sends it after `delay`."""

    def put_off(
        self, run_id: str, step: str, attempt: int, *, seconds: float, tried: Tried
    ) -> None:
        """Hand a step back that goes on later: nobody begins it before, the sweep sends it then.

        Whoever claims it gets `tried`.
        """

    def take_dispatch(
        self, run_id: str, steps: Sequence[str], *, again_seconds: float = 15.0
    ) -> tuple[tuple[str, str], ...]:
        """Win the right to send these steps, as (step, queue): each is won once.

        A step that nobody claims is sent again by the sweep after `again_seconds`.
        """

    def undispatched(self, run_id: str) -> tuple[str, ...]:
        """The steps of a run that were never sent, and are not put off."""

    def set_completion(self, run_id: str, completion: Json) -> None:
        """Remember what waits for the end of the run; the first one stays."""

    def complete(self, run_id: str) -> None:
        """The end of the run has been published."""

    def request_cancel(
        self, run_id: str, *, tenant: Tenant = EVERY_TENANT, again_seconds: float = 2.0
    ) -> tuple[str, ...]:
        """Ask for the end of a run tree; gives the ids of its open runs.

        The timer `cancel` of each wakes it after `again_seconds`, should nobody else do it.

        Raises:
            RunNotFound: there is no such run.
        """

    def close(self) -> None:
        """Let go of connections."""
