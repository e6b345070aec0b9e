"""Which journal a program speaks to: that of its configuration, else of the `heartbit dev` here."""

from __future__ import annotations

import atexit
import os
from collections.abc import MutableMapping
from typing import Any

from heartbit.apps import ensure_app
from heartbit.client.events import RunEvents
from heartbit.client.handle import RunHandle
from heartbit.client.runs import Client
from heartbit.config import Config
from heartbit.embedded.address import find_running, state_directory
from heartbit.outbox import CeleryOutbox
from heartbit.runtime import announcer, database_url, load_config
from heartbit.runtime import journal as process_journal
from heartbit.stores.postgres import PostgresJournal

CONNECTIONS = 2


class _ClientOutbox(CeleryOutbox):
    """The end of a run is published by the sweep: this process has no agents and no results."""

    def finished(self, run_id: str) -> None:
        """Nothing to do here."""


def submit(
    prompt: Any,
    *,
    agent: str | None = None,
    run_id: str | None = None,
    approve: bool = False,
    tenant_id: str | None = None,
    user_id: str | None = None,
    priority: int = 0,
    config: Config | None = None,
) -> RunHandle:
    """Open a durable run and return at once; see `Client.submit`.

    Without a `config` it is that of this process: $HEARTBIT_CONFIG, else ./heartbit.toml.

    Raises:
        ConfigError: there is no database, no such agent, or a tool cannot be had.
        RunStateError: the id belongs to a run with another prompt, agent or tenant.
    """
    return connect(config).submit(
        prompt,
        agent=agent,
        run_id=run_id,
        approve=approve,
        tenant_id=tenant_id,
        user_id=user_id,
        priority=priority,
    )


def stream(run_id: str, *, after: str | None = None, config: Config | None = None) -> RunEvents:
    """Everything that a durable run and those below it say, from the beginning to the end.

    For `async for` and for `for`. Each entry has an `offset`: given as `after`, what follows it is
    told, so that a reader can go on where it was, also in another process and after weeks.

    Raises:
        ConfigError: there is no database; at the first entry: `after` is no offset.
        RunNotFound: at the first entry: there is no such run.
    """
    return connect(config).stream(run_id, after=after)


def connect(config: Config | None = None) -> Client:
    """The runs of the configured database; without any, of the `heartbit dev` that runs here.

    Raises:
        ConfigError: there is no database.
    """
    if config is not None:
        journal = PostgresJournal(database_url(config), pool_size=CONNECTIONS)
        ensure_app()
        atexit.register(journal.close)
        return Client(journal, config, _ClientOutbox(), announce=announcer(config))
    settled = local_config()
    database_url(settled)
    ensure_app()
    return Client(process_journal(), settled, _ClientOutbox(), announce=announcer(settled))


def local_config() -> Config:
    """The configuration of this process, with the servers of `heartbit dev` where it has none.

    Raises:
        ConfigError: it is not valid.
    """
    lend(os.environ, load_config())
    return load_config()


def lend(environ: MutableMapping[str, str], config: Config) -> None:
    """Have this process use the servers of a running `heartbit dev` for what has no address."""
    running = find_running(state_directory(environ))
    if running is None:
        return
    if config.database.url is None and running.database_url:
        environ["HEARTBIT_DATABASE_URL"] = running.database_url
    if config.celery.broker_url is None and running.broker_url:
        environ["CELERY_BROKER_URL"] = running.broker_url
