"""`heartbit approvals`, `approve` and `deny`: what durable runs ask humans, and the answers."""

from __future__ import annotations

import getpass
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from heartbit.cli.durable import json_flag, open_client, print_json, run_argument
from heartbit.cli.group import global_flags

if TYPE_CHECKING:
    from heartbit.client import Client
    from heartbit.core.events import Decision
    from heartbit.core.messages import Json, ToolCall
    from heartbit.core.result import PendingApproval
    from heartbit.stores.records import Approval

calls_flag = click.option(
    "--calls", metavar="HASH", help="Only if the question is still the one that was shown so."
)


@click.command()
@json_flag
@global_flags
@click.pass_context
def approvals(ctx: click.Context, as_json: bool) -> None:
    """List what waits for a human in all runs, oldest first, with the exact calls."""
    found = open_client(ctx).journal.open_approvals()
    from heartbit.cli.overview import approval_json, approval_lines

    if as_json:
        print_json({"approvals": [approval_json(each) for each in found]})
        return
    for each in found:
        click.echo(each.root_run_id)
        click.echo("\n".join(approval_lines(each)))
    if not found:
        click.echo("nothing waits for an approval", err=True)


@click.command()
@run_argument
@click.option("--call", "numbers", type=int, multiple=True, metavar="N", help="Approve this call.")
@click.option("--all", "every", is_flag=True, help="Approve all calls that wait.")
@click.option("--edit", metavar="JSON", help="Run the call with these arguments instead.")
@calls_flag
@json_flag
@global_flags
@click.pass_context
def approve(
    ctx: click.Context,
    run_id: str,
    numbers: tuple[int, ...],
    every: bool,
    edit: str | None,
    calls: str | None,
    as_json: bool,
) -> None:
    """Let calls run that RUN, or a run below it, waits for.

    `heartbit status RUN` shows them with their numbers. If only one waits, its number can be left
    out. A question is answered as a whole: its calls that are not named are denied.
    """
    client = open_client(ctx)
    waiting = _waiting(client, run_id, calls)
    chosen = _chosen([n for n, *_ in waiting], numbers, every)
    edited = _edited(edit, chosen)
    decided = []
    for question, places in _by_question(client, waiting):
        if any(number in chosen for number, _ in places):
            decisions = [
                _decision(position, number in chosen, edited) for number, position in places
            ]
            _decide(client, question, decisions)
            decided += _told(question, decisions)
    _print(run_id, decided, as_json)


@click.command()
@run_argument
@click.option("--reason", metavar="TEXT", help="Why; the model reads it.")
@calls_flag
@json_flag
@global_flags
@click.pass_context
def deny(
    ctx: click.Context, run_id: str, reason: str | None, calls: str | None, as_json: bool
) -> None:
    """Let none of the calls run that RUN, or a run below it, waits for; the run goes on."""
    client = open_client(ctx)
    from heartbit.core.events import Decision

    decided = []
    for question, places in _by_question(client, _waiting(client, run_id, calls)):
        decisions = [Decision(position=p, verdict="deny", reason=reason) for _, p in places]
        _decide(client, question, decisions)
        decided += _told(question, decisions)
    _print(run_id, decided, as_json)


Waiting = list[tuple[int, "Approval", "ToolCall"]]


def _waiting(client: Client, run_id: str, shown: str | None) -> Waiting:
    """Every call that waits, numbered as `status` numbers them."""
    from heartbit.errors import RunStateError

    row = client.journal.run(run_id)
    found = [(each, call) for each in client.approvals(run_id) for call in each.calls]
    numbered = [(number, *each) for number, each in enumerate(found, 1)]
    if shown:
        numbered = [each for each in numbered if each[1].calls_hash.startswith(shown)]
    if not numbered:
        what = f"the calls {shown}" if shown else "a decision"
        raise RunStateError(f"Run {run_id} does not wait for {what}; it is {row.status}.")
    return numbered


def _chosen(waiting: Sequence[int], numbers: tuple[int, ...], every: bool) -> set[int]:
    if every and numbers:
        raise click.UsageError("--all and --call exclude each other.")
    if strange := sorted(set(numbers) - set(waiting)):
        known = ", ".join(map(str, waiting))
        raise click.UsageError(f"there is no call {strange[0]}; there are {known}.")
    if not every and not numbers and len(waiting) > 1:
        raise click.UsageError(
            f"{len(waiting)} calls wait: name some with --call N, or take --all; "
            "`heartbit status` shows them."
        )
    return set(numbers or waiting)


def _edited(edit: str | None, chosen: set[int]) -> Json | None:
    if edit is None:
        return None
    if len(chosen) != 1:
        raise click.UsageError("--edit is for one call; name it with --call N.")
    try:
        arguments = json.loads(edit)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"--edit is no JSON ({error}).") from error
    if not isinstance(arguments, dict):
        raise click.UsageError("--edit must be a JSON object: the arguments of the call.")
    return arguments


def _by_question(
    client: Client, waiting: Waiting
) -> list[tuple[PendingApproval, list[tuple[int, int]]]]:
    """Each question with the (number, position) of its calls."""
    numbers: dict[tuple[str, str], list[int]] = {}
    asked: dict[tuple[str, str], Approval] = {}
    for number, approval, _ in waiting:
        numbers.setdefault((approval.run_id, approval.step), []).append(number)
        asked[approval.run_id, approval.step] = approval
    questions = [(client.question(approval), numbers[key]) for key, approval in asked.items()]
    return [(q, list(zip(given, q.positions, strict=True))) for q, given in questions]


def _decision(position: int, approved: bool, edited: Json | None) -> Decision:
    from heartbit.core.events import Decision

    if not approved:
        return Decision(position=position, verdict="deny", reason="It was not approved.")
    if edited is not None:
        return Decision(position=position, verdict="edit", arguments=edited)
    return Decision(position=position, verdict="approve")


def _decide(client: Client, question: PendingApproval, decisions: Sequence[Decision]) -> None:
    from heartbit.errors import InvalidDecision

    try:
        client.decide(question, decisions, by=getpass.getuser())
    except InvalidDecision as error:
        raise click.UsageError(error.message) from error


def _told(question: PendingApproval, decisions: Sequence[Decision]) -> list[Json]:
    verdicts = {decision.position: decision for decision in decisions}
    return [
        {
            "run_id": question.run_id,
            "name": call.name,
            "arguments": verdicts[position].arguments or call.arguments,
            "verdict": verdicts[position].verdict,
        }
        for position, call in zip(question.positions, question.calls, strict=True)
    ]


def _print(run_id: str, decided: list[Json], as_json: bool) -> None:
    from heartbit.cli.words import one_line, pretty

    if as_json:
        print_json({"run_id": run_id, "decided": decided})
        return
    for each in decided:
        click.echo(
            f"{each['verdict']}: {one_line(each['name'])} {pretty(each['arguments'])}", err=True
        )
