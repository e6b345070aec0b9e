"""A fork on a real worker: the kept turns are not done again, the forked one is asked anew."""

from __future__ import annotations

import json
from typing import Any

import pytest

from heartbit.core.request import ModelRequest
from heartbit.tasks import run_agent
from tests.celery.test_client import client
from tests.support.canvas import SECONDS


def requests(fleet: Any) -> list[ModelRequest]:
    """Everything that the model of the worker was asked."""
    found: list[ModelRequest] = fleet.runtime._orchestrator.providers["default"].requests
    return found


def kinds(fleet: Any, run_id: str) -> list[tuple[str | None, str]]:
    """(step, type) of every event of a journal."""
    return [(event.step, event.type) for event in fleet.journal.events(run_id)]


def test_the_forked_turn_alone_is_asked_and_as_the_other_model(fleet: Any) -> None:
    """The tool's result is the kept one: its call is in the request, and was not made again."""
    first = run_agent.delay("use the tool", agent="worker").get(timeout=SECONDS)
    asked = len(requests(fleet))
    forked = client(fleet).fork(first["run_id"], 2, model="another-model")
    output = forked.result(timeout=SECONDS)
    assert (first["result"], 2, 1) == (output.result, output.turns, output.tool_calls_made)
    (request,) = requests(fleet)[asked:]
    assert "another-model" == request.model
    assert requests(fleet)[asked - 1].messages == request.messages
    assert kinds(fleet, first["run_id"]) == kinds(fleet, forked.id)


def test_finished_sub_runs_of_kept_turns_are_not_run_again(fleet: Any) -> None:
    """Their results and what they left on the blackboard come along."""
    first = run_agent.delay("delegate say one; say two").get(timeout=SECONDS)
    asked = len(requests(fleet))
    forked = client(fleet).fork(first["run_id"], 2)
    assert first["result"] == forked.result(timeout=SECONDS).result
    assert 1 == len(requests(fleet)) - asked
    assert [forked.id] == [row.run_id for row in fleet.journal.tree(forked.id)]
    boards = [fleet.journal.board_after(run, 0) for run in (first["run_id"], forked.id)]
    assert boards[0]
    assert [(e.key, e.value) for e in boards[0]] == [(e.key, e.value) for e in boards[1]]


def test_a_fork_that_delegates_has_sub_runs_of_its_own(fleet: Any) -> None:
    first = run_agent.delay("delegate say one; say two").get(timeout=SECONDS)
    forked = client(fleet).fork(first["run_id"], 1, prompt="delegate say three; say four")
    assert "three" in str(forked.result(timeout=SECONDS).result)
    before = {row.run_id for row in fleet.journal.tree(first["run_id"])}
    after = {row.run_id for row in fleet.journal.tree(forked.id)}
    assert (3, 3, set()) == (len(before), len(after), before & after)


@pytest.mark.parametrize("turn", [1, 2])
def test_a_fork_of_a_fork_is_a_run_like_any_other(fleet: Any, turn: int) -> None:
    first = run_agent.delay("use the tool", agent="worker").get(timeout=SECONDS)
    again = client(fleet).fork(first["run_id"], 2)
    again.result(timeout=SECONDS)
    newest = again.fork(turn)
    assert first["result"] == newest.result(timeout=SECONDS).result
    assert {"run_id": again.id, "turn": turn} == next(client(fleet).entries(newest.id))[
        "forked_from"
    ]


def test_what_a_fork_says_can_be_followed_from_its_start(fleet: Any) -> None:
    """The kept turns first, as they were."""
    first = run_agent.delay("delegate say one; say two").get(timeout=SECONDS)
    forked = client(fleet).fork(first["run_id"], 2)
    told = [each for each in forked.events() if "seq" in each]
    assert list(range(1, len(told) + 1)) == [each["seq"] for each in told]
    assert ("run_started", "run_finished") == (told[0]["type"], told[-1]["type"])
    json.dumps(told)
