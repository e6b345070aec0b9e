"""Journals to be tested, each with a clock that only a test moves forward."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from heartbit.core.agent import AgentDefinition
from heartbit.core.events import Event, ModelReplied, RunFinished, RunStarted, ToolReturned
from heartbit.core.messages import Completion, TextPart
from heartbit.stores.database import Connection, Database
from heartbit.stores.journal import Append, Change, Journal, NewRun, NewStep
from heartbit.stores.memory_journal import InMemoryJournal
from heartbit.stores.postgres import PostgresJournal
from heartbit.stores.postgres_runs import PostgresRuns

JOURNALS: tuple[type[Journal], ...] = (InMemoryJournal, PostgresJournal)
SOLO = AgentDefinition(name="solo", system_prompt="You act.")
LEASE = 15.0
AGAIN = 10.0


class ClockedDatabase(Database):
    """A database whose clock is ahead of the server's by `offset` seconds."""

    offset = 0.0

    def ahead(self) -> float:
        """By how many seconds."""
        return self.offset

    @contextmanager
    def connection(self, pool: str = "journal") -> Iterator[Connection]:
        """A connection that tells that time."""
        with super().connection(pool) as connection:
            setting = [f"{self.ahead()} seconds"]
            connection.execute("select set_config('heartbit.clock_offset', %s, false)", setting)
            yield connection


class ClockedJournal(PostgresJournal):
    """The journal over such a database."""

    def __init__(self, url: str, kind: type[ClockedDatabase] = ClockedDatabase) -> None:
        self.database = kind(url)
        PostgresRuns.__init__(self, self.database)


@dataclass
class Stage:
    """A journal, and what most tests do with one."""

    journal: Any
    offset: float = 0.0

    def advance(self, seconds: float) -> None:
        """Let time go by."""
        self.offset += seconds
        if isinstance(self.journal, ClockedJournal):
            self.journal.database.offset = self.offset

    def open(self, *steps: NewStep, prompt: str = "Go.", **columns: Any) -> str:
        """Open a root run; without steps it begins with the first model turn."""
        new = new_run(*steps, prompt=prompt, **columns)
        self.journal.open_run(new)
        return new.run_id

    def claim(self, run_id: str, step: str = "1/model", **options: Any) -> Any:
        """Claim a step for the worker `w`."""
        options = {"owner": "w", "lease_seconds": LEASE, "known": 0} | options
        return self.journal.claim(run_id, step, **options)

    def append(self, run_id: str, *events: Event, expected: Any = 2, **options: Any) -> Any:
        """Append events, by default as the first ones after the start."""
        return self.journal.append(
            Append(run_id=run_id, expected=expected, events=events, **options)
        )

    def finish(self, run_id: str, expected: int = 2) -> Any:
        """End a run well."""
        change = Change(status="succeeded", output={"result": "done"})
        return self.append(run_id, RunFinished(result="done"), expected=expected, change=change)

    def expired(self, limit: int = 100) -> dict[str, str]:
        """What became of every step whose lease has run out."""
        found = self.journal.expired_steps(limit=limit, again_seconds=AGAIN)
        return {each.step: each.fate for each in found}

    def unsent(self, **options: Any) -> list[str]:
        """The steps that the sweep sends now."""
        found = self.journal.unsent_steps(limit=100, again_seconds=AGAIN, **options)
        return [each.step for each in found]

    def timers(self) -> list[str]:
        """What runs are to be looked after for now."""
        found = self.journal.due_timers(limit=100, again_seconds=AGAIN)
        return sorted(each.what for each in found)


def memory_stage() -> Stage:
    """On a journal in memory."""
    begun, ticks = time.time(), itertools.count()
    stage = Stage(InMemoryJournal(lambda: begun + next(ticks) / 1e6 + stage.offset))
    return stage


def model(step: str = "1/model", **options: Any) -> NewStep:
    """A model turn to be done."""
    return NewStep(step=step, kind="model", queue="llm", **options)


def tool(step: str = "1/tool/0", **options: Any) -> NewStep:
    """A tool call to be done."""
    return NewStep(**{"step": step, "kind": "tool", "queue": "tools"} | options)


def new_run(*steps: NewStep, prompt: str = "Go.", **columns: Any) -> NewRun:
    """A root run, unless the columns say something else."""
    run_id = columns.pop("run_id", None) or str(uuid.uuid4())
    definition = columns.pop("definition", SOLO)
    start = RunStarted(prompt=prompt, definition=definition, blackboard=run_id)
    ids: dict[str, Any] = {"task_id": run_id, "root_run_id": run_id}
    return NewRun(run_id=run_id, start=start, steps=steps or (model(),), **ids | columns)


def sub_run(root: str, step: str = "1/sub/0", parent: str | None = None, **columns: Any) -> NewRun:
    """A run that a step of another one starts."""
    return new_run(root_run_id=root, parent_run_id=parent or root, step_in_parent=step, **columns)


def replied(text: str = "Hello.", step: str = "1/model") -> ModelReplied:
    """A model's answer."""
    completion = Completion(parts=(TextPart(text=text),), stop_reason="end_turn")
    return ModelReplied(step=step, completion=completion)


def returned(step: str = "1/tool/0", content: str = "ok") -> ToolReturned:
    """A tool's result."""
    return ToolReturned(step=step, content=content)
