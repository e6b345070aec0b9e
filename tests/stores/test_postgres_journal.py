"""What only a journal in PostgreSQL can promise: cost, plans, locks, and words for its failures."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import ClientCursor

from heartbit.core.delegation import BlackboardWrite
from heartbit.core.events import Event
from heartbit.errors import JournalError, JournalUnavailable, LeaseLost
from heartbit.stores import database
from heartbit.stores.codec import VERSION
from heartbit.stores.failures import SENTENCES
from heartbit.stores.journal import Append, Change
from heartbit.stores.postgres import PostgresJournal
from heartbit.stores.sql import queries
from tests.support.stages import (
    LEASE,
    SOLO,
    Stage,
    model,
    new_run,
    replied,
    returned,
    sub_run,
    tool,
)

Sql = Callable[..., list[Any]]


@pytest.fixture
def stage(postgres: str) -> Iterator[Stage]:
    """A journal with the server's own clock."""
    made = Stage(PostgresJournal(postgres))
    yield made
    made.journal.close()


@pytest.fixture
def sql(postgres: str) -> Iterator[Sql]:
    """Run a statement beside the journal."""
    with psycopg.connect(postgres, autocommit=True) as connection:

        def run(statement: str, *parameters: Any) -> list[Any]:
            cursor = connection.execute(statement.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

        yield run


# Cost


def written(sql: Sql) -> int:
    """How many bytes the server has logged since it began."""
    return int(sql("select pg_current_wal_insert_lsn() - '0/0'")[0][0])


def test_what_an_append_writes_does_not_grow_with_the_journal(stage: Stage, sql: Sql) -> None:
    run_id = stage.open()
    sql("checkpoint")  # later changes of a page log the page once: only the first ones do here
    costs = []
    for seq in range(2, 152):
        before = written(sql)
        step = f"{seq}/tool/0"
        stage.append(
            run_id, returned(f"{seq - 1}/tool/0", "x" * 5000), expected=seq, steps=[tool(step)]
        )
        costs.append(written(sql) - before)
    first, last = sorted(costs[10:60]), sorted(costs[100:])
    assert last[25] < 1.2 * first[25]


def test_definitions_are_kept_once(stage: Stage, sql: Sql) -> None:
    long = replace(SOLO, system_prompt="y" * 100_000)
    for _ in range(3):
        stage.open(definition=long)
    assert [(1,)] == sql("select count(*) from definitions")
    assert [(True,)] == sql("select max(length(payload::text)) < 1000 from run_events")


def durable(url: str) -> str:
    """The database with commits that wait for the disk, which tests' servers do without."""
    return f"{url}?options=-c%20synchronous_commit%3Don"


@pytest.mark.parametrize(("repeatable", "waits"), [(True, "off"), (False, "on")])
def test_only_the_claim_of_a_repeatable_step_does_not_wait_for_the_disk(
    stage: Stage, postgres: str, repeatable: bool, waits: str
) -> None:
    run_id = stage.open(tool(repeatable=repeatable))
    claim = {"owner": "w", "lease_seconds": 15.0, "known": 0, "doubt": None}
    with psycopg.connect(durable(postgres)) as connection:
        connection.execute(queries()["claim"], {"run_id": run_id, "step": "1/tool/0", **claim})
        assert (waits,) == connection.execute("show synchronous_commit").fetchone()
        connection.rollback()
        assert ("on",) == connection.execute("show synchronous_commit").fetchone()


def test_an_outcome_waits_for_the_disk(postgres: str) -> None:
    stage = Stage(PostgresJournal(durable(postgres)))
    run_id = stage.open()
    stage.claim(run_id)
    outcome = Append(run_id=run_id, expected=2, events=[replied()], step="1/model", attempt=1)
    with stage.journal.tool_transaction() as transaction:
        assert transaction.append(outcome).ok
        assert ("on",) == transaction.connection.execute("show synchronous_commit").fetchone()
    stage.journal.close()


def test_sending_a_task_of_another_code_base_is_on_disk_before(stage: Stage, postgres: str) -> None:
    run_id = stage.open(model(), tool(state="external"))
    with psycopg.connect(durable(postgres)) as connection:
        for step, waits in (("1/tool/0", "on"), ("1/model", "off")):
            asked = {"run_id": run_id, "steps": [step], "again_seconds": 1.0}
            connection.execute(queries()["take_dispatch"], asked)
            assert (waits,) == connection.execute("show synchronous_commit").fetchone()


def test_nothing_outlives_its_transaction_in_a_session(stage: Stage) -> None:
    run_id = stage.open()
    for _ in range(12):
        stage.journal.run(run_id)
        stage.claim(run_id)
    with stage.journal.tool_transaction() as transaction:
        tool_setting = transaction.connection.execute(
            "show idle_in_transaction_session_timeout"
        ).fetchone()
    assert ("1min",) == tool_setting
    for pool in ("journal", "tools"):
        with stage.journal._database.connection(pool) as connection:
            assert [] == connection.execute("select 1 from pg_prepared_statements").fetchall()
            changed = "select name from pg_settings where source = 'session'"
            assert [] == connection.execute(changed).fetchall()


# Plans

PARKED = """
insert into runs (id, task_id, root_run_id, agent, title, prompt_hash, definition_hash, status,
                  next_seq, completion, tenant_id)
select id, id, id, 'a', 't', 'p', 'd', 'waiting', 4, '{}', 't' || n % 50
  from (select gen_random_uuid() as id, n from generate_series(1, 100000) as n) as made;
insert into run_events (run_id, seq, step, type, v, payload)
select id, seq, seq::text, 'tool_returned', 1, '{}' from runs, generate_series(1, 3) as seq;
insert into steps (run_id, step, kind, queue, repeatable, state, attempt, dispatch_after)
select id, n || '/model', 'model', 'q', true, 'done', 1, now() from runs, generate_series(1, 2) n;
insert into approvals (run_id, step, agent, calls, calls_hash)
select id, '1/approval', 'a', '[]', 'h' from runs;
insert into timers (run_id, what, wake_at)
select id, 'deadline', now() + interval '7 days' from runs;
analyze;
"""
ASKED: dict[str, dict[str, Any]] = {
    "expired_steps": {"limit": 100, "again_seconds": 1.0},
    "unsent_steps": {"limit": 100, "again_seconds": 1.0},
    "unclaimed_steps": {"limit": 100, "again_seconds": 1.0, "queues": ["q"]},
    "due_timers": {"limit": 100, "again_seconds": 1.0},
    "unpublished": {"limit": 100, "again_seconds": 1.0},
    "admit_sweep": {"name": "s", "every_seconds": 1.0},
    "open_approvals": {"limit": 100, "every": True, "tenant": None},
    "list_runs": {"limit": 50, "status": None, "before": None, "every": True, "tenant": None},
}
BIG_TABLES = {"runs", "run_events", "steps", "approvals", "timers"}


@pytest.mark.slow
def test_the_sweep_reads_no_table_through_at_a_hundred_thousand_parked_runs(
    postgres: str, sql: Sql
) -> None:
    sql(PARKED)
    (run_id,) = sql("select id from runs limit 1")[0]
    asked = ASKED | {
        "tree": {"run_id": run_id, "every": True, "tenant": None},
        "stopped_runs": {"run_ids": [run_id]},
        "request_cancel": {"run_id": run_id, "again_seconds": 1, "every": True, "tenant": None},
    }
    with psycopg.connect(postgres, autocommit=True) as connection:
        took = 0.0
        for name, parameters in asked.items():
            statement = ClientCursor(connection).mogrify(queries()[name], parameters)
            explained = connection.execute(f"explain (analyze, format json) {statement}".encode())
            (plan,) = explained.fetchall()[0]
            scanned = {n["Relation Name"] for n in nodes(plan[0]["Plan"]) if is_scan(n)}
            assert (name, set()) == (name, scanned & BIG_TABLES)
            took += plan[0]["Execution Time"]
    assert took < 50


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All nodes of a plan."""
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


def is_scan(node: dict[str, Any]) -> bool:
    """Whether a node reads a whole table."""
    return node["Node Type"] == "Seq Scan"


def test_every_query_is_asked_by_somebody() -> None:
    sources = "".join(path.read_text() for path in STORES.rglob("*.py"))
    assert [] == [name for name in queries() if f'"{name}"' not in sources]


STORES = Path(database.__file__).parent


# Locks


def crossing(work: list[Callable[[int], Any]], times: int) -> None:
    """Do several things at the same instant, again and again; none may fail."""
    barrier = threading.Barrier(len(work))

    def repeat(task: Callable[[int], Any]) -> None:
        for n in range(times):
            barrier.wait(30)
            task(n)

    with ThreadPoolExecutor(len(work)) as pool:
        list(pool.map(repeat, work))


def until_waiting(sql: Sql, count: int) -> None:
    """Return once so many transactions of the journal wait for a lock."""
    waiting = (
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock' "
        "and datname = current_database()"
    )
    while sql(waiting) != [(count,)]:
        pass


@pytest.mark.parametrize("held", ["left", "right"])
def test_boards_that_are_written_in_different_orders_do_not_block_each_other(
    stage: Stage, postgres: str, sql: Sql, held: str
) -> None:
    """Somebody holds one board; who wants it first begins, then who wants it last."""
    other = {"left": "right", "right": "left"}[held]
    orders = [(held, other), (other, held)]
    appends = [
        Append(
            run_id=stage.open(),
            expected=2,
            events=[replied()],
            board=[BlackboardWrite(scope=scope, key="k", value=1) for scope in order],
        )
        for order in orders
    ]
    with psycopg.connect(postgres) as somebody, ThreadPoolExecutor(2) as pool:
        key = f"heartbit.blackboard:{held}"
        somebody.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [key])
        done = []
        for number, append in enumerate(appends, 1):
            done.append(pool.submit(stage.journal.append, append))
            until_waiting(sql, number)
        somebody.rollback()
        assert [True, True] == [each.result().ok for each in done]
    assert [2, 2] == [stage.journal.board_read(scope, "k")[1] for scope in orders[0]]


def test_a_child_that_ends_and_a_sibling_that_does_too_do_not_block_each_other(
    stage: Stage,
) -> None:
    """Both end their own run, then tell their parent, and write one board each on the way."""
    root = stage.open()
    children = [sub_run(root), sub_run(root, "1/sub/1")]
    stage.append(root, replied(), runs=children)
    board = [BlackboardWrite(scope="shared", key="k", value=1)]
    over = Change(status="succeeded")
    ended = [
        Append(run_id=child.run_id, expected=2, events=[replied()], board=board, change=over)
        for child in children
    ]
    told = [
        Append(run_id=root, expected=3, events=[returned(f"1/sub/{n}")], board=board)
        for n in range(2)
    ]

    def end_second() -> bool:
        with stage.journal.transaction() as second:
            return second.append(ended[1]).ok and second.append(told[1]).ok

    with ThreadPoolExecutor(1) as pool, stage.journal.transaction() as first:
        assert first.append(ended[0]).ok
        assert pool.submit(end_second).result(20)
        assert (returned("1/sub/1"),) == first.append(told[0]).behind
        assert first.append(replace(told[0], expected=4)).ok
    assert 4 == len(stage.journal.events(root))
    assert 4 == len(stage.journal.board_after("shared", 0))


def test_two_orchestrators_bring_the_same_new_agents_in_different_orders(stage: Stage) -> None:
    times = 25
    roots = [[stage.open(), stage.open()] for _ in range(times)]

    def start(which: int) -> Callable[[int], None]:
        def once(n: int) -> None:
            agents = [replace(SOLO, system_prompt=f"{n} {name}") for name in "abcd"]
            root = roots[n][which]
            runs = [
                sub_run(root, f"1/sub/{k}", definition=agent)
                for k, agent in enumerate(agents[:: 1 if which else -1])
            ]
            assert stage.append(root, replied(), runs=runs).ok

        return once

    crossing([start(0), start(1)], times)


def test_renewing_leases_waits_for_nobody(stage: Stage, postgres: str) -> None:
    run_id = stage.open(model(), tool())
    for step in ("1/model", "1/tool/0"):
        stage.claim(run_id, step)
    held = [Lease(run_id, "1/model"), Lease(run_id, "1/tool/0")]
    with psycopg.connect(postgres) as somebody:
        somebody.execute("update steps set queue = queue where step = '1/model'")
        before = time.monotonic()
        assert tuple(held) == stage.journal.extend_leases(held, LEASE)
        assert time.monotonic() - before < 5


class Lease:
    """The first attempt at a step."""

    attempt = 1

    def __init__(self, run_id: str, step: str) -> None:
        self.run_id, self.step = run_id, step


# Tools with tables of their own


def test_a_tools_writes_count_with_its_event_or_not_at_all(stage: Stage, sql: Sql) -> None:
    sql("create table if not exists journaled_bookings (room text)")
    run_id = stage.open(tool())
    stage.claim(run_id, "1/tool/0")
    outcome = Append(run_id=run_id, expected=2, events=[returned()], step="1/tool/0", attempt=1)

    def book(append: Append) -> None:
        with stage.journal.tool_transaction() as transaction:
            transaction.connection.execute("insert into journaled_bookings values ('blue')")
            transaction.append(append)

    try:
        with pytest.raises(LeaseLost):
            book(replace(outcome, attempt=7))
        assert [] == sql("select * from journaled_bookings")
        book(outcome)
        assert [("blue",)] == sql("select * from journaled_bookings")
    finally:
        sql("drop table journaled_bookings")


def test_a_tool_of_our_own_stores_lets_go_sooner_when_its_process_is_frozen(stage: Stage) -> None:
    """It does nothing between its statements, and others wait for the rows of its memories."""
    asked = "show idle_in_transaction_session_timeout"
    with stage.journal.tool_transaction(120, quick=True) as transaction:
        assert ("5s",) == transaction.connection.execute(asked).fetchone()
    with stage.journal.tool_transaction(120) as transaction:
        assert ("2min",) == transaction.connection.execute(asked).fetchone()


def test_a_tool_that_forgets_its_transaction_loses_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "TOOL_IDLE_SECONDS", 0.05)
    run_id = stage.open()

    def dawdle() -> None:
        with stage.journal.tool_transaction() as transaction:
            while database.still_there(transaction.connection):
                pass
            transaction.append(Append(run_id=run_id, expected=2, events=[replied()]))

    with pytest.raises(JournalUnavailable, match="did nothing for too long"):
        dawdle()
    assert 1 == len(stage.journal.events(run_id))


@pytest.mark.parametrize("quick", [True, False])
def test_a_quick_tool_whose_transaction_was_idle_for_too_long_was_frozen(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, quick: bool
) -> None:
    """It is not its own fault, so it is done again; any other tool is told."""
    monkeypatch.setattr(database, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(database, "TOOL_IDLE_SECONDS", 0.05)
    with stage.journal._database.tool_tables(quick=quick) as tables:
        while database.still_there(tables.connection):
            pass
        with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout) as caught:
            tables.connection.execute("select 1")
        assert quick == tables.lost(caught.value)


def test_a_process_that_is_frozen_in_a_transaction_keeps_nobody_waiting(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server ends the transaction, and with it the locks on the rows of the run."""
    monkeypatch.setattr(database, "IDLE_SECONDS", 0.05)
    run_id = stage.open()

    def freeze() -> None:
        with stage.journal.transaction() as transaction:
            transaction.append(Append(run_id=run_id, expected=2, events=[replied()]))
            append = Append(run_id=run_id, expected=2, events=[replied()])
            assert stage.journal.append(append).ok  # waits for the lock, and gets it

    with pytest.raises(JournalUnavailable, match="did nothing for too long"):
        freeze()
    assert 2 == len(stage.journal.events(run_id))


# Versions


def test_a_worker_that_does_not_know_an_event_leaves_the_step_alone(stage: Stage, sql: Sql) -> None:
    run_id = stage.open()
    stage.journal.take_dispatch(run_id, ["1/model"])
    sql("update run_events set v = %s", VERSION + 1)
    with pytest.raises(JournalError, match="upgrade it"):
        stage.claim(run_id)
    assert [("pending", 1)] == sql("select state, attempt from steps")
    assert [] == stage.unsent()
    sql("update run_events set v = %s", VERSION)
    assert 2 == stage.claim(run_id).attempt


# Failures


@pytest.mark.parametrize("code", sorted(set(SENTENCES) - {"HB001", "HB003"}))
def test_every_known_failure_is_one_sentence_and_undoes_everything(
    stage: Stage, sql: Sql, code: str
) -> None:
    """A trigger raises what the server would."""
    sql(
        "create or replace function refuse() returns trigger language plpgsql as $$ begin "
        f"raise exception using errcode = '{code}', message = 'as if'; end $$"
    )
    run_id = stage.open()
    sql("create trigger refuse before insert on run_events execute function refuse()")
    try:
        kind, sentence = SENTENCES[code]
        with pytest.raises(kind) as told:
            stage.append(run_id, replied(), steps=[model("2/model")])
        assert sentence == told.value.message
    finally:
        sql("drop trigger refuse on run_events")
        sql("drop function refuse()")
    assert ("1/model",) == stage.journal.undispatched(run_id)
    assert stage.append(run_id, replied()).ok


def test_a_database_without_our_tables_says_to_migrate(make_database: Callable[..., str]) -> None:
    journal = PostgresJournal(make_database())
    try:
        with pytest.raises(JournalError, match="run `heartbit migrate`"):
            journal.open_run(new_run())
        with pytest.raises(JournalError, match="run `heartbit migrate`"):
            journal.list_runs()
    finally:
        journal.close()


def test_a_server_that_is_not_there_is_told_at_once() -> None:
    journal = PostgresJournal("postgresql://nobody:hunter2@127.0.0.1:1/x")
    before = time.monotonic()
    with pytest.raises(
        JournalUnavailable, match=r"cannot be reached \(Connection refused\)"
    ) as told:
        journal.list_runs()
    assert time.monotonic() - before < 5
    assert "hunter2" not in told.value.message
    journal.close()


def test_a_user_without_connections_left_is_told_so(postgres: str, sql: Sql) -> None:
    sql("create role crowded login password 'crowded' connection limit 0")
    address = postgres.rpartition("@")[2]
    journal = PostgresJournal(f"postgresql://crowded:crowded@{address}")
    try:
        with pytest.raises(JournalUnavailable, match="no connection left"):
            journal.list_runs()
    finally:
        journal.close()
        sql("drop role crowded")


def test_a_connection_that_the_server_has_closed_is_never_used(stage: Stage, sql: Sql) -> None:
    run_id = stage.open()
    stage.journal.extend_leases([], LEASE)
    for _ in range(3):
        sql(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity "
            "where application_name = 'heartbit' and datname = current_database()"
        )
        assert "queued" == stage.journal.run(run_id).status
        assert () == stage.journal.extend_leases([], LEASE)


def test_a_name_that_cannot_be_kept_is_told_and_nothing_is_written(stage: Stage) -> None:
    for name in ("a\0b", "\ud800"):
        with pytest.raises(JournalError, match="NUL or half a character"):
            stage.open(task_id=name)
    assert () == stage.journal.list_runs()


def test_a_full_pool_says_so(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "WAIT_SECONDS", 0.2)
    journal = PostgresJournal(postgres, pool_size=1)
    try:
        with journal.transaction(), pytest.raises(JournalUnavailable, match="are in use"):
            journal.list_runs()
    finally:
        journal.close()


def test_a_forked_child_has_connections_of_its_own(stage: Stage) -> None:
    run_id = stage.open()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, stage.journal.run(run_id).status.encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as told:
        assert "queued" == told.read()
    assert "queued" == stage.journal.run(run_id).status


def test_events_are_read_back_as_they_were_written(stage: Stage) -> None:
    run_id = stage.open()
    events: list[Event] = [replied(), returned(), returned("1/tool/1", json.dumps({"a": 1}))]
    stage.append(run_id, *events)
    assert tuple(events) == stage.journal.events(run_id, after=1)
