"""Starting the runs of schedules when their times come.

Any number of processes may do this at once and die at any point: a time is used by the statement
that opens its run, and a run that is open is sent by the sweep if nobody else does. Times that
passed while nobody looked are made up for by one run, that of the first of them.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol
from zoneinfo import ZoneInfo

from heartbit.core.cron import next_time
from heartbit.errors import HeartbitError, JournalError
from heartbit.stores.postgres_schedules import DueSchedule, Schedule
from heartbit.stores.records import NewRun

RETRY_SECONDS = 30.0

_logger = logging.getLogger("heartbit.schedules")


class ScheduleStore(Protocol):
    """Where schedules and their next times are."""

    def now(self) -> datetime:
        """The time that schedules go by."""

    def sync(self, next_run_at: Mapping[Schedule, datetime]) -> None:
        """Make these the schedules of the configuration."""

    def due(self) -> Sequence[DueSchedule]:
        """The schedules whose time has come."""

    def seconds_to_next(self) -> float | None:
        """How long nothing will become due."""

    def start(self, due: DueSchedule, run: NewRun, next_run_at: datetime) -> bool:
        """Open a run and move its schedule on, both or neither."""


class Runs(Protocol):
    """Who knows the agents, and sends what is to be done."""

    def new_run(self, prompt: str, *, task_id: str, agent: str | None = None) -> NewRun:
        """A run as it would be opened now."""

    def send(self, run_id: str) -> None:
        """Have the steps of an open run worked on."""


class Schedules:
    """Starts what is due.

    A schedule whose run cannot be described (an agent that is gone, a tool that cannot be had) is
    tried again every `retry_seconds`, and keeps no other one waiting.
    """

    def __init__(
        self,
        store: ScheduleStore,
        runs: Runs,
        *,
        retry_seconds: float = RETRY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._runs = runs
        self._retry_seconds = retry_seconds
        self._clock = clock
        self._not_before: dict[str, float] = {}

    def sync(self, wanted: Sequence[Schedule]) -> None:
        """Make these the schedules of the configuration, from now on.

        Raises:
            JournalError: the database cannot be written.
        """
        now = self._store.now()
        self._store.sync({each: _next(each, now) for each in wanted})

    def start_due(self) -> float | None:
        """Start every run that is due; gives the seconds in which nothing else will be.

        None if nothing is to come at all. What has failed comes again after a while by itself.

        Raises:
            JournalError: the database cannot be used.
        """
        due = [each for each in self._store.due() if self._may_try(each.schedule)]
        opened = [run_id for each in due if (run_id := self._open(each)) is not None]
        for run_id in opened:  # only now: a broker that does not answer holds up no time
            self._send(run_id)
        return self._store.seconds_to_next()

    def _may_try(self, schedule: Schedule) -> bool:
        return self._not_before.get(schedule.name, 0.0) <= self._clock()

    def _open(self, due: DueSchedule) -> str | None:
        """The run of a due time; None if somebody else has opened it, or nobody can."""
        schedule = due.schedule
        try:
            next_run_at = _next(schedule, due.now)
            run = self._runs.new_run(schedule.prompt, task_id=task_id(due), agent=schedule.agent)
        except Exception as error:
            self._try_later(due, error)
            return None
        self._not_before.pop(schedule.name, None)
        if not self._store.start(due, run, next_run_at):
            return None
        told = (schedule.name, run.run_id, _shown(due.due_at), _shown(next_run_at))
        _logger.info("Schedule %r opened run %s of %s; the next one comes at %s", *told)
        return run.run_id

    def _try_later(self, due: DueSchedule, error: Exception) -> None:
        self._not_before[due.schedule.name] = self._clock() + self._retry_seconds
        why = error.message if isinstance(error, HeartbitError) else repr(error)
        told = (due.schedule.name, _shown(due.due_at), why)
        _logger.error("Schedule %r cannot open its run of %s, which is tried again: %s", *told)

    def _send(self, run_id: str) -> None:
        try:
            self._runs.send(run_id)
        except JournalError as error:
            _logger.warning("Run %s is sent by the sweep of a worker: %s", run_id, error.message)


def task_id(due: DueSchedule) -> str:
    """The Celery task id of the run of a due time: the same for whoever starts it."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{due.schedule.name} {due.due_at.timestamp()}"))


def _next(schedule: Schedule, after: datetime) -> datetime:
    return next_time(schedule.cron, ZoneInfo(schedule.timezone), after)


def _shown(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
