"""What the durable engine asks of whoever makes it: messages sent, commands performed, ears.

Protocols and the values they carry; nothing here does anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from heartbit.core.commands import Command
from heartbit.core.delegation import BlackboardWrite
from heartbit.core.events import Event
from heartbit.core.messages import Json
from heartbit.core.state import RunState
from heartbit.engines.leases import Held
from heartbit.engines.plan import Plan, RunPlace
from heartbit.engines.transactions import CallTransaction
from heartbit.stores.journal import ToolTransaction


@dataclass(frozen=True, kw_only=True, slots=True)
class ExternalCall:
    """A task of another code base that a step calls; `task_id` is the same whenever it is sent."""

    task: str
    task_id: str
    arguments: Json
    attempt: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What is known elsewhere of a call: its outcome as text, or only whether it is at work."""

    state: Literal["unknown", "running", "done"]
    content: str = ""
    is_error: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Dispatch:
    """A step of a run to send to a queue after a commit; the rest is what people are shown.

    With a `call` that is sent in place of the step; no queue means the one of its own routes.
    """

    run_id: str
    step: str
    queue: str
    root_run_id: str = ""
    agent: str = ""
    tool: str = ""
    call: ExternalCall | None = None


class Outbox(Protocol):
    """Where an engine's messages go; sending twice, or late, does no harm."""

    def steps(self, dispatches: Sequence[Dispatch]) -> None:
        """Have these steps worked on."""

    def sub_runs(self, parent_run_id: str, run_ids: Sequence[str]) -> None:
        """Have these sub-runs started, and the parent woken when all of them have ended."""

    def finished(self, run_id: str) -> None:
        """Publish the end of a run to whoever waits for it."""

    def wake(self, run_id: str) -> None:
        """Have somebody look after a run."""

    def chore(self, task: str, queue: str) -> None:
        """Have a task done that belongs to no run; one that gets lost comes again by itself."""

    def reachable(self) -> bool:
        """Whether messages get to the broker now: what is not sent at all is certainly not lost."""

    def empty_queues(self) -> Sequence[str]:
        """Queues that certainly hold no message now: what is not claimed by then is lost.

        Not knowing is no failure; then there are none.
        """

    def answer(self, task_id: str) -> Answer:
        """What is known of an external call. Not being able to find out is no failure."""

    def revoke(self, task_ids: Sequence[str]) -> None:
        """Nobody waits for these external calls any more: do not begin them, if you can."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """A performed command: its event, and what it puts on blackboards, to be stored with that.

    An open `transaction` has what a tool has written to tables of its own: the event is appended in
    it, and whoever does so ends it.
    """

    event: Event
    board: Sequence[BlackboardWrite] = ()
    transaction: CallTransaction[ToolTransaction] | None = None


Work = Callable[[Command, RunState, RunPlace, Held], Done]
Announce = Callable[[RunPlace, Plan], None]
