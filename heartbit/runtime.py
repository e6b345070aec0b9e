"""What one process of a fleet holds: journal, agents and tools, shared by all its Celery tasks.

Made at its first use, never at import, and keyed by process: a forked child makes its own.
"""

from __future__ import annotations

import atexit
import os
import socket
import threading
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import redis

from heartbit.config import Config, find_config, load
from heartbit.core.commands import CallTool, Command
from heartbit.core.events import Event
from heartbit.core.owner import NOBODY, Owner
from heartbit.core.result import RunOutput
from heartbit.core.state import RunState
from heartbit.engines.announcer import Announcer
from heartbit.engines.boards import StepBoards
from heartbit.engines.chores import Chores, memory_chores
from heartbit.engines.departure import Departure
from heartbit.engines.doubted import asked_first
from heartbit.engines.durable import DurableEngine
from heartbit.engines.leases import Held, Leases
from heartbit.engines.patience import Patience
from heartbit.engines.perform import Outside, perform
from heartbit.engines.plan import Plan, RunPlace, is_repeatable
from heartbit.engines.ports import Done, Outbox
from heartbit.engines.recovery import Sweep, SweepThread
from heartbit.engines.steps import identity_of, time_limit, writes_boards
from heartbit.engines.transactions import CallTransaction
from heartbit.errors import ConfigError
from heartbit.loop import BackgroundLoop, background_loop
from heartbit.orchestrator import Orchestrator, Resolved
from heartbit.stores.blackboard import BoardAccess, DurableBlackboard, ServedBoards
from heartbit.stores.journal import Journal
from heartbit.stores.postgres import PostgresJournal
from heartbit.stores.redis_client import quick_client
from heartbit.stores.streams import StreamWriter
from heartbit.tools.base import Tool
from heartbit.tools.celery_task import celery_task
from heartbit.tools.memory import Memories
from heartbit.wiring import open_orchestrator

SCRATCH_RUNS = 1024
LOCAL_REDIS = "redis://localhost:6379/0"


class Runtime:
    """The engine of this process with everything it works with."""

    def __init__(
        self,
        *,
        journal: Journal,
        outbox: Outbox,
        orchestrator: Orchestrator,
        resources: AsyncExitStack,
        loop: BackgroundLoop,
        lease_seconds: float,
        redis_client: redis.Redis | None = None,
        batch_seconds: float | None = None,
        max_active_runs: int | None = None,
        memories: Memories | None = None,
    ) -> None:
        self.journal = journal
        self.leases = Leases(journal, lease_seconds, ending=lambda: departure.due)
        self.engine = DurableEngine(
            journal=journal,
            outbox=outbox,
            work=self._work,
            owner=f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}",
            lease_seconds=lease_seconds,
            announce=self._announced,
            batch_seconds=batch_seconds,
            max_active_runs=max_active_runs,
            hold=self.leases.held,
            leaving=lambda: departure.begun,
            patience=Patience(ending=lambda: departure.due),
        )
        self._redis = redis_client
        self._streams = StreamWriter(redis_client) if redis_client else None
        self._boards: BoardAccess = ServedBoards(journal, redis_client) if redis_client else journal
        chores = Chores(journal, outbox, memory_chores(memories))
        sweep = Sweep(journal, self.engine, lease_seconds=lease_seconds, chores=chores)
        self.sweep = SweepThread(sweep)
        self._orchestrator = orchestrator
        self._memories = memories
        self._resources = resources
        self._loop = loop
        self._tools: dict[str, Tool] = {}
        self._scratch: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def resolve(self, agent: str | None = None) -> Resolved:
        """The definition that a run is opened with now.

        Raises:
            ConfigError: there is no such agent, or a tool cannot be had.
        """
        resolved = self._loop.run(self._orchestrator.resolve(agent))
        self._tools |= resolved.tools
        return resolved

    def run_here(
        self, prompt: Any, agent: str | None, run_id: str, owner: Owner = NOBODY
    ) -> RunOutput:
        """Run to the end in this process, without the journal."""
        return self._loop.run(_run_standalone(self._orchestrator, prompt, agent, run_id, owner))

    def close(self) -> None:
        """Close all connections of this process."""
        self.sweep.stop()
        self.leases.stop()
        self._loop.run(self._resources.aclose())
        if self._streams is not None:
            self._streams.close()
        if self._redis is not None:
            self._redis.close()
        self.journal.close()

    def _announced(self, place: RunPlace, plan: Plan) -> None:
        if self._streams is not None:
            Announcer(self._streams)(place, plan)

    def _work(self, command: Command, state: RunState, place: RunPlace, held: Held) -> Done:
        if isinstance(command, CallTool) and command.spec.ref not in self._tools:
            self.resolve("orchestrator")  # that is to say: the tools of all agents
        self.leases.check(held)
        boards = StepBoards(self._boards) if writes_boards(command) else None
        outside = self._outside(state, place, held, boards or self._boards)
        quick = isinstance(command, CallTool) and command.spec.inline
        with ExitStack() as stack:
            open_ = partial(self.journal.tool_transaction, quick=quick)
            call = stack.enter_context(CallTransaction(open_))
            event = self._event(command, state, replace(outside, transaction=call.during), held)
            call.check()
            if call.written is None:
                return Done(event=event, board=boards.writes if boards else ())
            stack.pop_all()  # whoever appends the event ends it
        return Done(event=event, board=boards.writes if boards else (), transaction=call)

    def _event(self, command: Command, state: RunState, outside: Outside, held: Held) -> Event:
        if held.doubt and isinstance(command, CallTool):
            work = asked_first(command, state, outside, lambda: self.leases.check(held))
        else:
            work = perform(command, state, outside)
        future = self._loop.submit(work)
        try:
            with self.leases.working(
                held,
                future.cancel,
                seconds=time_limit(command, state, doubt=held.doubt),
                repeatable=not isinstance(command, CallTool) or is_repeatable(command.spec),
            ):
                event = future.result()
        except BaseException:
            future.cancel()
            raise
        assert event is not None  # noqa: S101 - only a sub-run has its outcome later
        return event

    def _outside(
        self, state: RunState, place: RunPlace, held: Held, boards: BoardAccess
    ) -> Outside:
        providers: Mapping[str, Any] = self._orchestrator.providers
        identity = identity_of(state, place)
        streams = self._streams
        return Outside(
            identity=identity,
            provider=providers.__getitem__,
            tool=lambda spec: self._tools.get(spec.ref),
            blackboard=lambda scope: DurableBlackboard(boards, scope, place.run_id),
            sub_run=_never,
            listener=lambda step: (
                streams.listener(identity, step, held.attempt) if streams else None
            ),
            workspace=self._orchestrator.workspace,
            scratch=self._scratch_of(place.run_id),
            tenant_id=place.tenant_id,
            user_id=place.user_id,
            memories=self._memories,
            attempt=held.attempt,
            tried=held.tried,
        )

    def _scratch_of(self, run_id: str) -> dict[str, Any]:
        with self._lock:
            scratch = self._scratch.setdefault(run_id, {})
            self._scratch.move_to_end(run_id)
            if len(self._scratch) > SCRATCH_RUNS:
                self._scratch.popitem(last=False)
            return scratch


async def _never(command: object) -> Event | None:
    raise AssertionError("a sub-run of the durable engine is a run of its own")


async def _run_standalone(
    orchestrator: Orchestrator, prompt: Any, agent: str | None, run_id: str, owner: Owner
) -> RunOutput:
    async with orchestrator.opened(prompt, run_id=run_id, agent=agent, owner=owner) as run:
        await run.drive()
    return run.output


async def _run_once(
    config: Config, prompt: Any, agent: str | None, run_id: str, owner: Owner
) -> RunOutput:
    async with open_orchestrator(config) as orchestrator:
        return await _run_standalone(orchestrator, prompt, agent, run_id, owner)


def run_here(prompt: Any, agent: str | None, run_id: str, owner: Owner = NOBODY) -> RunOutput:
    """Run to the end in this process: no broker, no database, no other process.

    Raises:
        ConfigError: there is no such agent, or a tool cannot be had.
    """
    if made := current():
        return made.run_here(prompt, agent, run_id, owner)
    return background_loop().run(_run_once(load_config(), prompt, agent, run_id, owner))


def database_url(config: Config) -> str:
    """Where the journal is.

    Raises:
        ConfigError: the configuration says nothing of a database.
    """
    if config.database.url is None:
        raise ConfigError(
            "Durable runs need a PostgreSQL database: start one with `heartbit dev`, or set url in "
            "[database] or $HEARTBIT_DATABASE_URL."
        )
    return config.database.url.get_secret_value()


def configured(config: Config, outbox: Outbox) -> Runtime:
    """The runtime that a configuration describes.

    Raises:
        ConfigError: it says nothing of a database, or something it names cannot be had.
    """
    url = database_url(config)
    loop = background_loop()
    stack = AsyncExitStack()
    opened = open_orchestrator(config, celery_tasks=celery_task, durable=True)
    orchestrator = loop.run(stack.enter_async_context(opened))
    return Runtime(
        journal=PostgresJournal(url),
        outbox=outbox,
        orchestrator=orchestrator,
        resources=stack,
        loop=loop,
        lease_seconds=config.celery.lease_seconds,
        batch_seconds=config.celery.batch_seconds if config.celery.steps == "batched" else None,
        max_active_runs=config.celery.max_active_runs,
        memories=orchestrator.memories,
        redis_client=quick_client(address) if (address := redis_url(config)) else None,
    )


def redis_url(config: Config) -> str | None:
    """The Redis of streams and blackboards: the broker or the result backend, if that is one."""
    environ = (os.environ.get("CELERY_BROKER_URL"), os.environ.get("CELERY_RESULT_BACKEND"))
    configured = (config.celery.broker_url, config.celery.result_backend)
    addresses = [*(each.get_secret_value() for each in configured if each), *filter(None, environ)]
    return next((each for each in addresses if each.startswith(("redis://", "rediss://"))), None)


def load_config() -> Config:
    """The configuration of this process: $HEARTBIT_CONFIG, else ./heartbit.toml, else defaults."""
    path: Path | None = find_config(None, os.environ)
    return load(path, os.environ).config


departure = Departure()
"""Whether the worker that this process belongs to is to end; made before any child is forked."""

_runtimes: dict[int, Runtime] = {}
_journals: dict[int, Journal] = {}
_streams: dict[tuple[int, str], tuple[StreamWriter, redis.Redis]] = {}
_making = threading.RLock()


def current() -> Runtime | None:
    """The runtime of this process, if it has one."""
    return _runtimes.get(os.getpid())


def use(made: Runtime) -> None:
    """Use this runtime in this process, in place of the configured one."""
    with _making:
        _runtimes[os.getpid()] = made


def runtime(outbox: Outbox) -> Runtime:
    """The runtime of this process, made from its configuration at the first call.

    Raises:
        ConfigError: there is no database, or something that is configured cannot be had.
    """
    with _making:
        made = current()
        if made is None:
            _runtimes.clear()  # what a fork has copied belongs to the parent
            made = _runtimes[os.getpid()] = configured(load_config(), outbox)
        return made


def close() -> None:
    """Close what this process has made; a later use makes it anew."""
    with _making:
        made: list[Runtime | Journal | None] = [
            _runtimes.pop(os.getpid(), None),
            _journals.pop(os.getpid(), None),
        ]
    for each in made:
        if each is not None:
            each.close()
    _close_streams()


def announcer(config: Config) -> Announcer | None:
    """Tells the readers of runs what this process appends, for those who need no agents.

    Without a Redis they are told by the journal, somewhat later.
    """
    address = redis_url(config)
    if address is None:
        return None
    with _making:
        key = (os.getpid(), address)
        if key not in _streams:
            client = quick_client(address)
            _streams[key] = StreamWriter(client), client
            atexit.register(_close_streams)
        return Announcer(_streams[key][0])


def _close_streams() -> None:
    with _making:
        mine = [_streams.pop(key) for key in list(_streams) if key[0] == os.getpid()]
    for writer, client in mine:
        writer.close()
        client.close()


def journal() -> Journal:
    """The journal, for those who only look something up and need no agents.

    Raises:
        ConfigError: the configuration says nothing of a database.
    """
    with _making:
        if made := current():
            return made.journal
        pid = os.getpid()
        if pid not in _journals:
            _journals.clear()
            _journals[pid] = PostgresJournal(database_url(load_config()), pool_size=1)
            atexit.register(_journals[pid].close)
        return _journals[pid]
