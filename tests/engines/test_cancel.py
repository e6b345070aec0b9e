"""A cancelled tree ends as one: nothing is begun any more, and what was used is counted."""

from __future__ import annotations

import pytest

from heartbit.core.agent import AgentDefinition
from heartbit.core.commands import Command
from heartbit.core.events import Event, RunCancelled, SubRunFinished
from heartbit.core.messages import Usage
from heartbit.core.state import RunState
from heartbit.engines.leases import Held
from heartbit.errors import RunStopped
from tests.support.bench import RUN, SUBS, Bench
from tests.support.journals import call, delegating, replied

CHIEF = AgentDefinition(name="chief", system_prompt="Lead.", delegates=SUBS)
SEQUENTIAL = AgentDefinition(
    name="chief", system_prompt="Lead.", delegates=SUBS, dispatch_mode="sequential"
)


def say(state: RunState) -> Event:
    """The chief hands out two tasks, and each helper calls its tool."""
    if state.turn > 1:
        return replied(state.turn, "Done.")
    match state.definition.name:
        case "ada":
            return replied(1, call("look", "a"))
        case "bob":
            return replied(1, call("pay", "a"))
        case _:
            return replied(1, delegating(("ada", "look")), delegating(("bob", "pay")))


def cancelled(agent: AgentDefinition) -> Bench:
    """A tree that was cancelled when ada was at her tool; nobody has been told yet."""
    bench = Bench(say, agent)

    def cancel(held: Held, command: Command) -> None:
        if command.step == "1/tool/0":
            bench.journal.request_cancel(RUN)
            raise RunStopped

    bench.before = cancel
    bench.start()
    return bench


@pytest.mark.parametrize("agent", [CHIEF, SEQUENTIAL], ids=["parallel", "sequential"])
def test_a_cancelled_tree_counts_what_its_sub_runs_have_used(agent: AgentDefinition) -> None:
    """Its end comes after theirs; no turn was begun by them, and no further sub-run."""
    bench = cancelled(agent)
    assert "cancelled" == bench.until_it_ends()
    output = bench.engine.output(RUN)
    runs = bench.journal.tree(RUN)
    replies = [e for r in runs for e in bench.journal.events(r.run_id) if e.type == "model_replied"]
    assert sum((each.completion.usage for each in replies), Usage()) == output.usage
    assert 1 == output.turns
    assert {"cancelled"} == {run.status for run in runs}
    assert (2 if agent is SEQUENTIAL else 3) == len(runs)


def test_the_end_of_a_cancelled_run_is_the_last_of_its_tree() -> None:
    """Whichever run of it hears first."""
    bench = cancelled(CHIEF)
    bench.until_it_ends()
    *_, first, second, end = bench.journal.events(RUN)
    assert isinstance(first, SubRunFinished)
    assert isinstance(second, SubRunFinished)
    assert isinstance(end, RunCancelled)
    assert bench.engine.output(RUN).usage == end.usage


def test_a_root_that_hears_first_ends_its_sub_runs_before_itself() -> None:
    """One look at it is enough for the whole tree."""
    bench = Bench(say, CHIEF)
    bench.engine.resume(RUN)
    bench.deliver(bench.outbox.messages.pop(0))
    subs = [run.run_id for run in bench.journal.tree(RUN) if run.parent_run_id]
    for sub in subs:
        bench.engine.step(sub, "1/model")
    bench.journal.request_cancel(RUN)
    bench.engine.resume(RUN)
    assert ["cancelled"] * 3 == [run.status for run in bench.journal.tree(RUN)]
    used = replied(1, "x").completion.usage
    assert used + used + used == bench.engine.output(RUN).usage
