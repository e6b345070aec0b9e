"""`heartbit memory`: what agents remember, for the person who runs them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO, TypeVar

import click

from heartbit.cli.bars import progress_bar
from heartbit.cli.durable import json_flag, prepare, print_json
from heartbit.cli.exits import FAILED
from heartbit.cli.group import global_flags

if TYPE_CHECKING:
    from heartbit.core.memory import Memory
    from heartbit.tools.memory import Memories

F = TypeVar("F", bound=Callable[..., Any])
SHOWN_CHARACTERS = 100


def whose(command: F) -> F:
    """The flags that say whose memories are meant."""
    for name, text in (("user", "Those of a user."), ("tenant", "Those of a tenant.")):
        command = click.option(f"--{name}", metavar="ID", help=text)(command)
    return command


@click.group()
def memory() -> None:
    """List, search, delete, move and embed what agents remember in Postgres."""


@memory.command(name="list")
@click.option("--agent", metavar="NAME", help="Those of one agent.")
@whose
@json_flag
@global_flags
@click.pass_context
def list_(
    ctx: click.Context, agent: str | None, tenant: str | None, user: str | None, as_json: bool
) -> None:
    """Print memories, in the order of their ids."""
    with _opened(ctx) as memories:
        for each in memories.store.export(tenant_id=tenant, user_id=user, agent=agent):
            _show(each, as_json=as_json)


@memory.command()
@click.argument("query", nargs=-1, metavar="QUERY...")
@click.option("--agent", metavar="NAME", help="Those of one agent.")
@click.option("--limit", type=click.IntRange(min=1), default=10, help="At most so many.")
@whose
@json_flag
@global_flags
@click.pass_context
def recall(
    ctx: click.Context,
    query: tuple[str, ...],
    agent: str | None,
    limit: int,
    tenant: str | None,
    user: str | None,
    as_json: bool,
) -> None:
    """Print what an agent would recall for QUERY, the best first; it becomes no stronger by that.

    Without QUERY the most valuable memories are printed.
    """
    from heartbit.core.memory import MemoryQuery
    from heartbit.loop import background_loop

    text = " ".join(query)
    asked = MemoryQuery(tenant_id=tenant, user_id=user, agent=agent, text=text, limit=limit)
    with _opened(ctx) as memories:
        embedding = background_loop().run(memories.embedding(text, "query"))
        for each in memories.store.recall(
            asked, embedding=embedding, weights=memories.weights, reinforce=False
        ):
            _show(each.memory, as_json=as_json, score=each.score)


@memory.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--agent", required=True, metavar="NAME", help="The agent whose memories they are.")
@whose
@global_flags
@click.pass_context
def forget(
    ctx: click.Context, ids: tuple[str, ...], agent: str, tenant: str | None, user: str | None
) -> None:
    """Delete memories for good; exit code 1 if there is no such one."""
    from heartbit.core.memory import Namespace

    namespace = Namespace(agent=agent, tenant_id=tenant, user_id=user)
    with _opened(ctx) as memories:
        missing = [each for each in ids if not memories.store.forget(namespace, each)]
    for each in missing:
        click.echo(f"error: {agent} has no memory {each!r}.", err=True)
    ctx.exit(FAILED if missing else 0)


@memory.command()
@click.argument("file", type=click.File("w", encoding="utf-8"), default="-")
@click.option("--agent", metavar="NAME", help="Those of one agent.")
@whose
@global_flags
@click.pass_context
def export(
    ctx: click.Context, file: TextIO, agent: str | None, tenant: str | None, user: str | None
) -> None:
    """Write memories to FILE, one JSON object a line, without their vectors."""
    from heartbit.stores.memories.exchange import as_object

    with _opened(ctx) as memories:
        for each in memories.store.export(tenant_id=tenant, user_id=user, agent=agent):
            file.write(json.dumps(as_object(each)) + "\n")


@memory.command(name="import")
@click.argument("file", type=click.File("rb"), default="-")
@json_flag
@global_flags
@click.pass_context
def import_(ctx: click.Context, file: BinaryIO, as_json: bool) -> None:
    """Store the memories of FILE, as `export` has written them: all of them, or none.

    Those that are there already are replaced.
    """
    from heartbit.stores.memories.exchange import from_lines

    with _opened(ctx) as memories:
        count = memories.store.store_all(from_lines(file))
    if as_json:
        print_json({"imported": count})
    else:
        click.echo(f"imported {count} memories", err=True)


@memory.command()
@json_flag
@global_flags
@click.pass_context
def embed(ctx: click.Context, as_json: bool) -> None:
    """Give all memories a vector of the configured model that have none, of every tenant.

    Workers do so by themselves. Exit code 1 if some were refused by the model.
    """
    from heartbit.engines.embedding import embed_missing
    from heartbit.errors import ConfigError
    from heartbit.loop import background_loop

    with _opened(ctx) as memories, progress_bar("embedding") as show:
        if memories.embedder is None:
            raise ConfigError(
                "There is no embedding model; set provider to openai or local in "
                "[memory.embedding]."
            )
        embedding = embed_missing(memories.store, memories.embedder, on_progress=show)
        found = background_loop().run(embedding)
    if as_json:
        print_json(found.as_json())
    else:
        click.echo(f"embedded {found.done} memories, {found.left} have no vector", err=True)
    ctx.exit(FAILED if found.left else 0)


@contextmanager
def _opened(ctx: click.Context) -> Iterator[Memories]:
    """The configured memories, for one command.

    Raises:
        ConfigError: they are in no database.
    """
    prepare(ctx)
    from heartbit.client import local_config
    from heartbit.loop import background_loop
    from heartbit.providers.http import HttpClient
    from heartbit.wiring import stored_memories

    http = HttpClient()
    memories = stored_memories(local_config(), http)
    try:
        yield memories
    finally:
        memories.store.close()
        background_loop().run(http.aclose())


def _show(memory: Memory, *, as_json: bool, score: float | None = None) -> None:
    from heartbit.stores.memories.exchange import as_object

    if as_json:
        print_json(as_object(memory) | ({} if score is None else {"score": score}))
        return
    from heartbit.cli.words import one_line

    said = (memory.id, memory.namespace.agent, memory.category, memory.content)
    rank = [] if score is None else [f"{score:.2f}"]
    click.echo("  ".join([*rank, *(one_line(text, SHOWN_CHARACTERS) for text in said)]))
