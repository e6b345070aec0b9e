"""Many runs that wait: for their models in one worker, or for a human in none."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import urlopen

import psycopg
from celery.result import AsyncResult

from benchmarks.fleet import Fleet, fleet, services, until
from benchmarks.processes import peak_mb, resident_mb
from benchmarks.report import Found
from benchmarks.rig import model_server
from heartbit.engines.durable import DurableEngine
from heartbit.engines.plan import CONTROL_QUEUE, MODEL_QUEUE, START_QUEUE
from heartbit.engines.ports import Done
from heartbit.engines.recovery import Sweep
from heartbit.outbox import CeleryOutbox
from heartbit.stores.postgres import PostgresJournal

HELD, LATENCY_SECONDS = 500, 2.0
WAITING, SWEEPS = 10_000, 20
SETTLED_SECONDS = 3.0
LEASE_SECONDS = 15.0
PERMISSION = """
[[permissions]]
tool = "add"
action = "ask"
"""
SPREAD = """
    select extract(epoch from max(created_at) - min(created_at))
      from run_events where type = 'model_replied'
"""
WAITING_STEPS = "select count(*) from steps where state = 'pending' and dispatched_at is not null"
COPIES = """
    create temporary table copies as
        select gen_random_uuid() as id, runs.id as original
          from runs, generate_series(1, {runs}) where status = 'waiting';
    insert into runs (id, task_id, root_run_id, agent, title, prompt_hash, definition_hash, status,
                      next_seq, completion)
    select c.id, c.id, c.id, agent, title, prompt_hash, definition_hash, status, next_seq,
           completion
      from copies as c join runs on runs.id = original;
    insert into run_events (run_id, seq, step, type, v, payload)
    select c.id, seq, step, type, v, payload
      from copies as c join run_events on run_id = original;
    insert into steps (run_id, step, kind, queue, repeatable, state, attempt, dispatched_at,
                       dispatch_after)
    select c.id, step, kind, queue, repeatable, state, attempt, dispatched_at, dispatch_after
      from copies as c join steps on run_id = original;
    insert into approvals (run_id, step, agent, calls, calls_hash)
    select c.id, step, approvals.agent, calls, calls_hash
      from copies as c join approvals on run_id = original;
    analyze
"""


def measure(*, held: int = HELD, waiting: int = WAITING) -> list[Found]:
    """All rows of this module."""
    return [*measure_held(held), *measure_waiting(waiting)]


def measure_held(calls: int = HELD) -> list[Found]:
    """One worker for model turns that finds so many first turns of two seconds in its queue."""
    with (
        model_server(LATENCY_SECONDS) as model,
        services() as servers,
        fleet(servers, "held", model) as made,
    ):
        made.start_worker(threads=4, queues=[CONTROL_QUEUE])
        worker = made.start_worker(threads=calls, queues=[START_QUEUE, MODEL_QUEUE])
        made.add(1, 1)
        alone = peak_mb(worker.pid)
        made.query("truncate runs, run_events, steps")
        sent = _queued(made, calls)
        made.app.control.add_consumer(START_QUEUE, reply=True)
        assert {"sum=0"} == {result["result"] for result in made.results(sent)}
        lasted, together = LATENCY_SECONDS + float(made.query(SPREAD)), peak_mb(worker.pid)
        most = int(urlopen(f"{model}/most").read())
    return [
        Found("held", calls, most, most),
        Found("held_wall", LATENCY_SECONDS, lasted, lasted),
        Found("held_memory", alone, together, together),
    ]


def _queued(made: Fleet, runs: int) -> list[AsyncResult[Any]]:
    """Runs whose first turns have been sent, and that no worker has taken yet."""
    made.app.control.cancel_consumer(START_QUEUE, reply=True)
    sent = [made.send("turns=1 pad=0") for _ in range(runs)]
    until(lambda: int(made.query(WAITING_STEPS)) >= runs - 1)  # one read was under way
    return sent


def measure_waiting(runs: int = WAITING) -> list[Found]:
    """A worker and its sweep beside nothing, and beside so many runs that wait for a human."""
    with (
        model_server() as model,
        services() as servers,
        fleet(servers, "waiting", model, more=PERMISSION) as made,
    ):
        alone, nothing = _resting(made), _sweeping(made)
        _park(made, runs)
        beside, everything = _resting(made), _sweeping(made)
    return [
        Found("waiting_runs_memory", alone, beside, beside - alone),
        Found("waiting_runs_sweep", nothing, everything, everything),
    ]


def _resting(made: Fleet) -> float:
    """The memory of a new worker that has done one run, and then swept for a while."""
    worker = made.start_worker()
    made.results([made.send("turns=1 pad=0")])
    time.sleep(SETTLED_SECONDS)
    memory = resident_mb(worker.pid)
    made.stop()
    return memory


def _park(made: Fleet, runs: int) -> None:
    """Runs that wait are all alike: one is brought there for real, and copied row by row."""
    made.start_worker()
    made.send("turns=2 pad=0")
    until(lambda: made.query("select count(*) from runs where status = 'waiting'"))
    made.stop()
    with psycopg.connect(made.database, autocommit=True) as connection:
        connection.execute(COPIES.format(runs=runs - 1).encode())


def _sweeping(made: Fleet) -> float:
    """Milliseconds of a recovery sweep, all its statements and a look into every queue."""
    with _sweep(made) as sweep:
        taken = []
        for _ in range(SWEEPS + 1):
            made.query("delete from sweeps")
            start = time.perf_counter()
            assert sweep.once()
            taken.append((time.perf_counter() - start) * 1000)
    return statistics.median(taken[1:])  # the first one connects


@contextmanager
def _sweep(made: Fleet) -> Iterator[Sweep]:
    """The sweep of a process that works on nothing."""
    made.app.set_current()
    journal = PostgresJournal(made.database)
    engine = DurableEngine(
        journal=journal,
        outbox=CeleryOutbox(),
        work=_never,
        owner="nobody",
        lease_seconds=LEASE_SECONDS,
    )
    try:
        yield Sweep(journal, engine, lease_seconds=LEASE_SECONDS)
    finally:
        journal.close()


def _never(*_: object) -> Done:
    raise AssertionError("this process works on nothing")
