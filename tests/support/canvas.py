"""A host's Celery app with heartbit installed, a worker for it, and agents that follow orders.

What an agent does stands in its prompt, so that every message can be sent twice and in any order:
"say X", "fail", "wait" (until the gate is opened), "big N", "use the tool", "delegate A; B".
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import redis
from _pytest.logging import LogCaptureHandler
from celery import Celery, _state
from celery.contrib.testing.worker import start_worker
from celery.signals import worker_ready
from celery.worker import state
from kombu import pools

import heartbit
from heartbit import Agent, Orchestrator, ScriptedProvider, tasks
from heartbit import runtime as process
from heartbit.apps import QUEUES
from heartbit.core.messages import ToolResult
from heartbit.core.request import ModelRequest
from heartbit.core.tools import DELEGATE
from heartbit.errors import InvalidRequest
from heartbit.loop import background_loop, stop_background_loop
from heartbit.outbox import CeleryOutbox
from heartbit.providers.scripted import Reply, call
from heartbit.runtime import Runtime
from heartbit.stores.postgres import PostgresJournal

SECONDS = 20
"""How long a test waits for what must come; it never takes that long."""


class Scene:
    """What the tests and the agents of one worker share."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.waiting = threading.Semaphore(0)
        self.heard: list[Any] = []

    async def reply(self, request: ModelRequest) -> Reply:
        """What the prompt orders."""
        prompt = request.messages[0].text
        results = [p for m in request.messages for p in m.parts if isinstance(p, ToolResult)]
        if results:
            return "|".join(str(each.content) for each in results)
        match prompt.split(maxsplit=1):
            case ["fail"]:
                raise InvalidRequest("The provider was told to refuse.")
            case ["wait"]:
                return await self._wait()
            case ["big", size]:
                return "x" * int(size)
            case ["use", _]:
                return call("shout", word="hello")
            case ["delegate", orders]:
                pieces = [{"agent": "worker", "task": each} for each in orders.split("; ")]
                return call(DELEGATE, tasks=pieces)
            case ["say", words]:
                return words
        return prompt

    async def _wait(self) -> Reply:
        self.waiting.release()
        while not self.gate.is_set():  # noqa: ASYNC110 - another thread opens it
            await asyncio.sleep(0.01)
        return "waited"


def orchestrator(scene: Scene) -> Orchestrator:
    """One agent with a tool, another one to delegate to."""

    @heartbit.tool(effect="pure")
    async def shout(word: str) -> str:
        """Say it loud."""
        return word.upper()

    return Orchestrator(
        provider=ScriptedProvider(scene.reply),
        agents=[
            Agent(name="worker", description="Does as it is told.", tools=[shout]),
            Agent(name="other", description="Another one."),
        ],
    )


def runtime(scene: Scene, database: str, **options: Any) -> Runtime:
    """A runtime on a real journal."""
    loop, stack = background_loop(), AsyncExitStack()
    return Runtime(
        journal=PostgresJournal(database),
        outbox=CeleryOutbox(),
        orchestrator=loop.run(stack.enter_async_context(orchestrator(scene))),
        resources=stack,
        loop=loop,
        lease_seconds=options.pop("lease_seconds", 15),
        **options,
    )


def host_app(broker: str, backend: str | None = None, **settings: Any) -> Celery:
    """A host's app: its own queue and tasks, heartbit installed."""
    app = Celery("host", broker=broker, backend=backend or broker, set_as_current=False)
    app.conf.update(
        broker_connection_retry_on_startup=True,
        # A worker that ends waits for the answer to its last question, a second by default.
        broker_transport_options={"max_connections": 100, "polling_interval": 0.2},
        result_backend_thread_safe=True,
        worker_prefetch_multiplier=1,
        redis_socket_timeout=None,
        **settings,
    )
    heartbit.install(app)
    return app


@contextmanager
def _logging_as_it_was() -> Iterator[None]:
    """A worker logs to stderr through the root logger, for the rest of its process."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.setLevel(level)
        for handler in list(root.handlers):
            if handler not in before and not isinstance(handler, LogCaptureHandler):
                root.removeHandler(handler)


@contextmanager
def worker(app: Celery, concurrency: int = 8, **options: Any) -> Iterator[None]:
    """A worker of this process, in threads."""
    with (
        _logging_as_it_was(),
        start_worker(
            app,
            pool="threads",
            concurrency=concurrency,
            perform_ping_check=False,
            loglevel="INFO",
            shutdown_timeout=SECONDS,
            **options,
        ),
    ):
        yield


def close(app: Celery) -> None:
    """Close every connection of an app that has sent and received."""
    backend: Any = app.backend
    gc.collect()  # results say goodbye to the broker while it is there
    pools.reset()
    everything: Any = _state
    for other in list(everything._get_active_apps()):
        other._after_fork()  # all apps share these pools: the next use is to make new ones
    if consumer := getattr(backend, "result_consumer", None):
        consumer.stop()
        consumer._pubsub = None  # a result that is forgotten later would connect again
        backend.client.connection_pool.disconnect()
    app.close()


def let_it_finish(app: Celery) -> None:
    """Wait for what a test has left behind, as long as it takes.

    What it still does would be seen by the next test. And a task that ends after its channel was
    closed opens a connection to acknowledge itself, which nobody closes.
    """
    with redis.Redis.from_url(app.conf.broker_url) as client:
        end = time.monotonic() + SECONDS
        idle = 0
        # A message that a worker just takes is nowhere to be seen for a moment.
        while idle < 2 and time.monotonic() < end:
            busy = state.active_requests or client.exists(*QUEUES, "unacked")
            idle = 0 if busy else idle + 1
            time.sleep(0.005)


@contextmanager
def fleet(
    app: Celery,
    scene: Scene,
    database: str,
    *,
    batch_seconds: float | None = None,
    **options: Any,
) -> Iterator[Runtime]:
    """A worker with a runtime; afterwards nothing of it is left in the process."""
    made = runtime(scene, database, batch_seconds=batch_seconds)
    tasks.use(made)
    celery_state: Any = _state
    try:
        with worker(app, **options):
            worker_ready.send(sender=app)  # as a worker that is a program does
            yield made
            scene.gate.set()
            let_it_finish(app)
    finally:
        scene.gate.set()
        process.close()
        stop_background_loop()
        close(app)
        celery_state._tls.current_app = celery_state.default_app = None


def until(condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """Wait until a condition holds, and give what it gave."""
    end = time.monotonic() + seconds
    while True:
        if found := condition():
            return found
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def text(output: Any) -> str:
    """The result in what a run gives."""
    return str((json.loads(output) if isinstance(output, str) else output)["result"])
