"""What is remembered of the middle of a conversation before it is dropped."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heartbit.core.flushing import flushed
from heartbit.core.messages import ToolCall
from heartbit.core.run import replay
from heartbit.core.state import RunState
from heartbit.core.summary import Summary
from tests.support.journals import SOLO, call, replied, returned, spec, started

RECALL = replace(spec("memory_recall"), ref="memory:memory_recall")
AGENT = replace(SOLO, tools=(*SOLO.tools, RECALL))
LONG = "The parcel 4711 lies in the depot of Lyon since Monday."


def read(*turns: tuple[ToolCall, str, bool]) -> RunState:
    """A conversation with one call per turn: its result, and whether that is an error."""
    events = [started(AGENT)]
    for turn, (said, content, is_error) in enumerate(turns, 1):
        events.append(replied(turn, said))  # type: ignore[arg-type]
        events.append(returned(f"{turn}/tool/0", content, is_error=is_error))  # type: ignore[arg-type]
    return replay(events)[0]


def test_results_of_the_dropped_part_are_kept_in_their_order() -> None:
    """What stays in the conversation is not."""
    state = read(
        (call("look"), LONG, False),
        (call("look"), f"{LONG} Still.", False),
        (call("look"), f"{LONG} Now sent.", False),
    )
    assert (LONG, f"{LONG} Still.") == flushed(state, 5)
    assert (LONG,) == flushed(state, 3)


@pytest.mark.parametrize(
    ("said", "content", "is_error"),
    [
        (call("look"), LONG, True),
        (call("look"), "x" * 49, False),
        (call("memory_recall"), LONG, False),
    ],
    ids=["a failure", "a short one", "a memory"],
)
def test_some_results_are_not_worth_it(said: ToolCall, content: str, is_error: bool) -> None:
    """Nobody wants to be told of them again."""
    assert () == flushed(read((said, content, is_error)), 3)


def test_fifty_bytes_are_enough() -> None:
    """Bytes, as a result is measured everywhere."""
    assert ("é" * 25,) == flushed(read((call("look"), "é" * 25, False)), 3)


def test_the_same_result_twice_is_one_memory() -> None:
    """An agent that looks again and again learns nothing new."""
    state = read((call("look"), LONG, False), (call("look"), LONG, False))
    assert (LONG,) == flushed(state, 5)


def test_what_a_summary_covers_already_is_not_kept_again() -> None:
    """It was remembered with that one."""
    state = read((call("look"), LONG, False), (call("look"), f"{LONG} Still.", False))
    state = replace(state, summary=Summary(text="S.", upto=3))
    assert (f"{LONG} Still.",) == flushed(state, 5)


def test_secrets_are_taken_out_before_the_text_is_cut() -> None:
    """Half of a secret at the cut would not look like one."""
    secret = "sk-ant-api03-" + "a1b2" * 12
    state = read((call("look"), "x" * 480 + f" {secret}" + " y" * 400, False))
    [note] = flushed(state, 3)
    assert "sk-ant" not in note
    assert 503 == len(note)
    assert note.endswith("...")


def test_a_text_of_five_hundred_characters_is_kept_whole() -> None:
    """The dots say that something is missing."""
    [note] = flushed(read((call("look"), "z " * 250, False)), 3)
    assert "z " * 250 == note
