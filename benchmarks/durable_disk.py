"""What durable runs write: transactions that wait for the disk, log, and growth of the database.

PostgreSQL counts by itself. A client's backend that flushes the log is a transaction that waited
for the disk; what need not wait is flushed by the log's own writer. A worker with one thread does
it, so that no two transactions share a flush, and the count is read when the worker has gone,
because backends report late.
"""

from __future__ import annotations

import random
import string
import time

import psycopg

from benchmarks.fleet import Fleet, Services, fleet, services
from benchmarks.model_server import total
from benchmarks.report import Found
from benchmarks.rig import model_server
from heartbit import tool

RUNS, TURNS, PER_RUN = 10, 10, 2
LONG, EDGE = 100, 10
RESULT_CHARACTERS, CONVERSATION_CHARACTERS = 5_000, 840_000
SAMPLE_SECONDS = 0.005
FLUSHES = """
    select sum(fsyncs) from pg_stat_io where object = 'wal' and backend_type = 'client backend'
"""
SIZE = """
    select sum(pg_total_relation_size(oid))
      from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace
"""
NOW = """
    select events.turns, pg_current_wal_insert_lsn() - '0/0', status
      from runs, lateral (select count(*) as turns from run_events
                           where run_id = runs.id and type = 'model_replied') as events
     where created_at > heartbit_now() - interval '30 minutes'
"""


@tool(effect="pure", name="add")
async def long_add(a: int, b: int) -> str:
    """Add two numbers; the first of a turn's two results is long."""
    return str(a + b) if b else f"{a} {_noise(RESULT_CHARACTERS, seed=a)}"


def measure(*, runs: int = RUNS, turns: int = LONG) -> list[Found]:
    """All rows of this module; `turns` is how long the long run is."""
    with model_server() as model, services() as servers:
        found = [_commits(servers, model, steps, runs) for steps in ("each", "batched")]
        return [*found, *_growth(servers, model, turns)]


def _noise(characters: int, *, seed: int) -> str:
    """Text that no database can make much smaller, the same for each seed."""
    alphabet = string.ascii_letters + string.digits
    return "".join(random.Random(seed).choices(alphabet, k=characters))


def _commits(servers: Services, model: str, steps: str, runs: int) -> Found:
    """Those of a whole run, and those of a turn without the two that a run may cost besides."""
    with fleet(servers, f"commits_{steps}", model, steps=steps) as made:
        before = int(made.query(FLUSHES))
        made.start_worker(threads=1)
        for _ in range(runs):
            made.add(1, TURNS)
        made.stop()
        per_run = (int(made.query(FLUSHES)) - before) / runs
    per_turn = (per_run - PER_RUN) / TURNS
    return Found(f"commits_{steps}", per_run, per_turn, per_turn)


def _growth(servers: Services, model: str, turns: int) -> list[Found]:
    """A long run on a long conversation, watched from outside."""
    tools = '"benchmarks.durable_disk:long_add"'
    with fleet(servers, "growth", model, tools=tools) as made:
        made.start_worker()
        made.query("checkpoint")
        made.add(2, EDGE)  # what is written for the first time after a checkpoint is written whole
        made.query("update runs set created_at = created_at - interval '1 hour'")
        before = int(made.query(SIZE))
        log = _watched(made, turns)
        grown = int(made.query(SIZE)) - before
    early, late = _per_turn(log, 1, 1 + EDGE), _per_turn(log, turns - 1 - EDGE, turns - 1)
    return [
        Found("growth", CONVERSATION_CHARACTERS / 1e6, grown / 1e6, grown / 1e6),
        Found("log", early / 1e3, late / 1e3, late / early),
    ]


def _per_turn(log: dict[int, int], first: int, last: int) -> float:
    """Bytes per turn between two turns, or the next ones that were seen."""
    first, last = (min(turn for turn in log if turn >= wanted) for wanted in (first, last))
    return (log[last] - log[first]) / (last - first)


def _watched(made: Fleet, turns: int) -> dict[int, int]:
    """Where the log was when so many turns had their replies."""
    beginning = f"turns={turns} pad=0 "
    rest = CONVERSATION_CHARACTERS - len(beginning) - RESULT_CHARACTERS * (turns - 1)
    sent = made.send(beginning + _noise(max(rest, 0), seed=-1))
    log: dict[int, int] = {}
    with psycopg.connect(made.database, autocommit=True) as connection:
        status = "queued"
        while status not in ("succeeded", "failed"):
            seen, position, status = connection.execute(NOW).fetchone() or (0, 0, status)
            log.setdefault(seen, int(position))
            time.sleep(SAMPLE_SECONDS)
    (result,) = made.results([sent])
    assert result["result"] == f"sum={total(turns)}", result
    return log
