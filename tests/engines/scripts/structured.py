"""Structured answers: validated always, asked for again, and forced when they are due."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from heartbit.core.agent import AgentDefinition
from heartbit.core.events import RunFinished, ToolReturned
from tests.support.model_server import Call, Reply
from tests.support.parity import ADD, Asked, Outcome, Script, both, calls, failed_with

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "why": {"type": "string"}},
    "required": ["n", "why"],
}
AGENT = AgentDefinition(name="solo", tools=(ADD.spec,), response_schema=SCHEMA)
ANSWER = {"n": 7, "why": "é"}
RESPOND = calls(("__respond__", ANSWER))
FORCED = {"type": "tool", "name": "__respond__"}


def _script(*replies: Reply) -> Any:
    """Replies by turn."""
    return lambda asked: replies[asked.turn - 1]


def _answered(turns: int) -> Any:
    def expect(got: Outcome) -> None:
        assert ("succeeded", ANSWER, turns) == (
            got.output.status,
            got.output.structured,
            got.output.turns,
        )
        assert '{\n  "n": 7,\n  "why": "é"\n}' == got.output.result
        [finished] = got.events(RunFinished)
        assert ANSWER == finished.structured

    return expect


def _offered(got: Outcome) -> None:
    assert ["add", "__respond__"] == got.asked[0].tools
    assert SCHEMA == got.asked[0].body["tools"][1]["input_schema"]


def _choices(*expected: dict[str, str] | None) -> Any:
    def expect(got: Outcome) -> None:
        assert list(expected) == [asked.body.get("tool_choice") for asked in got.asked]

    return expect


def _told_what_is_wrong(got: Outcome) -> None:
    [result] = got.asked[1].results
    assert result["is_error"]
    for words in ("does not fit its schema", "$.n", "'why' is a required property"):
        assert words in result["content"]


def _ids_answered(asked: Asked) -> bool:
    called, answered = asked.body["messages"][-2:]
    made = [block["id"] for block in called["content"] if block["type"] == "tool_use"]
    return made == [block["tool_use_id"] for block in answered["content"]]


def _siblings_refused(got: Outcome) -> None:
    contents = [event.content for event in got.events(ToolReturned)]
    assert ["must come alone", "does not fit", "must come alone", "must come alone"] == [
        next(w for w in ("must come alone", "does not fit", "33") if w in text) for text in contents
    ]
    assert all(result["is_error"] for result in got.asked[1].results)
    assert _ids_answered(got.asked[1])


def _siblings_ignored(got: Outcome) -> None:
    assert [] == got.events(ToolReturned)
    assert 2 == got.output.tool_calls_made


def _nudged(got: Outcome) -> None:
    assert "must be given by calling the tool __respond__" in got.asked[1].last


def _told_it_is_broken(got: Outcome) -> None:
    [result] = got.asked[1].results
    assert "no valid JSON object" in result["content"]


WRONG = calls(("__respond__", {"n": "seven"}))
CROWD = calls(
    ("add", {"a": 11, "b": 22}),
    ("__respond__", {"n": "seven"}),
    ("add", {"a": 1, "b": 32}),
    ("__respond__", ANSWER),
)
LOOK_UP = calls(("add", {"a": 3, "b": 4}))

SCRIPTS = [
    Script(
        name="a valid structured answer ends the run with its value and its JSON",
        agent=AGENT,
        answer=_script(RESPOND),
        expect=both(_answered(1), _offered, _choices(None)),
        tools=[ADD],
    ),
    Script(
        name="an invalid structured answer is told every violation and corrected",
        agent=AGENT,
        answer=_script(WRONG, RESPOND),
        expect=both(_answered(2), _told_what_is_wrong, _choices(None, FORCED)),
        tools=[ADD],
    ),
    Script(
        name="a structured answer whose JSON is broken is asked for again",
        agent=AGENT,
        answer=_script(Reply(calls=(Call(name="__respond__", arguments='{"n": 7, '),)), RESPOND),
        expect=both(_answered(2), _told_it_is_broken),
        tools=[ADD],
    ),
    Script(
        name="calls beside an invalid structured answer are answered and not executed",
        agent=AGENT,
        answer=_script(CROWD, RESPOND),
        expect=both(_answered(2), _siblings_refused),
        tools=[ADD],
    ),
    Script(
        name="calls beside a valid structured answer are not executed",
        agent=AGENT,
        answer=_script(calls(("add", {"a": 11, "b": 22}), ("__respond__", ANSWER))),
        expect=both(_answered(1), _siblings_ignored),
        tools=[ADD],
    ),
    Script(
        name="a text in place of a structured answer is asked to be one",
        agent=AGENT,
        answer=_script(Reply(text="It is 7."), RESPOND),
        expect=both(_answered(2), _nudged, _choices(None, FORCED)),
        tools=[ADD],
    ),
    Script(
        name="the structured answer is forced in the last turn",
        agent=replace(AGENT, max_turns=2),
        answer=_script(LOOK_UP, RESPOND),
        expect=both(_answered(2), _choices(None, FORCED)),
        tools=[ADD],
    ),
    Script(
        name="the structured answer is forced where there is no other tool",
        agent=replace(AGENT, tools=()),
        answer=_script(RESPOND),
        expect=both(_answered(1), _choices(FORCED)),
    ),
    Script(
        name="other tools are used before the structured answer is given",
        agent=AGENT,
        answer=_script(LOOK_UP, LOOK_UP, RESPOND),
        expect=both(
            _answered(3),
            _choices(None, None, None),
            lambda got: _equal(["7", "7"], [e.content for e in got.events(ToolReturned)]),
        ),
        tools=[ADD],
    ),
    Script(
        name="a run without a structured answer fails",
        agent=replace(AGENT, max_turns=3),
        answer=lambda asked: Reply(text="It is 7."),
        expect=both(failed_with("no_structured_result"), _choices(None, FORCED, FORCED)),
        tools=[ADD],
    ),
]


def _equal(expected: object, got: object) -> None:
    assert expected == got
