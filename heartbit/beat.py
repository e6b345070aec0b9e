"""The scheduler of `celery beat`: the host's own entries, and the schedules of heartbit.

The two do not touch each other. Entries of `beat_schedule` are Celery's business, done as its
PersistentScheduler does it: an entry of every 24 hours must remember, across restarts, when it ran.
Schedules of heartbit are rows in Postgres, looked after by a thread of its own: however long the
database is away, the host's entries are on time.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import click
from celery import Celery
from celery.beat import PersistentScheduler

from heartbit.client import connect
from heartbit.config import Config
from heartbit.engines.schedules import Schedules
from heartbit.errors import HeartbitError, JournalError
from heartbit.runtime import database_url, load_config
from heartbit.stores.database import Database
from heartbit.stores.postgres_schedules import PostgresSchedules, Schedule

LOOK_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
STOP_SECONDS = 3.0
USAGE = 2

LookOnce = Callable[[], float | None]

_logger = logging.getLogger("heartbit.beat")


class Scheduler(PersistentScheduler):
    """Serves `beat_schedule` of the app and `[[daemon.schedules]]` of heartbit.toml.

    Raises:
        ConfigError: the configuration is not valid, or says nothing of a database.
        JournalError: nobody can understand the database's url.
    """

    _remembers = False

    def __init__(self, app: Celery, *args: Any, **options: Any) -> None:
        with _one_sentence():
            self._config = load_config()
            self._rows = PostgresSchedules(Database(database_url(self._config), pool_size=1))
        self._looking: LookingThread | None = None
        super().__init__(app, *args, **options)

    def setup_schedule(self) -> None:
        """Take the host's entries; without any there is nothing to remember, and no file."""
        self._remembers = bool(self.app.conf.beat_schedule)
        if self._remembers:
            super().setup_schedule()
        else:
            self.install_default_entries(self.schedule)

    def get_schedule(self) -> Any:
        """The host's entries."""
        return super().get_schedule() if self._remembers else self.data

    def set_schedule(self, schedule: Any) -> None:
        """Replace the host's entries."""
        if self._remembers:
            super().set_schedule(schedule)
        else:
            self.data = schedule

    schedule = property(get_schedule, set_schedule)

    @property
    def info(self) -> str:
        """What the banner of beat says."""
        count = f"    . schedules -> {len(self._config.schedules)} in the configuration"
        return f"{count}\n{super().info}" if self.app.conf.beat_schedule else count

    def tick(self, *args: Any, **options: Any) -> Any:
        """Send a host's entry that is due; the first call begins to look after schedules."""
        if self._looking is None:
            self._looking = LookingThread(self._at_work)
            self._looking.start()
        return super().tick(*args, **options)

    def close(self) -> None:
        """Stop looking, and remember when the host's entries ran."""
        if self._looking is not None:
            self._looking.stop()
        super().close()

    @contextmanager
    def _at_work(self) -> Iterator[LookOnce]:
        """What one look does; entered by the thread that looks, in which our app is the current."""
        self.app.set_current()
        client = connect(self._config)
        try:
            yield Look(Schedules(self._rows, client), schedules_of(self._config))
        finally:
            client.journal.close()
            self._rows.close()


def schedules_of(config: Config) -> list[Schedule]:
    """The schedules of a configuration."""
    return [
        Schedule(
            name=each.name,
            cron=each.cron,
            timezone=each.timezone,
            prompt=each.task,
            agent=each.agent,
            enabled=each.enabled,
        )
        for each in config.schedules
    ]


class Look:
    """One look at the table: the first one that succeeds brings the configuration into it."""

    def __init__(self, schedules: Schedules, wanted: Sequence[Schedule]) -> None:
        self._schedules = schedules
        self._wanted: Sequence[Schedule] | None = wanted

    def __call__(self) -> float | None:
        """Start what is due; gives how long nothing else will be.

        Raises:
            JournalError: the database cannot be used now.
        """
        if self._wanted is not None:
            self._schedules.sync(self._wanted)
            self._wanted = None
        return self._schedules.start_due()


class LookingThread:
    """Looks again and again until it is stopped; a database that is away is waited for.

    `at_work` is entered in the thread, and gives what a look is.
    """

    def __init__(self, at_work: Callable[[], AbstractContextManager[LookOnce]]) -> None:
        self._at_work = at_work
        self._failures = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="heartbit-beat", daemon=True)

    def start(self) -> None:
        """Begin looking."""
        self._thread.start()

    def stop(self) -> None:
        """End after the look that is under way, or without it: it may be cut off anywhere."""
        self._stopping.set()
        self._thread.join(STOP_SECONDS)

    def pause_after(self, look: LookOnce) -> float:
        """Look once; gives the seconds until the next look."""
        try:
            until_next = look()
        except JournalError as error:
            _logger.warning("Schedules wait for the database: %s", error.message)
        except Exception:
            _logger.exception("Schedules could not be looked after; it is tried again")
        else:
            self._failures = 0
            return LOOK_SECONDS if until_next is None else min(until_next, LOOK_SECONDS)
        self._failures += 1
        return min(2.0 ** (self._failures - 1), LONGEST_PAUSE_SECONDS)

    def _serve(self) -> None:
        with self._at_work() as look:
            while not self._stopping.wait(self.pause_after(look)):
                pass


@contextmanager
def _one_sentence() -> Iterator[None]:
    """Who typed `celery ... beat` reads one sentence; a program gets the exception."""
    try:
        yield
    except HeartbitError as error:
        if click.get_current_context(silent=True) is None:
            raise
        click.echo(f"Error: {error.message}", err=True)
        sys.exit(USAGE)
