"""Schedules in PostgreSQL: when each is due next, agreed on by any number of beats.

A due time is used by the statement that opens its run, and by nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from heartbit.stores.codec import as_text
from heartbit.stores.database import Database
from heartbit.stores.postgres import open_parameters
from heartbit.stores.records import NewRun
from heartbit.stores.sql import queries


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """A prompt that is run whenever its cron expression says so; None is the routing's agent."""

    name: str
    cron: str
    prompt: str
    timezone: str = "UTC"
    agent: str | None = None
    enabled: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class DueSchedule:
    """A schedule whose time `due_at` has come; `now` is the database's."""

    schedule: Schedule
    due_at: datetime
    now: datetime


class PostgresSchedules:
    """The table of schedules; nothing is connected before the first call."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    def now(self) -> datetime:
        """The time of the database, which schedules go by."""
        found: datetime = self._database.value("now")
        return found

    def sync(self, next_run_at: Mapping[Schedule, datetime]) -> None:
        """Make these the schedules of the configuration, each with its next time.

        One that is there with the same times keeps its own next time, even a missed one; one that
        is not among them is removed, unless it came from elsewhere.
        """
        given = list(next_run_at)
        columns = {
            "names": [each.name for each in given],
            "crons": [each.cron for each in given],
            "timezones": [each.timezone for each in given],
            "prompts": [as_text(each.prompt) for each in given],
            "agents": [each.agent for each in given],
            "enabled": [each.enabled for each in given],
            "next_run_at": list(next_run_at.values()),
        }
        with self._database.connection() as connection, connection.transaction():
            connection.execute(queries()["lock_schedules"])
            connection.execute(queries()["sync_schedules"], columns)

    def due(self) -> tuple[DueSchedule, ...]:
        """The schedules whose time has come; each stays among them until it is started."""
        rows = self._database.rows("due_schedules")
        return tuple(
            DueSchedule(
                schedule=Schedule(
                    name=name, cron=cron, timezone=timezone, prompt=prompt, agent=agent
                ),
                due_at=due_at,
                now=now,
            )
            for name, cron, timezone, prompt, agent, due_at, now in rows
        )

    def seconds_to_next(self) -> float | None:
        """How long nothing will become due; None without any schedule to come."""
        seconds: float | None = self._database.value("seconds_to_schedule")
        return seconds

    def start(self, due: DueSchedule, run: NewRun, next_run_at: datetime) -> bool:
        """Open the run of a due time and move the schedule on, both or neither.

        False if somebody else has used the time, or the schedule is no more what it was.
        """
        opened = self._database.value(
            "start_schedule",
            name=due.schedule.name,
            due_at=due.due_at,
            next_run_at=next_run_at,
            **open_parameters(run),
        )
        return opened is not None
