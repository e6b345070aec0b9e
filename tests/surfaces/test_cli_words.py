"""The parts of the command line that need no process: wording, answers, tallies, conversations."""

from __future__ import annotations

import asyncio
import io
import json
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbit.cli.approver import parse_answer, parse_arguments
from heartbit.cli.conversation import Exchange, with_earlier
from heartbit.cli.keyboard import Keyboard
from heartbit.cli.lines import progress_line
from heartbit.cli.sink import Sink
from heartbit.cli.tally import Tally
from heartbit.cli.words import call_text, one_line, pretty, printable, stats
from heartbit.core.agent import AgentDefinition
from heartbit.core.events import (
    ContextSummarised,
    Event,
    MemoriesConsolidated,
    ModelFailed,
    ModelReplied,
    RunFailed,
    RunStarted,
    ToolReturned,
)
from heartbit.core.messages import Completion, TextPart, ToolCall, Usage
from heartbit.core.result import RunOutput
from heartbit.core.stream import RunIdentity, event_entry, turn_restarted

CALL = ToolCall(id="1", name="search", arguments={"query": "rust"})
ROOT = RunIdentity(run_id="r", root_run_id="r", agent="boss")
CHILD = RunIdentity(run_id="c", root_run_id="r", agent="helper", parent_run_id="r")


@given(st.text())
def test_what_is_shown_controls_no_terminal(text: str) -> None:
    """Only line breaks and tabs are left of the control characters."""
    shown = printable(text)
    assert set() == {c for c in shown if unicodedata.category(c) in ("Cc", "Cs")} - {"\n", "\t"}
    assert set() == set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    assert "\n" not in one_line(text)


def test_what_is_harmless_is_shown_as_it_is() -> None:
    """Hard blanks, joined emoji and other scripts included."""
    text = "a\xa0b 👨‍👩‍👧 ÄÖ می‌خواهم\n\tend"
    assert text == printable(text)


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.text())))
def test_the_arguments_that_are_shown_for_approval_are_the_arguments(value: dict) -> None:
    """What is spelled out still reads as the same JSON."""
    assert value == json.loads(pretty(value))


def test_a_call_in_short_masks_what_looks_like_a_secret() -> None:
    """On every level; it may end up in a log."""
    shown = call_text("f", {"password": "p", "head": [{"Authorization": "b", "n": 1}]}, 100)
    assert 'f(password="***", head=[{"Authorization": "***", "n": 1}])' == shown
    assert "f(x=" + '"' + "y" * 54 + "...)" == call_text("f", {"x": "y" * 1000})


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("a", ("approve", "")),
        (" YES. ", ("approve", "")),
        ("d", ("deny", "")),
        ("deny: not now", ("deny", "not now")),
        ("no, thanks", ("deny", "thanks")),
        ("w", ("always", "")),
        ("n", ("deny", "")),
        ("v", ("never", "")),
        ("l", ("all", "")),
        ('e {"a": 1}', ("edit", '{"a": 1}')),
        ("a quick no", ("unclear", "")),
        ("always not", ("unclear", "")),
        ("", ("unclear", "")),
        ("1", ("unclear", "")),
        ("yesterday", ("unclear", "")),
    ],
)
def test_an_answer_means_one_thing_or_nothing(line: str, wanted: tuple[str, str]) -> None:
    """An approval with anything beside it is none."""
    assert wanted == parse_answer(line)


@given(st.text())
def test_no_text_approves_but_the_words_for_it(line: str) -> None:
    """Whatever is typed."""
    meaning, _ = parse_answer(line)
    if meaning == "approve":
        assert line.strip().strip(",:;.! \t").lower() in ("a", "y", "yes", "approve")


@pytest.mark.parametrize("text", ["", "{", "[1]", '"x"', "[" * 100_000])
def test_edited_arguments_must_be_a_json_object(text: str) -> None:
    """Anything else is asked for again."""
    with pytest.raises(ValueError, match=r"JSON"):
        parse_arguments(text)


def test_a_conversation_of_one_line_is_the_line() -> None:
    """Nothing is put around the first prompt."""
    assert "Hello" == with_earlier([], "Hello")


def test_a_conversation_tells_all_that_fits_and_how_much_does_not() -> None:
    """The oldest exchanges go first."""
    said = [Exchange(f"question {n}", "ä" * 100) for n in range(10)]
    prompt = with_earlier(said, "And now?", max_bytes=700)
    assert prompt.endswith("The user now says:\n\nAnd now?")
    assert "question 9" in prompt
    assert "question 6" not in prompt
    assert "(7 earlier exchanges are left out.)" in prompt


@given(st.lists(st.tuples(st.text(), st.text())), st.integers(0, 300))
def test_a_conversation_never_grows_beyond_its_bytes(
    said: list[tuple[str, str]], max_bytes: int
) -> None:
    """Apart from the words around it."""
    prompt = with_earlier([Exchange(*each) for each in said], "now", max_bytes)
    around = 200 + 2 * len(said)
    assert len(prompt.encode(errors="replace")) <= max_bytes + around


def reply(*parts: Any, cost_usd: float | None = None) -> ModelReplied:
    """The reply of the first turn."""
    usage = Usage(input_tokens=1000, output_tokens=5)
    completion = Completion(parts=parts, stop_reason="end_turn", usage=usage, cost_usd=cost_usd)
    return ModelReplied(step="1/model", completion=completion)


def told(*events: tuple[RunIdentity, Event]) -> Iterator[str | None]:
    """The lines of events as they come."""
    tally = Tally()
    for seq, (identity, event) in enumerate(events):
        entry = event_entry(identity, seq, event)
        yield progress_line(entry, tally.add(entry))


def started(agent: str) -> RunStarted:
    """The start of a run."""
    return RunStarted(prompt="Look\nfor it", definition=AgentDefinition(name=agent))


def test_a_line_says_who_does_what() -> None:
    """Starts and ends of sub-agents, turns, failures of tools."""
    lines = told(
        (ROOT, started("boss")),
        (CHILD, started("helper")),
        (CHILD, reply(CALL)),
        (CHILD, ToolReturned(step="1/tool/0", content="no\nnet", is_error=True)),
        (CHILD, ToolReturned(step="1/tool/1", content="fine")),
        (CHILD, ContextSummarised(step="2/summary", summary=None, upto=1, reason="cut")),
        (CHILD, MemoriesConsolidated(step="2/memories", ids=("m",), replaced=3)),
        (CHILD, MemoriesConsolidated(step="2/memories", reason="cut")),
        (CHILD, MemoriesConsolidated(step="2/memories")),
        (CHILD, RunFailed(code="x", message="It broke.")),
        (ROOT, RunFailed(code="x", message="All broke.")),
    )
    wanted = [
        None,
        "[helper] started: Look for it",
        '[helper] turn 1: search(query="rust")',
        "[helper] search failed: no net",
        None,
        "[helper] context could not be summarised: cut",
        "[helper] 3 memories became 1",
        "[helper] memories could not be consolidated: cut",
        None,
        "[helper] failed: It broke.",
        None,
    ]
    assert wanted == list(lines)


def test_a_turn_that_starts_again_is_said() -> None:
    """It is no event of the journal, but it is one for the person."""
    tally = Tally()
    entry = turn_restarted(ROOT, "3/model", 2, "the stream broke")
    assert "[boss] turn 3: its text starts again (the stream broke)" == progress_line(
        entry, tally.add(entry)
    )


def test_a_tally_adds_up_the_tree_and_forgets_a_cost_that_nobody_knows() -> None:
    """Usage of failed calls counts as well."""
    tally = Tally()
    failed = ModelFailed(step="2/model", error="X", message="x", usage=Usage(input_tokens=7))
    events: list[tuple[RunIdentity, Event]] = [
        (ROOT, reply(TextPart(text="hi"), cost_usd=0.5)),
        (CHILD, reply(CALL, cost_usd=0.25)),
        (CHILD, failed),
    ]
    for seq, (identity, event) in enumerate(events):
        tally.add(event_entry(identity, seq, event))
    root = tally.root
    assert root is not None
    assert (2007, 0.75) == (root.total_usage.input_tokens, root.total_cost)
    assert ["search"] == [call["name"] for call in root.children[0].open_calls.values()]
    tally.add(event_entry(CHILD, 9, reply(cost_usd=None)))
    assert root.total_cost is None


def test_the_sums_of_a_run_name_a_cost_only_when_it_is_known() -> None:
    """A run that used nothing cost nothing worth a word."""

    def line(cost_usd: float | None, used: int) -> str:
        return stats(
            RunOutput(
                run_id="r",
                status="succeeded",
                result="",
                structured=None,
                usage=Usage(input_tokens=used),
                tool_calls_made=1,
                turns=1200,
                cost_usd=cost_usd,
            )
        )

    assert "5 tokens in, 0 out | 1 tool call | 1,200 turns | $0.0123" == line(0.01234, 5)
    assert ["$" in line(None, 5), "$" in line(0.0, 0), "$" in line(0.0, 5)] == [False, False, True]


class Broken(io.StringIO):
    """A stream whose reader has left."""

    def flush(self) -> None:
        raise BrokenPipeError(32, "Broken pipe")


def test_a_write_that_fails_is_told_once_and_raises_nothing() -> None:
    """The caller stands in the middle of a run."""
    sink, calls = Sink(Broken()), []
    sink.on_failure = lambda: calls.append("told")
    sink.write("one")
    sink.line("two")
    assert (["told"], True) == (calls, sink.reader_left)


def test_a_sink_escapes_what_the_encoding_lacks() -> None:
    """Under another command line nobody has prepared the streams."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="latin-1")
    Sink(file).write("ä € \ud800\n")
    assert b"\xe4 \\u20ac \\ud800\n" == raw.getvalue()


def lines_of(keyboard: Keyboard) -> list[str]:
    """Everything that can be read."""

    async def read() -> list[str]:
        lines = []
        while (line := await keyboard.line()) is not None:
            lines.append(line)
        return lines

    return asyncio.run(read())


def test_lines_come_from_pipes_and_from_files_alike(tmp_path: Path) -> None:
    """The last one needs no end; what is not UTF-8 is replaced."""
    text = b"one\r\n\ntw\xffo\nthree"
    (tmp_path / "lines").write_bytes(text)
    wanted = ["one", "", "tw\ufffdo", "three"]
    with (tmp_path / "lines").open("rb") as file:
        assert wanted == lines_of(Keyboard(file.fileno()))
    reader, writer = os.pipe()
    os.write(writer, text)
    os.close(writer)
    assert wanted == lines_of(Keyboard(reader))
    os.close(reader)


def test_a_cancelled_read_loses_nothing_and_leaves_nothing() -> None:
    """The next read gets the line that came meanwhile."""
    reader, writer = os.pipe()
    keyboard = Keyboard(reader)

    async def scenario() -> str | None:
        waiting = asyncio.ensure_future(keyboard.line())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        os.write(writer, b"later\n")
        return await keyboard.line()

    assert "later" == asyncio.run(scenario())
    os.close(writer)
    os.close(reader)
