"""A worker that does not know how a run is written down leaves its steps to those that do."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from celery.exceptions import Ignore

from heartbit import runtime as process
from heartbit.core.commands import Command
from heartbit.core.events import RunStarted
from heartbit.core.state import RunState
from heartbit.engines.durable import DurableEngine
from heartbit.engines.leases import Held
from heartbit.engines.plan import RunPlace
from heartbit.engines.ports import Done
from heartbit.engines.recovery import Sweep
from heartbit.errors import JournalError
from heartbit.stores.postgres import PostgresJournal
from heartbit.tasks import llm_turn
from tests.support.bench import LEASE_SECONDS, RUN, SOLO, Outbox

NEWER = {
    "an event of a newer version": "update run_events set v = 99",
    "rules of a newer version": """
        update run_events set payload = jsonb_set(payload::jsonb, '{rules_version}', '99')::json
    """,
    "a kind of event that is not known": """
        update run_events set payload = '{"type": "run_dreamt"}'
    """,
}
every_novelty = pytest.mark.parametrize("change", NEWER.values(), ids=NEWER.keys())


class Worker:
    """A worker of today's version with a journal in PostgreSQL."""

    def __init__(self, database: str) -> None:
        self.database = database
        self.journal = PostgresJournal(database)
        self.outbox = Outbox()
        self.engine = DurableEngine(
            journal=self.journal,
            outbox=self.outbox,
            work=self._work,
            owner="old",
            lease_seconds=LEASE_SECONDS,
        )
        self.sweep = Sweep(self.journal, self.engine, lease_seconds=LEASE_SECONDS)
        start = RunStarted(prompt="Go.", definition=SOLO, blackboard=RUN)
        self.engine.open(RunPlace(run_id=RUN, root_run_id=RUN), start, task_id=RUN)

    def close(self) -> None:
        """Let go of the database."""
        self.journal.close()

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """What a statement gives."""
        with psycopg.connect(self.database, autocommit=True) as connection:
            found = connection.execute(statement)  # type: ignore[arg-type]
            return found.fetchall() if found.description else []

    def _work(self, command: Command, state: RunState, place: RunPlace, held: Held) -> Done:
        raise AssertionError("nothing may be begun")


@pytest.fixture
def worker(postgres: str) -> Iterator[Worker]:
    """With one run, of which nothing was done yet."""
    made = Worker(postgres)
    yield made
    made.close()


STEP = "select state, lease_owner, suspicion from steps"


@every_novelty
def test_a_step_of_a_newer_journal_is_given_back(worker: Worker, change: str) -> None:
    """No lease runs out, and nobody takes the worker for lost; a newer one can have it at once."""
    worker.sql(change)
    with pytest.raises(JournalError):
        worker.engine.step(RUN, "1/model")
    assert [("pending", None, 0)] == worker.sql(STEP)


def test_the_log_has_one_clear_line(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    """It says which step of which run, and what to do."""
    worker.sql(NEWER["an event of a newer version"])
    process.use(SimpleNamespace(engine=worker.engine, close=lambda: None))  # type: ignore[arg-type]
    try:
        with caplog.at_level(logging.INFO, "heartbit"), pytest.raises(Ignore):
            llm_turn(RUN, "1/model")
    finally:
        process.close()
    [line] = [record.getMessage() for record in caplog.records]
    assert f"The step 1/model of run {RUN} was dropped: The journal has an event of version" in line
    assert "upgrade it" in line


def test_a_newer_worker_does_what_an_older_one_has_given_back(worker: Worker) -> None:
    """The sweep sends it again after a lease, to whoever comes first."""
    worker.sql(NEWER["an event of a newer version"])
    with pytest.raises(JournalError):
        worker.engine.step(RUN, "1/model")
    worker.sql("update run_events set v = 1")
    worker.sql("update steps set dispatch_after = dispatch_after - interval '1 hour'")
    worker.sweep.once()
    assert [("step", RUN, "1/model")] == worker.outbox.messages
    claim = worker.journal.claim(RUN, "1/model", owner="new", lease_seconds=1, known=0)
    assert None is claim.why_not


def test_the_sweep_of_an_older_worker_leaves_a_verdict_to_a_newer_one(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    """It cannot know what the call was; the lost step stays as it is."""
    worker.journal.claim(RUN, "1/model", owner="lost", lease_seconds=1, known=0)
    worker.sql(
        "update steps set repeatable = false, lease_expires_at = lease_expires_at - interval '1 h'"
    )
    worker.sql(NEWER["rules of a newer version"])
    with caplog.at_level(logging.WARNING, "heartbit"):
        worker.sweep.once()
    assert [("running", "lost", 0)] == worker.sql(STEP)
    assert "newer" not in caplog.text
    assert "this heartbit knows up to" in caplog.text
