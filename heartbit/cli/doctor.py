"""`heartbit doctor`: whether durable runs work here, and what to do if they don't."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from heartbit import __version__
from heartbit.cli.durable import json_flag, prepare, print_json
from heartbit.cli.group import global_flags

if TYPE_CHECKING:
    from heartbit.cli.checks import Finding
    from heartbit.config import Config

ANSWER_SECONDS = 1.0


@click.command()
@json_flag
@global_flags
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Check configuration, database, broker, settings and workers; say the remedy of each fault.

    Exit code 1 if something fails; a warning alone is 0.
    """
    prepare(ctx)
    findings = []
    for finding in _findings():
        findings.append(finding)
        if not as_json:
            click.echo(f"{finding.level:<4}  {finding.name}: {finding.said}")
        if not as_json and finding.remedy:
            click.echo(f"      {finding.remedy}")
    healthy = all(finding.level != "fail" for finding in findings)
    if as_json:
        print_json({"ok": healthy, "checks": [asdict(finding) for finding in findings]})
    ctx.exit(0 if healthy else 1)


def _findings() -> Iterator[Finding]:
    from importlib.metadata import version

    from heartbit.cli.checks import ok
    from heartbit.client import local_config
    from heartbit.config import find_config

    config = local_config()
    python = platform.python_version()
    yield ok("versions", f"heartbit {__version__}, Celery {version('celery')}, Python {python}")
    yield ok("configuration", str(find_config(None, os.environ) or "the defaults, without a file"))
    yield from _database(config)
    yield from _fleet(config)


def _database(config: Config) -> Iterable[Finding]:
    from heartbit.cli.checks import fail, migration_finding, server_findings
    from heartbit.errors import HeartbitError
    from heartbit.runtime import database_url
    from heartbit.stores.health import examine
    from heartbit.stores.migrate import pending

    try:
        url = database_url(config)
        findings = [*server_findings(examine(url)), migration_finding(pending(url))]
    except HeartbitError as error:
        return [fail("database", error.message, "Nothing more can be said of it before that.")]
    return findings


def _fleet(config: Config) -> Iterator[Finding]:
    from heartbit.apps import QUEUES
    from heartbit.celery import app
    from heartbit.cli.checks import fail, ok, redis_findings, visibility_finding, worker_findings

    connection = app.connection_for_read()
    shown = connection.as_uri()
    try:
        with connection:
            connection.ensure_connection(max_retries=1, timeout=2, interval_start=0)
            if connection.transport.driver_type == "redis":
                yield from redis_findings(*_ask_redis(connection))
            else:
                yield ok("broker", f"{shown} answers")
        options = app.conf.broker_transport_options
        visible = float(options.get("visibility_timeout", 3600))
        yield visibility_finding(visible, config.celery.lease_seconds)
        inspected = app.control.inspect(timeout=ANSWER_SECONDS).active_queues() or {}
    except Exception as error:  # whatever this broker's library raises
        reason = " ".join(str(error).split()).rstrip(".")
        remedy = "Start it, or correct broker_url in [celery] or $CELERY_BROKER_URL."
        yield fail("broker", f"{shown} does not answer ({reason})", remedy)
        return
    queues = {worker: [q["name"] for q in read] for worker, read in inspected.items()}
    wanted = [*QUEUES, *{tool.queue for tool in config.tools if tool.queue}]
    yield from worker_findings(queues, wanted)


def _ask_redis(connection: object) -> tuple[str, str | None]:
    """The server's version and its maxmemory-policy; a hosted server may not tell that."""
    import redis

    client = connection.default_channel.client  # type: ignore[attr-defined]
    version = str(client.info("server")["redis_version"])
    try:
        return version, client.config_get("maxmemory-policy").get("maxmemory-policy")
    except redis.RedisError:
        return version, None
