"""Runs that wait until they may begin: who is first, and what counts as being at work."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from heartbit.core.events import Origin
from heartbit.stores.journal import Append, Change, NewApproval
from heartbit.stores.postgres import PostgresJournal
from tests.support.stages import (
    SOLO,
    ClockedJournal,
    Stage,
    memory_stage,
    model,
    new_run,
    replied,
    sub_run,
    tool,
)

HELD = model(state="held")


@pytest.fixture(params=["memory", "postgres"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A journal of each kind, empty."""
    if request.param == "memory":
        yield memory_stage()
        return
    made = Stage(ClockedJournal(request.getfixturevalue("postgres")))
    yield made
    made.journal.close()


def opened(stage: Stage, **columns: Any) -> str:
    """A run that waits for its admission."""
    return stage.open(HELD, **columns)


def test_nobody_works_on_a_run_that_waits(stage: Stage) -> None:
    """Neither who opened it nor the sweep sends it, and a message that gets lost there is idle."""
    run_id = opened(stage)
    assert () == stage.journal.undispatched(run_id)
    assert () == stage.journal.take_dispatch(run_id, ["1/model"])
    stage.advance(1000)
    assert ([], {}) == (stage.unsent(), stage.expired())
    assert "leased" == stage.claim(run_id).why_not
    assert "queued" == stage.journal.run(run_id).status


def test_an_admitted_run_is_one_like_any_other(stage: Stage) -> None:
    run_id = opened(stage)
    assert (run_id,) == stage.journal.admit(1)
    assert ("1/model",) == stage.journal.undispatched(run_id)
    assert None is stage.claim(run_id).why_not
    assert () == stage.journal.admit(9)


def test_the_highest_priority_is_first_and_then_the_oldest(stage: Stage) -> None:
    runs = [opened(stage, priority=priority) for priority in (0, -1, 5, 0, 5)]
    admitted = []
    for limit in range(1, 6):
        [run_id] = stage.journal.admit(limit)
        admitted.append(runs.index(run_id))
    assert [2, 4, 0, 3, 1] == admitted


def test_as_many_are_admitted_as_there_are_places(stage: Stage) -> None:
    runs = [opened(stage) for _ in range(5)]
    assert tuple(runs[:3]) == stage.journal.admit(3)
    assert () == stage.journal.admit(3)
    assert () == stage.journal.admit(1)
    stage.finish(runs[1])
    assert (runs[3],) == stage.journal.admit(3)


def test_without_a_limit_all_of_them_begin(stage: Stage) -> None:
    """Whoever takes the limit out of the configuration leaves nobody waiting."""
    runs = {opened(stage) for _ in range(3)}
    assert runs == set(stage.journal.admit(None))


def test_a_run_that_waits_for_a_human_makes_room(stage: Stage) -> None:
    """And takes its place again without waiting for one."""
    asked, next_one = opened(stage), opened(stage)
    stage.journal.admit(1)
    stage.claim(asked)
    stage.append(
        asked,
        replied(),
        step="1/model",
        attempt=1,
        approval=NewApproval(step="1/approval", agent="solo", calls=()),
        change=Change(status="waiting"),
    )
    assert (next_one,) == stage.journal.admit(1)
    stage.append(asked, expected=3, steps=[tool()], change=Change(status="running"))
    assert ("1/tool/0",) == stage.journal.undispatched(asked)


def test_a_call_in_doubt_that_a_human_decides_about_makes_room_too(stage: Stage) -> None:
    asked, next_one = opened(stage), opened(stage)
    stage.journal.admit(1)
    stage.claim(asked)
    steps = [tool(repeatable=False)]
    stage.append(asked, replied(), step="1/model", attempt=1, steps=steps)
    stage.claim(asked, "1/tool/0")
    stage.advance(100)
    parked = {"step": "1/tool/0", "attempt": 1, "verdict": True, "park": True}
    assert stage.append(asked, expected=3, change=Change(status="waiting"), **parked).ok
    assert (next_one,) == stage.journal.admit(1)


def test_sub_runs_are_part_of_their_tree(stage: Stage) -> None:
    """However many there are; and while one of them is at work its tree is."""
    root, next_one = opened(stage), opened(stage)
    stage.journal.admit(1)
    stage.claim(root)
    waits = [replace(model(f"1/sub/{n}", state="external"), kind="sub_run") for n in (0, 1)]
    children = [sub_run(root, f"1/sub/{n}") for n in (0, 1)]
    stage.append(root, replied(), step="1/model", attempt=1, steps=waits, runs=children)
    assert () == stage.journal.admit(1)
    stage.finish(children[0].run_id)
    assert () == stage.journal.admit(1)
    stage.finish(children[1].run_id)
    assert (next_one,) == stage.journal.admit(1)


def test_the_time_that_a_run_may_take_begins_with_its_admission(stage: Stage) -> None:
    limited = replace(SOLO, run_timeout_seconds=60.0)
    run_id = opened(stage, definition=limited)
    stage.advance(1000)
    assert [] == stage.timers()
    stage.journal.admit(1)
    stage.advance(59)
    assert [] == stage.timers()
    stage.advance(2)
    assert ["deadline"] == stage.timers()
    assert "queued" == stage.journal.run(run_id).status


def test_a_run_that_ended_while_it_waited_is_not_admitted(stage: Stage) -> None:
    """Somebody has cancelled it."""
    first, second = opened(stage), opened(stage)
    stage.finish(first)
    assert (second,) == stage.journal.admit(1)


def test_only_what_is_left_to_do_of_a_fork_begins(stage: Stage) -> None:
    origin = stage.open()
    stage.claim(origin)
    stage.append(origin, replied(), step="1/model", attempt=1)
    new = new_run(model("2/model", state="held"), kept=stage.journal.events(origin)[1:])
    fork = replace(new, start=replace(new.start, forked_from=Origin(run_id=origin, turn=2)))
    stage.journal.open_run(fork)
    assert (new.run_id,) == stage.journal.admit(9)
    assert ("2/model",) == stage.journal.undispatched(new.run_id)
    assert "done" == stage.claim(new.run_id, "1/model").why_not


def test_who_admits_counts_what_another_one_is_just_admitting(postgres: str) -> None:
    """It waits until the other one is done, for until then nobody can know."""
    journal = PostgresJournal(postgres, pool_size=1)
    for _ in range(3):
        journal.open_run(new_run(HELD))
    with psycopg.connect(postgres) as other, ThreadPoolExecutor(1) as pool:
        assert 2 == len(other.execute("select heartbit_admit_v1(2)").fetchall())
        admitting = pool.submit(journal.admit, 2)
        with psycopg.connect(postgres, autocommit=True) as watch:
            while not watch.execute(WAITING).fetchall():
                assert not admitting.done()
        other.commit()
        assert () == admitting.result(30)
    journal.close()


WAITING = """
    select from pg_stat_activity
     where datname = current_database() and wait_event_type = 'Lock'
"""


def test_two_processes_that_admit_at_the_same_time_stay_within_the_limit(postgres: str) -> None:
    """Each run is admitted once, and there are never more of them at work than allowed."""
    journals = [PostgresJournal(postgres, pool_size=1) for _ in range(2)]
    runs = {str(uuid.uuid4()) for _ in range(20)}
    for run_id in runs:
        journals[0].open_run(new_run(HELD, run_id=run_id))
    at_work: set[str] = set()
    admitted: list[str] = []
    too_many: list[int] = []
    lock = threading.Lock()

    def work(journal: PostgresJournal) -> None:
        while len(admitted) < len(runs):
            for run_id in journal.admit(3):
                with lock:
                    admitted.append(run_id)
                    at_work.add(run_id)
                    too_many.extend([len(at_work)] if len(at_work) > 3 else [])
            with lock:
                run_id = at_work.pop() if at_work else ""
            if run_id:
                end = Change(status="succeeded", output={})
                event = replied(step="1/model")
                journal.append(Append(run_id=run_id, expected=2, events=[event], change=end))

    threads = [threading.Thread(target=work, args=[journal]) for journal in journals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for journal in journals:
        journal.close()
    assert (sorted(runs), []) == (sorted(admitted), too_many)


CROWD = """
insert into runs (id, task_id, root_run_id, agent, title, prompt_hash, definition_hash, status,
                  deadline_at, priority)
select id, id, id, 'a', 't', 'p', 'd', case when n > 20000 then 'waiting' else 'queued' end,
       now() + interval '1 hour', n % 7
  from (select gen_random_uuid() as id, n from generate_series(1, 100000) as n) as made;
insert into steps (run_id, step, kind, queue, repeatable, state, dispatch_after)
select id, '1/model', 'model', 'q', true, case status when 'waiting' then 'done' else 'held' end,
       now()
  from runs;
insert into admissions (run_id, priority, created_at)
select id, priority, created_at from runs where status = 'queued';
analyze;
"""


@pytest.mark.slow
def test_what_an_admission_reads_does_not_grow_with_those_that_wait(postgres: str) -> None:
    """Twenty thousand in the queue, and four times as many that wait for a human."""
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(CROWD.encode())
        for limit in (1, 2):
            asked = f"explain (analyze, buffers, format json) select heartbit_admit_v1({limit})"
            [(explained,)] = connection.execute(asked.encode()).fetchall()
        plan = explained[0]["Plan"]
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 200
