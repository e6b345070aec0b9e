"""A worker for the tests of a module. Others of this floor start their own in the same process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery, _state

from heartbit.stores.postgres import PostgresJournal
from tests.support import canvas
from tests.support.canvas import Scene
from tests.support.shared_postgres import delete_all_rows


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """A running worker, its app with the host's own tasks, and what they share."""

    app: Celery
    scene: Scene
    runtime: Any
    host: Any

    @property
    def journal(self) -> PostgresJournal:
        """The journal of the worker."""
        journal = self.runtime.journal
        assert isinstance(journal, PostgresJournal)
        return journal


@pytest.fixture(autouse=True)
def _no_app_is_left() -> Iterator[None]:
    """Forget the apps that a test has made: the next one would have to choose among them."""
    state: Any = _state
    before = set(state._get_active_apps())
    yield
    for app in set(state._get_active_apps()) - before:
        if app.main != "heartbit":  # the one of this process, for as long as it lives
            state._deregister_app(app)


class HostTasks:
    """The tasks that a host application has of its own."""

    def __init__(self, app: Celery, scene: Scene) -> None:
        @app.task(name="host.text", shared=False)
        def text(output: dict[str, Any]) -> str:
            return f"<{output['result']}>"

        @app.task(name="host.texts", shared=False)
        def texts(outputs: list[Any]) -> str:
            return " ".join(each if isinstance(each, str) else each["result"] for each in outputs)

        @app.task(name="host.fetch", shared=False)
        def fetch(what: str) -> str:
            return f"say {what}"

        @app.task(name="host.hear", shared=False)
        def hear(*args: Any, **kwargs: Any) -> None:
            scene.heard.append((args, kwargs))

        @app.task(name="host.hear_error", shared=False)
        def hear_error(request: Any, error: Any, traceback: Any) -> None:
            scene.heard.append((request.id, type(error).__name__, str(error)))

        self.text, self.texts, self.fetch, self.hear = text, texts, fetch, hear
        self.hear_error = hear_error


@pytest.fixture(scope="module")
def _fleet(
    request: pytest.FixtureRequest, valkey_server: str, _postgres_database: str
) -> Iterator[Fleet]:
    """With a parameter, a task goes on with the next steps of its run for so many seconds."""
    batch_seconds = getattr(request, "param", None)
    scene = Scene()
    app = canvas.host_app(valkey_server, f"heartbit.results:RunBackend+{valkey_server}")
    host = HostTasks(app, scene)
    with canvas.fleet(app, scene, _postgres_database, batch_seconds=batch_seconds) as runtime:
        yield Fleet(app=app, scene=scene, runtime=runtime, host=host)


@pytest.fixture
def fleet(_fleet: Fleet, valkey_server: str, _postgres_database: str) -> Iterator[Fleet]:
    """A worker in threads on empty servers."""
    delete_all_rows(_postgres_database)
    with redis.Redis.from_url(valkey_server) as client:
        client.flushall()
    _fleet.scene.gate.clear()
    _fleet.scene.heard.clear()
    yield _fleet
    _fleet.scene.gate.set()
    canvas.let_it_finish(_fleet.app)


HERE = Path(__file__).parent

# For a module whose promises hold whether each step is a task of its own or not.
IN_BOTH_MODES = pytest.mark.parametrize(
    "_fleet", [None, 60.0], ids=["each", "batched"], indirect=True
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Celery's Redis backend calls what redis-py calls deprecated; that is between those two."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.filterwarnings("ignore:Call to deprecated setex"))
