"""`heartbit models`: embedding models on this machine."""

from __future__ import annotations

import click

from heartbit.cli.durable import json_flag, prepare, print_json
from heartbit.cli.group import global_flags


@click.group()
def models() -> None:
    """Fetch the embedding models that run on this machine."""


@models.command()
@click.argument("model", required=False, metavar="[MODEL]")
@json_flag
@global_flags
@click.pass_context
def pull(ctx: click.Context, model: str | None, as_json: bool) -> None:
    """Download MODEL, by default the one of [memory.embedding], unless it is there already.

    Workers and runs never download anything by themselves.
    """
    prepare(ctx)
    from heartbit.client import local_config
    from heartbit.config.memory import EmbeddingTable
    from heartbit.providers.local_embedder import LocalEmbedder

    memory = local_config().memory
    table = memory.embedding if memory else EmbeddingTable()
    configured = table.model if table.provider == "local" else None
    name = model or configured
    named = {"model": name} if name else {}
    embedder = LocalEmbedder(cache_dir=table.cache_dir, **named)
    embedder.fetch()
    if as_json:
        print_json({"model": embedder.model})
    else:
        click.echo(f"{embedder.model} is on this machine", err=True)
