"""`heartbit chaos`: one's own agents, with their workers killed at every boundary of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from heartbit.cli.durable import json_flag, prepare, print_json
from heartbit.cli.group import global_flags
from heartbit.cli.run import prompt_text

if TYPE_CHECKING:
    from heartbit.chaos.harness import Plan, Result
    from heartbit.chaos.saboteur import Fault
    from heartbit.chaos.servers import Servers
    from heartbit.chaos.stage import Stage
    from heartbit.config import Config

COLUMNS = ("result", "journal", "tools", "turns", "late")


@click.command()
@click.argument("config_file", metavar="CONFIG", type=click.Path(path_type=Path))
@click.argument("prompt", nargs=-1, required=True, metavar="PROMPT...")
@click.option("--agent", metavar="NAME", help="Who gets the prompt, whatever the routing says.")
@click.option(
    "--script",
    metavar="MODULE:NAME",
    help="What the models say: a function of the request, whatever tools gave.",
)
@click.option("--steps", type=click.Choice(["each", "batched"]), help="In place of [celery] steps.")
@click.option(
    "--lease-seconds",
    type=click.FloatRange(min=0.5),
    default=1.0,
    show_default=True,
    help="After how long a lost worker is missed.",
)
@click.option(
    "--lanes",
    type=click.IntRange(1, 12),
    default=6,
    show_default=True,
    help="How many runs are disturbed at the same time.",
)
@json_flag
@global_flags
@click.pass_context
def chaos(
    ctx: click.Context,
    /,
    config_file: Path,
    prompt: tuple[str, ...],
    agent: str | None,
    script: str | None,
    steps: str | None,
    lease_seconds: float,
    lanes: int,
    as_json: bool,
) -> None:
    """Kill the workers of a run of CONFIG at every boundary of its journal.

    Before and after everything that is stored or sent, a worker (or whoever submits or approves) is
    killed, or frozen until another one has taken over. Each of these runs must come to the result
    of an undisturbed one, with the same journal, no tool begun twice that must not be, and no turn
    requested again that was in the journal.

    Servers are started for it and thrown away; those of CONFIG are left alone. A script answers in
    place of the models, and stubs that only note their calls stand in for the tools: nothing is
    paid, and nothing is touched. Exit code 1 if a promise was broken.
    """
    prepare(ctx)
    from heartbit.chaos.servers import open_servers
    from heartbit.chaos.stage import build_stage, read_config

    config = read_config(config_file)
    stage = build_stage(config, agent=agent, script=script)
    _introduce(stage)
    with open_servers() as servers:
        batch_seconds = _batch_seconds(config, steps or config.celery.steps)
        plan = _plan(stage, servers, prompt_text(prompt), lease_seconds, batch_seconds, lanes)
        results = _played(plan)
    ok = all(result.ok for result in results)
    boundaries = len({result.fault.spot for result in results})
    if as_json:
        shown = [_as_json(result) for result in results]
        print_json({"ok": ok, "boundaries": boundaries, "faults": shown})
    else:
        _print_table(results)
        kept = sum(result.ok for result in results)
        click.echo(f"{boundaries} boundaries, {len(results)} faults, {kept} without harm")
    ctx.exit(0 if ok else 1)


def _introduce(stage: Stage) -> None:
    stubs = {spec.name: spec.effect for spec in stage.tools if spec.ref.startswith("chaos:")}
    names = ", ".join(f"{name} ({effect})" for name, effect in sorted(stubs.items()))
    click.echo(f"agents: {', '.join(agent.name for agent in stage.agents)}", err=True)
    click.echo(f"stubs in place of: {names or 'no tool'}", err=True)


def _batch_seconds(config: Config, steps: str) -> float | None:
    return config.celery.batch_seconds if steps == "batched" else None


def _plan(
    stage: Stage,
    servers: Servers,
    prompt: str,
    lease_seconds: float,
    batch_seconds: float | None,
    lanes: int,
) -> Plan:
    from heartbit.chaos.harness import Plan

    return Plan(
        stage=stage,
        prompt=prompt,
        directory=servers.directory,
        make_database=servers.make_database,
        broker=servers.broker,
        lease_seconds=lease_seconds,
        batch_seconds=batch_seconds,
        lanes=lanes,
    )


def _played(plan: Plan) -> list[Result]:
    """What comes of every fault, in the order of the boundaries."""
    from heartbit.chaos.harness import open_harness

    with open_harness(plan) as harness:
        faults = harness.faults()
        order: dict[Fault, int] = {fault: number for number, fault in enumerate(faults)}
        with _progress(len(faults)) as step:
            results = [_counted(each, step) for each in harness.results(faults)]
    return sorted(results, key=lambda result: order[result.fault])


def _counted(result: Result, step: Any) -> Result:
    step()
    return result


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """A bar on stderr, if that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("disturbing", total=total)
        yield lambda: bar.advance(task)


def _print_table(results: Sequence[Result]) -> None:
    rows = [_row(result) for result in results]
    header = ("fault", "boundary", "seconds", *COLUMNS)
    widths = [max(len(row[n]) for row in [header, *rows]) for n in range(len(header))]
    for row, problems in [(header, []), *zip(rows, (r.problems for r in results), strict=True)]:
        cells = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
        for problem in problems:
            click.echo(f"        {problem}")


def _row(result: Result) -> tuple[str, ...]:
    verdicts = (_verdict(result, column) for column in COLUMNS)
    return (result.fault.kind, str(result.fault.spot), f"{result.seconds:.1f}", *verdicts)


def _verdict(result: Result, column: str) -> str:
    if column not in result.checks:
        return "?"
    return "WRONG" if result.checks[column] else "ok"


def _as_json(result: Result) -> dict[str, Any]:
    return {
        "fault": result.fault.kind,
        "boundary": str(result.fault.spot),
        "ok": result.ok,
        "seconds": round(result.seconds, 3),
        "problems": result.problems,
    }
