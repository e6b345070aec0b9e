"""What chaos makes of what it has seen, and of the tools it finds: no process is started here."""

from __future__ import annotations

import json
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heartbit.chaos.examples import example
from heartbit.chaos.harness import faults_at
from heartbit.chaos.record import UNKNOWN, Record
from heartbit.chaos.saboteur import Fault, RunFiles, Saboteur, Spot
from heartbit.chaos.script import choose
from heartbit.chaos.verdict import Checks, Seen, Strike, judge
from heartbit.core.commands import CallTool
from heartbit.core.events import ToolReturned
from heartbit.core.messages import ToolCall
from heartbit.core.schema import violations
from heartbit.core.tools import Effect, ToolSpec
from heartbit.engines.chaos import Boundary, Edge

KEY = ("run", "1/tool/0")


def tool(name: str, effect: Effect = "pure", schema: Any = None) -> ToolSpec:
    """A tool of any kind."""
    return ToolSpec(name=name, description="", input_schema=schema or {}, ref=name, effect=effect)


def record(effect: Effect = "pure", turns: int = 1, content: str = "seen") -> Record:
    """A run with one call, and `turns` answers to one request."""
    call = CallTool(
        step="1/tool/0",
        call=ToolCall(id="1", name="look", arguments={}),
        spec=tool("look", effect),
    )
    return Record(
        status="succeeded",
        result={"result": "done"},
        entries=Counter({("solo", "1/tool/0", "tool_returned", content): 1}),
        board=(("paid", 1),),
        turns=Counter({"request": turns}),
        calls={KEY: call},
        returned={KEY: ToolReturned(step="1/tool/0", content=content)},
    )


def begun(times: int) -> list[dict[str, str]]:
    """The notes of the tool's calls."""
    return [{"run_id": KEY[0], "step": KEY[1], "effect": "pure", "tool": "look"}] * times


def wrong(checks: Checks) -> list[str]:
    """The promises that were broken."""
    return [name for name, found in checks.items() if found]


def test_a_run_that_went_as_the_undisturbed_one_has_kept_every_promise() -> None:
    """A pure call may have been begun twice, and a turn that was lost is asked for again."""
    struck = Strike(turns=Counter(), asked=1)
    seen = Seen(record=record(), requests=["request"] * 2, calls=begun(2), strike=struck)
    assert [] == wrong(judge(seen, record()))


@pytest.mark.parametrize(
    ("promise", "seen"),
    [
        ("result", Seen(record=replace(record(), status="failed"), requests=[], calls=begun(1))),
        ("result", Seen(record=replace(record(), result={}), requests=[], calls=begun(1))),
        ("journal", Seen(record=record(content="other"), requests=[], calls=begun(1))),
        ("journal", Seen(record=replace(record(), board=()), requests=[], calls=begun(1))),
        ("journal", Seen(record=replace(record(), memories=("m",)), requests=[], calls=begun(1))),
        ("tools", Seen(record=record("at_most_once"), requests=[], calls=begun(2))),
        ("tools", Seen(record=record(), requests=[], calls=[])),
        (
            "turns",
            Seen(
                record=record(),
                requests=["request"] * 2,
                calls=begun(1),
                strike=Strike(turns=Counter({"request": 1}), asked=1),
            ),
        ),
        ("late", Seen(record=record(), requests=[], calls=begun(1), late=["after"])),
    ],
)
def test_a_broken_promise_is_found(promise: str, seen: Seen) -> None:
    assert [promise] == wrong(judge(seen, record()))


def test_a_call_may_end_as_unknown_in_a_disturbed_run_only() -> None:
    """In an undisturbed one there is nothing that could be unknown."""
    unknown = Seen(record=record(content=UNKNOWN), requests=[], calls=begun(1))
    assert [] == wrong(judge(unknown, record()))
    known = Seen(record=record(), requests=[], calls=begun(1))
    assert ["journal"] == wrong(judge(known, record(content=UNKNOWN)))


def spot(what: str, edge: str = "before") -> Spot:
    """A spot of the root's worker."""
    return Spot(role="worker", place="solo", what=what, edge=edge)


def test_a_process_is_killed_everywhere_and_frozen_where_it_holds_something() -> None:
    """A step, a lock: what somebody else takes over meanwhile."""
    spots = [spot("claim 1/model", "after"), spot("append 1/model"), spot("send llm_turn 1/model")]
    kinds = [(fault.kind, fault.spot.what) for fault in faults_at(spots)]
    assert [
        ("kill", "claim 1/model"),
        ("freeze", "claim 1/model"),
        ("kill", "append 1/model"),
        ("freeze", "append 1/model"),
        ("kill", "send llm_turn 1/model"),
    ] == kinds


def boundary(what: str, edge: Edge = "before") -> Boundary:
    """What the journal tells."""
    return Boundary(root_run_id="run", place="solo", what=what, edge=edge)


def test_one_process_is_struck_once_at_the_spot_that_is_meant(tmp_path: Path) -> None:
    """The next one that comes there passes, and so does the same spot of a caller."""
    struck: list[int] = []
    files = RunFiles(tmp_path, "run")
    files.arm(Fault(kind="kill", spot=spot("append 1/model")))
    worker, caller = (
        Saboteur(tmp_path, role, strike=lambda _, number: struck.append(number))
        for role in ("worker", "caller")
    )
    caller(boundary("append 1/model"))
    worker(boundary("append 1/model", "after"))
    assert [] == struck
    worker(boundary("append 1/model"))
    worker(boundary("append 1/model"))
    assert [signal.SIGKILL] == struck
    assert 4 == len(files.spots())


def test_whoever_takes_over_waits_for_what_the_frozen_one_brings(tmp_path: Path) -> None:
    """So that it comes while another attempt holds the step, which is what must keep it out."""
    files = RunFiles(tmp_path, "run")
    files.arm(Fault(kind="freeze", spot=spot("append 1/model")))
    frozen = Saboteur(tmp_path, "worker", strike=lambda *_: None)
    frozen(boundary("append 1/model"))

    def wake(_: float) -> None:
        frozen(boundary("append 1/model", "refused"))

    Saboteur(tmp_path, "worker", sleep=wake)(boundary("append 1/model"))
    assert files.taken.exists()
    assert "refused\n" == files.late.read_text()


@pytest.mark.parametrize(
    "schema",
    [
        {
            "type": "object",
            "properties": {"a": {"type": "integer", "minimum": 5}},
            "required": ["a"],
        },
        {"properties": {"a": {"enum": ["x", "y"]}, "b": {}}, "required": ["a"]},
        {
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/day"}},
            "required": ["a"],
            "$defs": {"day": {"type": "array", "items": {"type": "number"}, "minItems": 2}},
        },
        {
            "type": "object",
            "properties": {
                "a": {"anyOf": [{"type": "null"}, {"type": "string"}]},
                "b": {"type": "string", "minLength": 20},
                "c": {"type": "string", "maxLength": 2},
                "d": {"type": "number", "exclusiveMinimum": 2},
                "e": {"type": "boolean"},
                "f": {"allOf": [{"type": "object", "required": ["g"]}]},
            },
            "required": ["a", "b", "c", "d", "e", "f"],
        },
    ],
    ids=json.dumps,
)
def test_arguments_that_are_made_up_fit_their_schema(schema: Any) -> None:
    assert () == violations(tool("any", schema=schema), example(schema))


def test_an_agent_calls_a_tool_of_each_effect_before_two_of_one() -> None:
    """The more harm a second call does, the sooner."""
    tools = [tool("a"), tool("b"), tool("c", "idempotent"), tool("d", "at_most_once")]
    assert ["d", "c", "a"] == [each.name for each in choose(tools)]
