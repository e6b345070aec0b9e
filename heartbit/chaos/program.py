"""What runs in the processes that are killed: a real Celery worker, and whoever calls it.

They are forked from one process that has imported everything (multiprocessing's forkserver, which
is told to preload this module), so that a worker is ready within 50 ms.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import Any, Literal

# What a worker imports on its way: here once, instead of in every fork.
import celery.apps.worker
import celery.backends.redis
import celery.concurrency.thread
import celery.fixups.django
import celery.worker.autoscale
import celery.worker.components
import celery.worker.consumer.delayed_delivery
import celery.worker.control
import celery.worker.strategy
import kombu.transport.redis
import pydantic.dataclasses
from celery.signals import after_task_publish, before_task_publish

import heartbit.results
from heartbit import runtime as process
from heartbit.apps import QUEUES
from heartbit.celery import app
from heartbit.chaos.saboteur import Role, Saboteur
from heartbit.chaos.stage import Stage, StagedOrchestrator
from heartbit.client import Client, RunHandle
from heartbit.core.events import RunStarted
from heartbit.engines.chaos import Boundaries, Edge, Places, watched_journal
from heartbit.engines.chores import EMBED_MEMORIES, PRUNE_MEMORIES
from heartbit.engines.ids import run_id_of_task
from heartbit.engines.plan import RunPlace
from heartbit.errors import RunStateError
from heartbit.loop import background_loop
from heartbit.outbox import RUN_AGENT, CeleryOutbox
from heartbit.runtime import Runtime, load_config
from heartbit.stores.memories.postgres import PostgresMemories
from heartbit.stores.postgres import PostgresJournal
from heartbit.stores.redis_client import quick_client
from heartbit.tasks import run_agent
from heartbit.tools.memory import Memories

Start = Literal["message", "submit"]
THREADS = 8
OURS = "heartbit."
# They belong to no run, and nobody knows when they come.
CHORES = frozenset({PRUNE_MEMORIES, EMBED_MEMORIES})


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What every process of one lane is told; `directory` is where their files are."""

    directory: Path
    database: str
    broker: str
    stage: Stage
    lease_seconds: float
    batch_seconds: float | None

    @property
    def queues(self) -> str:
        """All queues that messages may go to."""
        named = {spec.queue for spec in self.stage.tools if spec.queue}
        return ",".join([*QUEUES, *sorted(named - {*QUEUES})])


def work(order: Order) -> None:
    """Be a worker until the end."""
    _enter(order, "worker")
    app.Worker(
        hostname=f"{order.directory.name}-{os.getpid()}@chaos",
        pool="threads",
        concurrency=THREADS,
        queues=order.queues,
        loglevel="INFO",
        without_mingle=True,  # they have nobody to talk to
        without_gossip=True,
        without_heartbeat=True,
    ).start()


def begin(order: Order, run_id: str, prompt: str, start: Start) -> None:
    """Start a run: by a message, or by writing it down first, as `heartbit submit` does.

    Each run is that of a user of its own, so that what it remembers is its own.
    """
    made = _enter(order, "caller")
    if start == "message":
        run_agent.apply_async((prompt,), {"user_id": run_id}, task_id=run_id)
    else:
        place = RunPlace(run_id=run_id, root_run_id=run_id, user_id=run_id)
        definition = order.stage.definition
        opening = RunStarted(prompt=prompt, definition=definition, blackboard=run_id)
        made.engine.open(place, opening, task_id=run_id)
        made.engine.resume(run_id)
    process.close()


def approve(order: Order, run_id: str) -> None:
    """Approve whatever a run asks."""
    made = _enter(order, "caller")
    client = Client(made.journal, load_config(), CeleryOutbox())
    for question in client.output(run_id).pending:
        with suppress(RunStateError):  # one that was killed has decided already
            RunHandle(id=run_id, client=client).approve(question, by="chaos")
    process.close()


def _enter(order: Order, role: Role) -> Runtime:
    _log_to(order.directory / f"{role}-{os.getpid()}.log")
    threading.Thread(target=_end_with_parent, name="chaos-parent", daemon=True).start()
    os.environ.pop("HEARTBIT_CELERY_CONFIG", None)
    os.environ.update(
        HEARTBIT_CONFIG=str(order.directory / "heartbit.toml"),
        HEARTBIT_DATABASE_URL=order.database,
        CELERY_BROKER_URL=order.broker,
        CELERY_RESULT_BACKEND=order.broker,
    )
    made = _runtime(order, role)
    process.use(made)
    return made


def _log_to(path: Path) -> None:
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    os.close(log)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None  # noqa: S101 - this is a child
    connection.wait([parent.sentinel])
    os._exit(1)


def _runtime(order: Order, role: Role) -> Runtime:
    journal = PostgresJournal(order.database)
    boundaries = Boundaries(Places(journal), Saboteur(order.directory, role))
    _tell_of_messages(boundaries)
    memories = None
    if order.stage.remembers:
        memories = Memories(store=PostgresMemories.at(order.database))
    return Runtime(
        journal=watched_journal(journal, boundaries),
        outbox=CeleryOutbox(),
        orchestrator=StagedOrchestrator(order.stage, order.directory, memories),
        memories=memories,
        resources=AsyncExitStack(),
        loop=background_loop(),
        lease_seconds=order.lease_seconds,
        batch_seconds=order.batch_seconds,
        redis_client=quick_client(order.broker),
    )


def _tell_of_messages(boundaries: Boundaries) -> None:
    def telling(edge: Edge) -> Callable[..., None]:
        def tell(sender: str, body: Any, headers: Any, **_: Any) -> None:
            if sender.startswith(OURS) and sender not in CHORES:
                boundaries.tell(*_message(sender, body, headers), edge)

        return tell

    before_task_publish.connect(telling("before"), weak=False)
    after_task_publish.connect(telling("after"), weak=False)


def _message(sender: str, body: Any, headers: Any) -> tuple[str, str]:
    """The run that a message is about, and what it is called."""
    name, arguments = sender.removeprefix(OURS), body[0]
    if sender == RUN_AGENT:
        return run_id_of_task(headers["id"]), f"send {name}"
    run_id, *step = arguments
    return str(run_id), " ".join(["send", name, *step])


PRELOADED = (
    celery.apps.worker,
    celery.backends.redis,
    celery.concurrency.thread,
    celery.fixups.django,
    celery.worker.autoscale,
    celery.worker.components,
    celery.worker.consumer.delayed_delivery,
    celery.worker.control,
    celery.worker.strategy,
    kombu.transport.redis,
    pydantic.dataclasses,
    heartbit.results,
)
