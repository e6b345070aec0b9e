"""What people see of a run in Flower and in events: whose turn it is, under one root."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from celery import chain
from celery.signals import task_prerun

from heartbit.engines.ports import Dispatch
from heartbit.outbox import CeleryOutbox, shown
from heartbit.tasks import run_agent
from tests.support.canvas import SECONDS, until


@pytest.fixture
def seen(fleet: Any) -> Iterator[list[tuple[str, str, str]]]:
    """(name, arguments as shown, root id) of every task that starts."""
    tasks: list[tuple[str, str, str]] = []

    def look(task: Any, **_: Any) -> None:
        tasks.append((task.name, str(task.request.argsrepr), task.request.root_id))

    task_prerun.connect(look, weak=False)
    yield tasks
    task_prerun.disconnect(look)


def test_turns_and_tool_calls_say_whose_they_are(
    fleet: Any, seen: list[tuple[str, str, str]]
) -> None:
    """All under the root of the caller's canvas."""
    made = chain(run_agent.s("use the tool", agent="worker"), fleet.host.text.s())()
    made.get(timeout=SECONDS)
    run_id = made.parent.id
    steps = [(n, a) for n, a, _ in seen if n in ("heartbit.llm_turn", "heartbit.tool_call")]
    assert [
        ("heartbit.llm_turn", f"(run={run_id} agent=worker turn=1)"),
        ("heartbit.tool_call", f"(run={run_id} agent=worker turn=1 tool=shout)"),
        ("heartbit.llm_turn", f"(run={run_id} agent=worker turn=2)"),
    ] == steps
    assert {run_id} == {root for _, _, root in seen}


def test_sub_agents_are_under_the_root_of_their_parent(
    fleet: Any, seen: list[tuple[str, str, str]]
) -> None:
    """Their starts, turns and ends, and the look at the parent."""
    result = run_agent.delay("delegate say one; say two")
    result.get(timeout=SECONDS)
    until(lambda: "heartbit.continue_run" in [name for name, _, _ in seen])
    assert {result.id} == {root for _, _, root in seen}
    starts = [args for name, args, _ in seen if name == "heartbit.run_agent"]
    assert 2 == sum(bool(re.fullmatch(rf"\(run=\S+ parent={result.id}\)", a)) for a in starts)


def test_what_is_sent_outside_any_task_has_the_root_of_its_run(
    fleet: Any, seen: list[tuple[str, str, str]]
) -> None:
    """A thread that sends lost steps again is no task of Celery's."""
    root = run_agent.delay("say hi", agent="worker")
    root.get(timeout=SECONDS)
    seen.clear()
    CeleryOutbox().steps(
        [Dispatch(run_id=root.id, step="1/model", queue="heartbit.llm", root_run_id="the-root")]
    )
    assert [("heartbit.llm_turn", f"(run={root.id} turn=1)", "the-root")] == until(lambda: seen)


def test_a_call_whose_tool_is_not_known_shows_its_step() -> None:
    """The journal's row of a step has no more than that."""
    dispatch = Dispatch(run_id="r", step="3/tool/1", queue="q", agent="a")
    assert "(run=r agent=a turn=3 tool=3/tool/1)" == shown(dispatch)
