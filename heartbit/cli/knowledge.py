"""`heartbit knowledge`: the documents that agents can search, for the person who runs them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from heartbit.cli.bars import progress_bar
from heartbit.cli.durable import json_flag, prepare, print_json
from heartbit.cli.exits import FAILED
from heartbit.cli.group import global_flags
from heartbit.core.knowledge import DEFAULT_LIMIT, MAX_LIMIT

if TYPE_CHECKING:
    from heartbit.config import Config
    from heartbit.knowledge.report import Report
    from heartbit.library import Library

NOWHERE = (
    "the index ends with this command, because there is no database to keep it in; set url in "
    "[database]"
)


@click.group()
def knowledge() -> None:
    """Index and search the documents of [knowledge]."""


@knowledge.command()
@json_flag
@global_flags
@click.pass_context
def index(ctx: click.Context, as_json: bool) -> None:
    """Take in what has changed in the sources, and drop what is gone.

    With a broker and a database the workers do it, and this waits for them. Exit code 1 if a part
    could not be indexed; a document that cannot be read is a warning.
    """
    config = _config(ctx)
    with _opened(config) as library:
        report = _indexed(config, library, by_workers=has_fleet(config))
        if not library.store.has_tables:
            click.echo(f"warning: {NOWHERE}", err=True)
    if as_json:
        print_json(report.as_json())
    else:
        click.echo(report.summary())
    ctx.exit(FAILED if report.failed else 0)


@knowledge.command()
@click.argument("query", nargs=-1, required=True, metavar="QUERY...")
@click.option("--source", metavar="START", help="Only documents whose names begin like this.")
@click.option(
    "--limit", type=click.IntRange(1, MAX_LIMIT), default=DEFAULT_LIMIT, help="At most so many."
)
@json_flag
@global_flags
@click.pass_context
def search(
    ctx: click.Context, query: tuple[str, ...], source: str | None, limit: int, as_json: bool
) -> None:
    """Print what an agent would find for QUERY, the best first, with its places."""
    config = _config(ctx)
    from heartbit.loop import background_loop

    with _opened(config) as library:
        _indexed_here(config, library)
        found = background_loop().run(_found(library, " ".join(query), source, limit))
    if as_json:
        print_json({"passages": [asdict(each) | {"citation": each.citation} for each in found]})
        return
    from heartbit.cli.words import printable

    for each in found:
        click.echo(f"{printable(each.citation)}\n{printable(each.text)}\n")
    if not found:
        click.echo("nothing found", err=True)


@knowledge.command()
@json_flag
@global_flags
@click.pass_context
def sources(ctx: click.Context, as_json: bool) -> None:
    """List the documents of the index."""
    config = _config(ctx)
    with _opened(config) as library:
        _indexed_here(config, library)
        documents = library.store.documents()
    if as_json:
        shown = [asdict(each) | {"indexed_at": each.indexed_at.isoformat()} for each in documents]
        print_json({"documents": shown})
        return
    from heartbit.cli.words import count, one_line

    for each in documents:
        when = each.indexed_at.astimezone().strftime("%Y-%m-%d %H:%M")
        click.echo(f"{when}  {count(each.chunks, 'chunk'):>12}  {one_line(each.source)}")
    if not documents:
        click.echo("no documents", err=True)


def _config(ctx: click.Context) -> Config:
    """The configuration.

    Raises:
        ConfigError: it has no [knowledge].
    """
    prepare(ctx)
    from heartbit.client import local_config
    from heartbit.errors import ConfigError

    config = local_config()
    if config.knowledge is None:
        raise ConfigError("There is no [knowledge] in the configuration; list its sources there.")
    return config


def has_fleet(config: Config) -> bool:
    """Whether there are workers to do something, as far as the configuration says."""
    import os

    broker = config.celery.broker_url or os.environ.get("CELERY_BROKER_URL")
    return bool(broker) and config.database.url is not None


@contextmanager
def _opened(config: Config) -> Iterator[Library]:
    from heartbit.loop import background_loop
    from heartbit.providers.http import HttpClient
    from heartbit.wiring import build_library

    http = HttpClient()
    library = build_library(config, http)
    try:
        yield library
    finally:
        library.store.close()
        background_loop().run(http.aclose())


def _indexed_here(config: Config, library: Library) -> None:
    """Index what is kept in this process only: a database has its index."""
    if not library.store.has_tables:
        _indexed(config, library, by_workers=False)


def _indexed(config: Config, library: Library, *, by_workers: bool) -> Report:
    from heartbit.loop import background_loop

    with progress_bar("indexing") as show:
        if by_workers:
            from heartbit.indexing import index_by_workers

            report = index_by_workers(library.index.listing(), show)
        else:
            report = background_loop().run(library.index.refresh(show))
    for warning in report.warnings():
        click.echo(f"warning: {warning}", err=True)
    return report


async def _found(library: Library, query: str, source: str | None, limit: int) -> Any:
    from heartbit.knowledge.base import Knowledge

    found = Knowledge(library.store, embedder=library.embedder)
    embedding = await found.ready(query)
    return found.search(query, source_filter=source, limit=limit, embedding=embedding)
