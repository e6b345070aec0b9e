"""A limit of runs that are at work: who begins when, without anybody asking."""

from __future__ import annotations

import threading
import time
import uuid
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from heartbit.core.commands import CallTool, Command
from heartbit.core.events import RunStarted
from heartbit.core.state import RunState
from heartbit.engines.durable import DurableEngine
from heartbit.engines.plan import RunPlace
from heartbit.engines.ports import Done
from heartbit.engines.recovery import Sweep
from heartbit.stores.memory_journal import InMemoryJournal
from heartbit.stores.postgres import PostgresJournal
from tests.support.bench import SOLO, Clock, Outbox, calling
from tests.support.journals import returned

SECONDS = 30


@dataclass
class Place:
    """A journal, a worker with a limit, and messages that lie there until they are delivered."""

    limit: int | None = 1
    say: Any = field(default_factory=lambda: calling())
    clock: Clock = field(default_factory=Clock)
    outbox: Outbox = field(default_factory=Outbox)

    def __post_init__(self) -> None:
        self.journal = InMemoryJournal(self.clock)
        self.engine = self.worker(self.limit)
        self.sweep = Sweep(self.journal, self.engine, lease_seconds=15)

    def worker(self, limit: int | None) -> DurableEngine:
        """Another process."""
        return DurableEngine(
            journal=self.journal,
            outbox=self.outbox,
            work=self._work,
            owner="w",
            clock=self.clock,
            max_active_runs=limit,
        )

    def submit(self, agent: Any = SOLO) -> str:
        """A run that somebody has opened and sent."""
        run_id = str(uuid.uuid4())
        start = RunStarted(prompt="Go.", definition=agent, blackboard=run_id)
        place = RunPlace(run_id=run_id, root_run_id=run_id)
        self.engine.open(place, start, task_id=run_id)
        self.engine.resume(run_id)
        self.clock.now += 0.001
        return run_id

    def deliver(self) -> list[str]:
        """Deliver the messages of steps that lie there; gives their runs."""
        messages, self.outbox.messages = self.outbox.messages, []
        steps = [each for each in messages if each[0] == "step"]
        for _, run_id, step in steps:
            self.engine.step(run_id, step)
        return [run_id for _, run_id, _ in steps]

    def status(self, run_id: str) -> str:
        """Where a run stands."""
        return self.journal.run(run_id).status

    def _work(self, command: Command, state: RunState, *_: object) -> Done:
        if isinstance(command, CallTool):
            return Done(event=returned(command.step))
        return Done(event=self.say(state))


def test_runs_above_the_limit_stay_queued_and_begin_when_one_ends() -> None:
    """At once: nobody has to sweep for it."""
    place = Place(limit=2)
    runs = [place.submit() for _ in range(4)]
    assert runs[:2] == place.deliver()
    assert ["succeeded", "succeeded", "queued", "queued"] == [place.status(each) for each in runs]
    assert runs[2:] == place.deliver()
    assert {"succeeded"} == {place.status(each) for each in runs}


def test_a_run_in_the_middle_of_its_turns_keeps_its_place() -> None:
    place = Place(limit=1, say=calling("look"))
    first, second = place.submit(), place.submit()
    assert [[first], [first], [first], [second]] == [place.deliver() for _ in range(4)]


def test_the_sweep_admits_in_place_of_a_run_that_waits_for_a_human() -> None:
    place = Place(limit=1, say=calling("look"))
    asking, next_one = place.submit(replace(SOLO, approve=True)), place.submit()
    place.deliver()
    assert ("waiting", []) == (place.status(asking), place.deliver())
    place.sweep.once()
    assert [next_one] == place.deliver()


def test_the_sweep_admits_what_was_opened_by_somebody_who_then_was_lost() -> None:
    place = Place(limit=1)
    run_id = str(uuid.uuid4())
    start = RunStarted(prompt="Go.", definition=SOLO, blackboard=run_id)
    place.engine.open(RunPlace(run_id=run_id, root_run_id=run_id), start, task_id=run_id)
    assert [] == place.deliver()
    place.sweep.once()
    assert [run_id] == place.deliver()


def test_a_worker_without_a_limit_leaves_nobody_waiting() -> None:
    """The setting was taken out while runs were waiting."""
    place = Place(limit=1)
    first, second = place.submit(), place.submit()
    Sweep(place.journal, place.worker(None), lease_seconds=15).once()
    assert [first, second] == place.deliver()


def test_a_queued_run_can_be_cancelled() -> None:
    place = Place(limit=1)
    first, second = place.submit(), place.submit()
    place.engine.cancel(second)
    place.engine.resume(second)
    assert ("queued", "cancelled") == (place.status(first), place.status(second))
    assert [first] == place.deliver()


def test_without_a_limit_the_journal_is_never_asked_who_may_begin() -> None:
    """Not for any run, and not for any turn."""
    place = Place(limit=None, say=calling("look"))
    asked: list[object] = []

    def admit(limit: int | None) -> tuple[str, ...]:
        asked.append(limit)
        return ()

    place.journal.admit = admit  # type: ignore[method-assign]
    place.submit()
    while place.deliver():
        pass
    assert [] == asked


@pytest.mark.parametrize("limit", [1, 3])
def test_two_racing_workers_never_do_more_than_the_limit(postgres: str, limit: int) -> None:
    """Each takes what the other one sends, and all runs come to their end."""
    at_work, most, lock, ended = 0, 0, threading.Lock(), threading.Event()
    runs = [str(uuid.uuid4()) for _ in range(12)]

    outbox = Outbox()

    def work(command: Command, state: RunState, *_: object) -> Done:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        time.sleep(0.002)  # a model takes its time
        with lock:
            at_work -= 1
        return Done(event=calling()(state))

    def serve(engine: DurableEngine) -> None:
        while not ended.is_set():
            with lock:
                message = outbox.messages.pop(0) if outbox.messages else None
            if message is None:
                ended.wait(0.001)
            elif message[0] == "step":
                engine.step(message[1], message[2])

    journals = [PostgresJournal(postgres, pool_size=3) for _ in range(2)]
    engines = [
        DurableEngine(journal=j, outbox=outbox, work=work, owner=str(n), max_active_runs=limit)
        for n, j in enumerate(journals)
    ]
    threads = [threading.Thread(target=serve, args=[engine]) for engine in engines * 3]
    for thread in threads:
        thread.start()
    for number, run_id in enumerate(runs):
        engine = engines[number % 2]
        start = RunStarted(prompt="Go.", definition=SOLO, blackboard=run_id)
        engine.open(RunPlace(run_id=run_id, root_run_id=run_id), start, task_id=run_id)
        engine.resume(run_id)
    until = time.monotonic() + SECONDS
    while time.monotonic() < until and journals[0].list_runs(status="queued"):
        ended.wait(0.005)
    while time.monotonic() < until and journals[0].list_runs(status="running"):
        ended.wait(0.005)
    ended.set()
    for thread in threads:
        thread.join(SECONDS)
    statuses = {row.status for row in journals[0].list_runs()}
    for journal in journals:
        journal.close()
    assert ({"succeeded"}, True) == (statuses, 0 < most <= limit)
