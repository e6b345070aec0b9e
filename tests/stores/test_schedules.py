"""The table of schedules: what the configuration owns, and due times that are used once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from heartbit.stores.postgres import PostgresJournal
from heartbit.stores.postgres_schedules import DueSchedule, PostgresSchedules, Schedule
from tests.support.canvas import until
from tests.support.stages import ClockedDatabase, new_run

DAILY = Schedule(name="daily", cron="0 9 * * *", prompt="say good morning")
HOUR = timedelta(hours=1)


@pytest.fixture
def database(postgres: str) -> Iterator[ClockedDatabase]:
    """A database with a clock that a test moves."""
    made = ClockedDatabase(postgres)
    yield made
    made.close()


@pytest.fixture
def schedules(database: ClockedDatabase) -> PostgresSchedules:
    """The table."""
    return PostgresSchedules(database)


def rows(url: str) -> list[tuple[str, str, datetime]]:
    """Names, prompts and next times."""
    with psycopg.connect(url) as connection:
        query = "select name, prompt, next_run_at from schedules order by name"
        return connection.execute(query).fetchall()


def only(schedules: PostgresSchedules) -> DueSchedule:
    """The schedule that is due."""
    (due,) = schedules.due()
    return due


def test_a_schedule_is_due_from_its_time_on(
    schedules: PostgresSchedules, database: ClockedDatabase
) -> None:
    at = schedules.now() + HOUR
    schedules.sync({DAILY: at})
    assert () == schedules.due()
    assert 3599 < (schedules.seconds_to_next() or 0) <= 3600
    database.offset = 3600.0
    assert (DAILY, at) == (only(schedules).schedule, only(schedules).due_at)
    assert at <= only(schedules).now
    assert schedules.seconds_to_next() is None


def test_a_disabled_schedule_is_never_due(schedules: PostgresSchedules) -> None:
    schedules.sync({replace(DAILY, enabled=False): schedules.now() - HOUR})
    assert () == schedules.due()
    assert schedules.seconds_to_next() is None


def test_a_due_time_is_used_together_with_the_run_that_it_opens(
    schedules: PostgresSchedules, database: ClockedDatabase, postgres: str
) -> None:
    now = schedules.now()
    schedules.sync({DAILY: now})
    due, run = only(schedules), new_run()
    assert schedules.start(due, run, now + HOUR)
    assert [("daily", "say good morning", now + HOUR)] == rows(postgres)
    journal = PostgresJournal(postgres)
    assert "queued" == journal.run(run.run_id).status
    other = new_run()
    assert not schedules.start(due, other, now + HOUR)
    assert [run.run_id] == [each.run_id for each in journal.list_runs()]
    journal.close()


def test_a_run_that_cannot_be_opened_leaves_its_time_due(
    schedules: PostgresSchedules, postgres: str
) -> None:
    """Both or neither: here the database refuses the run."""
    schedules.sync({DAILY: schedules.now()})
    broken = replace(new_run(), run_id="no uuid")
    with pytest.raises(Exception, match="uuid"):
        schedules.start(only(schedules), broken, schedules.now() + HOUR)
    assert DAILY == only(schedules).schedule


def test_many_who_see_the_same_due_times_use_each_of_them_once(postgres: str) -> None:
    """Sixteen connections, forty times, all at once."""
    database = ClockedDatabase(postgres, pool_size=16)
    schedules = PostgresSchedules(database)
    now = schedules.now()
    schedules.sync({replace(DAILY, name=f"s{n}"): now for n in range(40)})
    due, together = schedules.due(), threading.Barrier(16)

    def use_all(_: int) -> int:
        together.wait()
        return sum(schedules.start(each, new_run(), now + HOUR) for each in due)

    with ThreadPoolExecutor(16) as pool:
        assert 40 == sum(pool.map(use_all, range(16)))
    database.close()
    with psycopg.connect(postgres) as connection:
        assert (40,) == connection.execute("select count(*) from runs").fetchone()


def test_the_configuration_adds_changes_and_removes_its_own(
    schedules: PostgresSchedules, postgres: str
) -> None:
    first, second = datetime(2030, 1, 1, 9, tzinfo=UTC), datetime(2031, 1, 1, 9, tzinfo=UTC)
    weekly = replace(DAILY, name="weekly")
    schedules.sync({DAILY: first, weekly: first})
    schedules.sync({replace(DAILY, prompt="say hi"): second})
    assert [("daily", "say hi", first)] == rows(postgres)
    schedules.sync({replace(DAILY, cron="0 10 * * *"): second})
    assert [("daily", "say good morning", second)] == rows(postgres)
    schedules.sync({})
    assert [] == rows(postgres)


@pytest.mark.parametrize(
    "changed", [{"cron": "0 10 * * *"}, {"timezone": "Europe/Berlin"}, {"enabled": False}]
)
def test_a_schedule_with_other_times_forgets_the_old_ones(
    schedules: PostgresSchedules, postgres: str, changed: dict[str, Any]
) -> None:
    """Not so one that is the same: its missed time is still due."""
    missed, later = datetime(2020, 1, 1, 9, tzinfo=UTC), datetime(2030, 1, 1, 9, tzinfo=UTC)
    schedules.sync({DAILY: missed})
    schedules.sync({DAILY: later})
    assert missed == only(schedules).due_at
    schedules.sync({replace(DAILY, **changed): later})
    assert [later] == [at for _, _, at in rows(postgres)]


def test_schedules_from_elsewhere_are_left_alone_and_served(
    schedules: PostgresSchedules, postgres: str
) -> None:
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(
            "insert into schedules values ('mine', '@daily', 'UTC', '\"p\"', null, true, false, "
            "heartbit_now())"
        )
    schedules.sync({})
    assert "mine" == only(schedules).schedule.name


def test_a_prompt_keeps_what_postgres_calls_no_text(schedules: PostgresSchedules) -> None:
    odd = replace(DAILY, prompt="a\0b\ud800 ☃")
    schedules.sync({odd: schedules.now()})
    assert odd == only(schedules).schedule


def test_a_sync_holds_nothing_while_it_waits(postgres: str) -> None:
    """Two beats with different files would wait for each other: each removes what the other has."""
    schedules = PostgresSchedules(ClockedDatabase(postgres))
    at = schedules.now() + HOUR
    first, second = replace(DAILY, name="first"), replace(DAILY, name="second")
    schedules.sync({first: at, second: at})
    touch = "update schedules set prompt = prompt where name = %s"
    with psycopg.connect(postgres) as other, ThreadPoolExecutor(1) as pool:
        other.execute(touch, ["second"])
        syncing = pool.submit(schedules.sync, {first: at})
        until(lambda: waiting(postgres))
        other.execute(touch, ["first"])
        other.commit()
        syncing.result()
    schedules.close()
    assert ["first"] == [name for name, _, _ in rows(postgres)]


def waiting(url: str) -> bool:
    """Whether anybody waits for a lock."""
    query = (
        "select 1 from pg_stat_activity "
        "where datname = current_database() and wait_event_type = 'Lock'"
    )
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchone() is not None


def test_a_look_for_what_is_due_uses_the_index(stage_rows: str) -> None:
    """Ten thousand schedules, and every beat looks every few seconds."""
    with psycopg.connect(stage_rows) as connection:
        plan = connection.execute(
            "explain select name from schedules where enabled and next_run_at <= heartbit_now() "
            "order by next_run_at, name"
        ).fetchall()
    assert any("schedules_due" in line for (line,) in plan), plan


@pytest.fixture
def stage_rows(postgres: str) -> str:
    """A database with ten thousand schedules."""
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(
            "insert into schedules select 's' || n, '@daily', 'UTC', '\"p\"', null, true, true, "
            "heartbit_now() + n * interval '1 minute' from generate_series(1, 10000) as n"
        )
        connection.execute("analyze schedules")
    return postgres
