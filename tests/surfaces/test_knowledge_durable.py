"""Documents of a fleet: real workers index them, and durable runs search them."""

from __future__ import annotations

import json
import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.support.command_line import COMMAND, environment, heartbit
from tests.support.durable_agents import addresses, wait_for_line, worker
from tests.support.knowledge_agents import CONFIG
from tests.support.shared_postgres import create_database, drop_database

pytestmark = pytest.mark.slow


@pytest.fixture
def env(tmp_path: Path, postgres_server: str, valkey_server: str) -> Iterator[dict[str, str]]:
    """A folder with 250 documents, a database of its own, and an empty broker."""
    with redis.Redis.from_url(valkey_server) as client:
        client.flushall()
    (tmp_path / "heartbit.toml").write_text(CONFIG)
    (tmp_path / "docs").mkdir()
    for number in range(250):
        (tmp_path / "docs" / f"{number}.md").write_text(f"# Page {number}\n\nWord{number} is here.")
    name = f"knowledge_{uuid.uuid4().hex}"
    env = addresses(create_database(postgres_server, name), valkey_server)
    assert 0 == heartbit("migrate", cwd=tmp_path, env=env).code
    yield env
    drop_database(postgres_server, name)


@pytest.fixture
def _worker(env: dict[str, str], tmp_path: Path) -> Iterator[None]:
    """A worker that reads the documents."""
    with worker(tmp_path, env):
        yield


@pytest.mark.usefixtures("_worker")
def test_workers_index_in_parts_and_durable_runs_cite(env: dict[str, str], tmp_path: Path) -> None:
    """Only what has changed is written again, and what is deleted is not cited any more."""

    def indexed() -> dict:
        done = heartbit("knowledge", "index", "--json", cwd=tmp_path, env=env)
        assert (0, "") == (done.code, done.err)
        return json.loads(done.out)

    def asked(prompt: str) -> str:
        return heartbit("submit", prompt, "--wait", cwd=tmp_path, env=env).out

    assert "no documents are indexed" in asked("Word7")
    first, again = indexed(), indexed()
    assert (250, 250) == (first["added"], first["chunks"])
    assert (250, 0, 0) == (again["unchanged"], again["chunks"], again["removed"])
    log = (tmp_path / "worker.log").read_text()
    assert 6 == len(re.findall(r"Task heartbit.index_source\[\S+\] received", log))
    assert "[1] docs/7.md:1-3 (Page 7)" in asked("Word7")
    (tmp_path / "docs" / "7.md").unlink()
    (tmp_path / "docs" / "8.md").write_text("# Page 8\n\nWord7 has moved here.")
    changed = indexed()
    assert (1, 1, 248) == (changed["changed"], changed["removed"], changed["unchanged"])
    assert "[1] docs/8.md:1-3 (Page 8)" in asked("Word7")


@pytest.mark.usefixtures("_worker")
def test_a_worker_with_another_configuration_is_told_of(
    env: dict[str, str], tmp_path: Path
) -> None:
    """Nothing is lost: the parts it could not do are a failure of the command."""
    other = tmp_path / "other.toml"
    other.write_text(CONFIG.replace("docs/**/*.md", "docs/*.md"))
    done = heartbit("knowledge", "index", "--config", str(other), cwd=tmp_path, env=env)
    assert 1 == done.code
    assert "has no knowledge source" in done.err


def test_who_waits_for_a_worker_that_is_not_there_is_told(
    env: dict[str, str], tmp_path: Path
) -> None:
    """And as soon as there is one, the documents are indexed."""
    command = [*COMMAND, "knowledge", "index"]
    with (tmp_path / "index.log").open("wb") as log:
        index = subprocess.Popen(
            command, cwd=tmp_path, env=environment(env), stdout=log, stderr=log
        )
    try:
        wait_for_line(tmp_path / "index.log", "No worker reads heartbit.tools", index)
        with worker(tmp_path, env):
            assert 0 == index.wait(60)
    finally:
        index.kill()
        index.wait()
    assert "250 documents, 250 added" in (tmp_path / "index.log").read_text()


def test_without_a_result_backend_nobody_hears_what_became_of_the_parts(
    env: dict[str, str], tmp_path: Path
) -> None:
    """The parts are sent all the same."""
    (tmp_path / "deaf.py").write_text("result_backend = 'disabled://'\n")
    deaf = env | {"HEARTBIT_CELERY_CONFIG": "deaf", "PYTHONPATH": str(tmp_path)}
    del deaf["CELERY_RESULT_BACKEND"]
    done = heartbit("knowledge", "index", cwd=tmp_path, env=deaf)
    assert 0 == done.code
    assert "2 parts were sent to them; without a result backend nobody hears" in done.err
    with redis.Redis.from_url(env["CELERY_BROKER_URL"]) as client:
        assert 3 == client.llen("heartbit.tools")
