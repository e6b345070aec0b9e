"""`RunHandle`: one durable run in the hands of a program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from heartbit.client.events import RunEvents
from heartbit.core.events import Decision, RunStatus
from heartbit.core.messages import Json
from heartbit.core.result import PendingApproval, RunOutput
from heartbit.errors import run_error
from heartbit.stores.records import ENDED

if TYPE_CHECKING:
    from heartbit.client.runs import Client


@dataclass(frozen=True, kw_only=True, slots=True)
class RunHandle:
    """A durable run, from any process that reaches the journal."""

    id: str
    client: Client

    def status(self) -> RunStatus:
        """Where it stands; `waiting` when only a human can let it go on."""
        return self.client.output(self.id).status

    def events(self, *, after: str | None = None) -> RunEvents:
        """What it and those below it say, until its end; see `heartbit.stream`."""
        return self.client.stream(self.id, after=after)

    def fork(
        self, from_turn: int, *, model: str | None = None, prompt: str | None = None
    ) -> RunHandle:
        """Open a run that keeps everything before a turn, and asks that turn anew.

        Raises:
            RunStateError: there is no such turn, it is a sub-run, or the prompt does not fit.
        """
        return self.client.fork(self.id, from_turn, model=model, prompt=prompt)

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
