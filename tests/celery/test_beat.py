"""Beat: every due time starts one run, however many beats there are and wherever they die."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from celery import Celery

from heartbit.beat import LONGEST_PAUSE_SECONDS, LOOK_SECONDS, LookingThread, Scheduler
from heartbit.engines.schedules import Schedules
from heartbit.errors import ConfigError, JournalUnavailable
from heartbit.stores.postgres_schedules import PostgresSchedules, Schedule
from heartbit.stores.records import NewRun
from tests.support.canvas import until
from tests.support.command_line import environment
from tests.support.durable_agents import CONFIG, addresses, wait_for_line, worker
from tests.support.repository import compose_services
from tests.support.stages import ClockedDatabase, new_run

SECONDS = 30
NINE = Schedule(name="nine", cron="0 9 * * *", prompt="say hi")


class Killed(BaseException):
    """The process ends here."""


@dataclass
class Agents:
    """The other side of schedules: describes runs, and remembers which were sent."""

    sent: list[str] = field(default_factory=list)
    asked: int = 0
    fault: BaseException | None = None
    send_fault: BaseException | None = None

    def new_run(self, prompt: str, *, task_id: str, agent: str | None = None) -> NewRun:
        """A run of nobody in particular."""
        self.asked += 1
        if self.fault is not None and agent == "gone":
            raise self.fault
        return new_run(run_id=task_id, task_id=task_id, prompt=prompt)

    def send(self, run_id: str) -> None:
        """Send it, or die on the way."""
        if self.send_fault is not None:
            raise self.send_fault
        self.sent.append(run_id)


class Day:
    """A database whose clock stands where a test puts it, and the runs that were opened."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.database = ClockedDatabase(url, pool_size=4)
        self.store = PostgresSchedules(self.database)
        self.agents = Agents()
        self.seconds = 0.0
        self.schedules = Schedules(self.store, self.agents, clock=lambda: self.seconds)

    def at(self, moment: str) -> None:
        """Let it be this moment, UTC."""
        wanted = datetime.fromisoformat(f"{moment}+00:00")
        self.database.offset = (wanted - datetime.now(UTC)).total_seconds()

    @property
    def runs(self) -> list[str]:
        """The ids of all runs."""
        with psycopg.connect(self.url) as connection:
            found = connection.execute("select id from runs order by created_at").fetchall()
        return [str(run_id) for (run_id,) in found]


@pytest.fixture
def day(postgres: str) -> Iterator[Day]:
    """A morning at eight with one schedule, of nine o'clock."""
    made = Day(postgres)
    made.at("2030-05-01T08:00:00")
    made.schedules.sync([NINE])
    yield made
    made.database.close()


def test_a_run_starts_when_its_time_comes_and_not_before(day: Day) -> None:
    assert 3590 < (day.schedules.start_due() or 0) <= 3600
    assert [] == day.runs
    day.at("2030-05-01T09:00:01")
    assert 86_390 < (day.schedules.start_due() or 0) < 86_400
    assert 1 == len(day.runs)
    assert day.runs == day.agents.sent
    day.schedules.start_due()
    assert 1 == len(day.runs)


def test_without_schedules_nothing_is_to_come(day: Day) -> None:
    day.schedules.sync([])
    assert day.schedules.start_due() is None


def test_times_that_were_missed_are_made_up_for_by_one_run(day: Day) -> None:
    """Beat was down for a week: no storm, and the next run comes at its usual time."""
    day.at("2030-05-08T12:00:00")
    assert 20 * 3600 < (day.schedules.start_due() or 0) <= 21 * 3600
    assert 1 == len(day.runs)


def test_the_next_run_starts_though_the_last_one_has_not_ended(day: Day) -> None:
    """A run that hangs does not end its schedule; runs of one may overlap."""
    for count, moment in enumerate(("2030-05-01T09:00:01", "2030-05-02T09:00:01"), 1):
        day.at(moment)
        day.schedules.start_due()
        assert count == len(day.runs)
    with psycopg.connect(day.url) as connection:
        found = connection.execute("select status from runs").fetchall()
    assert [("queued",), ("queued",)] == found


def test_a_clock_that_is_put_back_does_not_use_a_time_twice(day: Day) -> None:
    """The run's id is made of schedule and time, and its row is there."""
    day.at("2030-05-01T09:00:01")
    day.schedules.start_due()
    day.at("2030-05-01T08:30:00")
    day.schedules.sync([replace(NINE, cron="1 9 * * *")])
    day.schedules.sync([NINE])
    day.at("2030-05-01T09:00:02")
    day.schedules.start_due()
    assert 1 == len(day.runs)


def test_a_beat_that_dies_before_it_sends_has_opened_the_run(day: Day) -> None:
    """Nothing is lost, because the sweep sends it; and nothing doubled by the next beat."""
    day.agents.send_fault = Killed()
    day.at("2030-05-01T09:00:01")
    with pytest.raises(Killed):
        day.schedules.start_due()
    after = Agents()
    Schedules(day.store, after).start_due()
    assert (1, []) == (len(day.runs), after.sent)
    with psycopg.connect(day.url) as connection:
        unsent = connection.execute("select run_id from steps where dispatched_at is null")
        assert [(uuid.UUID(day.runs[0]),)] == unsent.fetchall()


def test_a_broker_that_hangs_holds_up_no_other_time(day: Day) -> None:
    """All runs are open before the first one is sent; what cannot be sent is the sweep's."""
    day.schedules.sync([NINE, replace(NINE, name="other")])
    day.at("2030-05-01T09:00:01")
    day.agents.send_fault = Killed()
    with pytest.raises(Killed):
        day.schedules.start_due()
    assert 2 == len(day.runs)


def test_a_database_that_goes_away_before_a_run_is_sent_is_a_warning(
    day: Day, caplog: pytest.LogCaptureFixture
) -> None:
    day.at("2030-05-01T09:00:01")
    day.agents.send_fault = JournalUnavailable("It is away.")
    day.schedules.start_due()
    assert f"Run {day.runs[0]} is sent by the sweep of a worker: It is away." in caplog.text


def test_a_beat_that_dies_before_it_opens_the_run_leaves_the_time_due(
    day: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of the statement, even: it is one."""
    day.at("2030-05-01T09:00:01")

    def die(*_: Any) -> bool:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(PostgresSchedules, "start", die)
        with pytest.raises(Killed):
            day.schedules.start_due()
    assert [] == day.runs
    day.schedules.start_due()
    assert day.runs == day.agents.sent
    assert 1 == len(day.runs)


def test_a_run_that_cannot_be_described_is_tried_again_and_keeps_nobody_waiting(
    day: Day, caplog: pytest.LogCaptureFixture
) -> None:
    broken = replace(NINE, name="broken", agent="gone")
    day.schedules.sync([broken, NINE])
    day.agents.fault = ConfigError("There is no agent 'gone'.")
    day.at("2030-05-01T09:00:01")
    day.schedules.start_due()
    day.schedules.start_due()
    assert (1, 2) == (len(day.runs), day.agents.asked)
    said = [each.message for each in caplog.records if each.levelname == "ERROR"]
    assert 1 == len(said)
    assert "'broken' cannot open its run of 2030-05-01 09:00:00 UTC" in said[0]
    assert said[0].endswith("There is no agent 'gone'.")
    day.agents.fault, day.seconds = None, 31.0
    day.schedules.start_due()
    assert 2 == len(day.runs)


def test_a_row_that_somebody_has_spoilt_is_an_error_in_the_log(
    day: Day, caplog: pytest.LogCaptureFixture
) -> None:
    day.at("2030-05-01T09:00:01")
    with psycopg.connect(day.url, autocommit=True) as connection:
        connection.execute("update schedules set cron = 'never'")
    day.schedules.start_due()
    assert [] == day.runs
    assert "must have five fields" in caplog.text


def test_beats_that_see_the_same_times_start_each_of_them_once(day: Day) -> None:
    """Four of them, thirty schedules, at the same instant."""
    day.schedules.sync([replace(NINE, name=f"s{n}") for n in range(30)])
    day.at("2030-05-01T09:00:01")
    beats = [Schedules(day.store, Agents()) for _ in range(4)]
    together = threading.Barrier(4)

    def tick(beat: Schedules) -> None:
        together.wait()
        beat.start_due()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(tick, beats))
    assert 30 == len(set(day.runs)) == len(day.runs)


def test_a_database_that_is_away_is_waited_for_longer_each_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers: list[Any] = [JournalUnavailable("It is away.")] * 7 + [3600.0, 0.25, None]

    def look() -> float | None:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    thread = LookingThread(lambda: nullcontext(look))
    paused = [thread.pause_after(look) for _ in range(10)]
    assert [1, 2, 4, 8, 16, LONGEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS] == paused[:7]
    assert [LOOK_SECONDS, 0.25, LOOK_SECONDS] == paused[7:]
    assert 7 == caplog.text.count("Schedules wait for the database: It is away.")


# ---- Processes -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Beat:
    """A beat process."""

    file: Path
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        """What it has written."""
        return self.file.read_text()


@dataclass(frozen=True)
class Place:
    """Where beats work, and what they know."""

    folder: Path
    env: dict[str, str]
    database: str

    def configure(self, *schedules: str, more: str = "") -> None:
        """Write heartbit.toml; a schedule is `name cron...`."""
        tables = ""
        for each in schedules:
            name, _, cron = each.partition(" ")
            tables += f'[[daemon.schedules]]\nname = "{name}"\ncron = "{cron}"\n'
            tables += f'task = "say {name}"\nagent = "reader"\n'
        (self.folder / "heartbit.toml").write_text(CONFIG + tables + more)

    def sql(self, statement: str) -> list[Any]:
        """Run a statement."""
        with psycopg.connect(self.database, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def beat(self, name: str = "beat", *, app: str = "heartbit", **env: str) -> Iterator[Beat]:
        """A beat process until the end of the block; one that still lives ends in order."""
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*CELERY, "-A", app, "beat", "--loglevel", "INFO"],
                cwd=self.folder,
                env=environment(self.env | env) | {"PYTHONPATH": f"{self.folder}:{os.getcwd()}"},
                stdout=output,
                stderr=output,
            )
        try:
            wait_for_line(log, "beat: Starting", process)
            yield Beat(log, process)
            if process.poll() is None:
                os.kill(process.pid, signal.SIGTERM)
                assert 0 == process.wait(SECONDS), log.read_text()
        finally:
            process.kill()
            process.wait()


CELERY = (sys.executable, "-m", "celery")
CONNECTED = (
    "select count(distinct client_port) from pg_stat_activity where application_name = 'heartbit' "
    "and query like '%from schedules%'"
)


@pytest.fixture
def place(tmp_path: Path, postgres: str, valkey: str) -> Place:
    """A folder for processes on the session's servers."""
    return Place(tmp_path, addresses(postgres, valkey), postgres)


def ran(place: Place) -> list[str]:
    """The titles of the runs that there are."""
    return [title for (title,) in place.sql("select title from runs order by title")]


@pytest.mark.slow
def test_two_beats_on_one_database_start_each_time_once(place: Place) -> None:
    """A hundred schedules become due under both at the same instant, and one is killed in it."""
    names = [f"s{n:03}" for n in range(100)]
    place.configure(*(f"{name} 0 0 1 1 *" for name in names))
    with place.beat("one") as one, place.beat("two"):
        until(lambda: 100 == place.sql("select count(*) from schedules")[0][0], SECONDS)
        until(lambda: 2 <= place.sql(CONNECTED)[0][0], SECONDS)
        place.sql("update schedules set next_run_at = heartbit_now() + interval '100 ms'")
        until(lambda: len(ran(place)) >= 10, SECONDS)
        one.process.kill()
        until(lambda: len(ran(place)) >= 100, SECONDS)
    assert [f"say {name}" for name in names] == ran(place)
    assert [] == place.sql("select name from schedules where next_run_at <= heartbit_now()")


@pytest.mark.slow
def test_a_run_that_beat_could_not_send_is_sent_by_a_worker(place: Place) -> None:
    """Beat sees no broker at all; the row of the run is what counts."""
    place.configure("hello 0 0 1 1 *")
    with place.beat(CELERY_BROKER_URL="redis://127.0.0.1:1/0") as beat:
        until(lambda: 1 == place.sql("select count(*) from schedules")[0][0], SECONDS)
        place.sql("update schedules set next_run_at = heartbit_now()")
        until(lambda: "will be sent later" in beat.log, SECONDS)
    assert [("queued",)] == place.sql("select status from runs")
    with worker(place.folder, place.env):
        until(lambda: [("succeeded",)] == place.sql("select status from runs"), SECONDS)


@pytest.mark.slow
def test_a_schedule_of_the_file_runs_through_the_fleet_and_goes_with_it(place: Place) -> None:
    """From heartbit.toml by beat, broker and worker to a result; gone when the file forgets it."""
    place.configure("hello 0 0 1 1 *", "later 0 0 1 1 *")
    with worker(place.folder, place.env), place.beat():
        until(lambda: 2 == place.sql("select count(*) from schedules")[0][0], SECONDS)
        place.sql("update schedules set next_run_at = heartbit_now() where name = 'hello'")
        query = "select output->>'result', agent from runs where status = 'succeeded'"
        assert [("hello", "reader")] == until(lambda: place.sql(query), SECONDS)
    place.configure("later 0 0 1 1 *")
    with place.beat():
        until(lambda: [("later",)] == place.sql("select name from schedules"), SECONDS)
    assert ["say hello"] == ran(place)


@pytest.mark.slow
def test_entries_of_a_host_go_on_beside_ours_also_without_the_database(place: Place) -> None:
    """Their times are remembered in the host's own file, as Celery's scheduler does."""
    (place.folder / "host.py").write_text(
        "from celery import Celery\n"
        "import heartbit\n"
        f"app = Celery('host', broker={place.env['CELERY_BROKER_URL']!r})\n"
        "app.conf.beat_scheduler = 'heartbit.beat:Scheduler'\n"
        "app.conf.beat_schedule = {'often': {'task': 'host.often', 'schedule': 0.1}}\n"
        "heartbit.install(app)\n"
    )
    place.configure("ours 0 0 1 1 *")
    with redis.Redis.from_url(place.env["CELERY_BROKER_URL"]) as broker:
        away = "postgresql://u:hush@127.0.0.1:1/nowhere"
        with place.beat(app="host", HEARTBIT_DATABASE_URL=away) as beat:
            until(lambda: broker.llen("celery") >= 3, SECONDS)
            until(lambda: "Schedules wait for the database" in beat.log, SECONDS)
            assert "hush" not in beat.log
        assert any(path.name.startswith("celerybeat") for path in place.folder.iterdir())
        broker.delete("celery")
        with place.beat(app="host"):
            until(lambda: broker.llen("celery") >= 3, SECONDS)
            until(lambda: [("ours",)] == place.sql("select name from schedules"), SECONDS)


@pytest.mark.slow
def test_the_health_check_of_the_fleet_tells_a_beat_that_ticks_from_one_that_does_not(
    place: Place,
) -> None:
    """The command of docker-compose.yml, as it stands there."""
    [kind, command] = compose_services()["beat"]["healthcheck"]["test"]
    assert "CMD-SHELL" == kind
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = environment(place.env | {"HOSTNAME": socket.gethostname(), "PATH": path})

    def is_well() -> bool:
        line = command.replace("$$", "$")
        done = subprocess.run(line, shell=True, cwd=place.folder, env=env, capture_output=True)
        return 0 == done.returncode

    place.configure("ours 0 0 1 1 *")
    with place.beat() as beat:
        until(is_well, SECONDS)
        os.kill(beat.process.pid, signal.SIGSTOP)
        assert not is_well()
        os.kill(beat.process.pid, signal.SIGCONT)
        until(is_well, SECONDS)
    assert not is_well()


@pytest.mark.slow
def test_a_beat_whose_connections_are_cut_goes_on(place: Place) -> None:
    """A restart of the server looks like this."""
    place.configure("ours 0 0 1 1 *")
    with place.beat() as beat:
        until(lambda: 1 == place.sql("select count(*) from schedules")[0][0], SECONDS)
        place.sql(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid()"
        )
        place.sql("update schedules set next_run_at = heartbit_now()")
        until(lambda: ["say ours"] == ran(place), SECONDS)
    assert "Traceback" not in beat.log
    assert [] == [each for each in place.folder.iterdir() if "celerybeat" in each.name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("quiet", "text", "message"),
    [
        ((), "", "Durable runs need a PostgreSQL database"),
        ((), '[database]\nurl = "postgresql://[/x"\n', "url cannot be understood"),
        (("-q",), "", "Durable runs need a PostgreSQL database"),
        (
            (),
            "[[daemon.schedules]]\nname = 'n'\ncron = 'x'\ntask = 't'\n",
            "heartbit.toml:22: 'cron' in [[daemon.schedules]] 'n' must have five fields",
        ),
    ],
)
def test_what_keeps_beat_from_starting_is_one_sentence(
    tmp_path: Path, valkey: str, quiet: tuple[str, ...], text: str, message: str
) -> None:
    (tmp_path / "heartbit.toml").write_text(CONFIG + text)
    done = subprocess.run(
        [*CELERY, *quiet, "-A", "heartbit", "beat"],
        cwd=tmp_path,
        env=environment({"CELERY_BROKER_URL": valkey}),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert 2 == done.returncode
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_program_gets_the_error_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not an exit: it may do without schedules."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="PostgreSQL database"):
        Scheduler(Celery("program", set_as_current=False), lazy=True)
