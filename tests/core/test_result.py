"""What a run gives back: one shape, whoever asks."""

from __future__ import annotations

import json
from dataclasses import replace

from heartbit.core.events import ApprovalRequested
from heartbit.core.messages import Usage
from heartbit.core.result import RunOutput, including, pending_approval, run_output
from tests.support.journals import call, follow, replied, returned, started

DONE = RunOutput(
    run_id="r",
    status="succeeded",
    result="Done.",
    structured=None,
    usage=Usage(input_tokens=1),
    tool_calls_made=1,
    turns=1,
    cost_usd=0.5,
)


def test_the_json_of_an_output_has_the_promised_keys() -> None:
    """Scripts read it: `pending` is there only while something is."""
    keys = {"run_id", "status", "result", "structured", "usage", "tool_calls_made", "turns"}
    assert keys | {"cost_usd", "error", "error_code"} == DONE.as_json().keys()
    asked = ApprovalRequested(step="1/approval", calls=(call("look", x=1),), positions=(0,))
    waiting = replace(DONE, status="waiting", pending=(pending_approval("r", "solo", asked),))
    [question] = json.loads(json.dumps(waiting.as_json()))["pending"]
    assert ("r", "solo", "1/approval", [0], {"x": 1}) == (
        question["run_id"],
        question["agent"],
        question["step"],
        question["positions"],
        question["calls"][0]["arguments"],
    )


def test_an_output_tells_where_its_run_stands() -> None:
    """Also in the middle."""
    state, _ = follow([started(), replied(1, call("look")), returned("1/tool/0")])
    output = run_output("r", state, "running")
    assert ("running", None, 2, 1, 0.5, None) == (
        output.status,
        output.result,
        output.turns,
        output.tool_calls_made,
        output.cost_usd,
        output.error,
    )
    assert Usage(input_tokens=10, output_tokens=1) == output.usage


def test_a_run_that_used_nothing_has_no_cost() -> None:
    """Nobody has told a price: zero would be a claim."""
    state, _ = follow([started()])
    assert run_output("r", state, "failed").cost_usd is None


def test_what_unfinished_sub_runs_have_used_is_included() -> None:
    """A cost that is unknown anywhere is unknown as a whole."""
    both = including(DONE, [DONE, replace(DONE, tool_calls_made=5)])
    assert (Usage(input_tokens=3), 7, 1.5) == (both.usage, both.tool_calls_made, both.cost_usd)
    assert including(DONE, [replace(DONE, cost_usd=None)]).cost_usd is None
    assert DONE == including(DONE, [])
