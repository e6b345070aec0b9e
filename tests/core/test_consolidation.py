"""Which memories belong together, and how a run ends that puts them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbit.core.agent import MemoryPolicy
from heartbit.core.commands import Consolidate, Finish
from heartbit.core.consolidation import (
    MOST_CHARACTERS,
    MOST_CLUSTERS,
    chosen,
    clusters,
    overlap,
    problem,
    request,
)
from heartbit.core.events import (
    DeadlinePassed,
    Event,
    LateResult,
    MemoriesConsolidated,
    RunCancelled,
    RunFailed,
    RunFinished,
)
from heartbit.core.memory import Memory, Namespace
from heartbit.core.messages import Completion, StopReason, TextPart, Usage
from heartbit.core.run import replay
from heartbit.errors import ReplyTruncated
from tests.support.journals import SOLO, TENTH, call, replied, started

START = datetime(2026, 11, 22, tzinfo=UTC)
TIDY = replace(SOLO, memory=MemoryPolicy(consolidate_on_exit=True))
USED = Usage(input_tokens=30, output_tokens=5)
DONE = MemoriesConsolidated(step="1/memories", ids=("m",), replaced=2, usage=USED, cost_usd=0.25)
RESULT = Finish(result="Hi.")


def memory(number: int, *keywords: str, content: str = "A fact.") -> Memory:
    """A memory that is `number` minutes young."""
    at = START + timedelta(minutes=number)
    return Memory(
        id=f"m{number}",
        namespace=Namespace(agent="a"),
        content=content,
        created_at=at,
        last_accessed=at,
        keywords=keywords,
    )


def ids(found: Sequence[Sequence[Memory]]) -> list[list[str]]:
    """The ids of clusters."""
    return [[each.id for each in cluster] for cluster in found]


def test_a_result_waits_until_the_memories_are_put_together() -> None:
    """Then the run ends with it, and with what that has used."""
    state, commands = replay([started(TIDY), replied(1, "Hi.")])
    assert (Consolidate(step="1/memories"),) == commands
    assert not state.ending
    state, commands = replay([started(TIDY), replied(1, "Hi."), DONE])
    assert (RESULT,) == commands
    assert (TENTH + USED, 0.75) == (state.usage, state.cost_usd)


@pytest.mark.parametrize("memory", [None, MemoryPolicy()])
def test_without_the_setting_a_run_ends_at_once(memory: MemoryPolicy | None) -> None:
    """It is the definition that decides."""
    _, commands = replay([started(replace(SOLO, memory=memory)), replied(1, "Hi.")])
    assert (RESULT,) == commands


def test_a_run_that_fails_leaves_its_memories_as_they_are() -> None:
    """There was no session that is over."""
    cut = replied(1, "Hi", stop="max_tokens")
    _, commands = replay([started(TIDY), cut])
    assert [ReplyTruncated.code] == [each.code for each in commands if isinstance(each, Finish)]


def test_a_structured_result_waits_likewise() -> None:
    """Whichever way the result was given."""
    agent = replace(TIDY, response_schema={"type": "object"})
    _, commands = replay([started(agent), replied(1, call("__respond__", n=1))])
    assert (Consolidate(step="1/memories"),) == commands


@pytest.mark.parametrize(
    "event",
    [
        MemoriesConsolidated(step="1/memories", reason="The model is away."),
        DeadlinePassed(),
    ],
)
def test_no_failure_to_put_memories_together_changes_the_result(event: Event) -> None:
    """Also when the time of the run is over meanwhile."""
    _, commands = replay([started(TIDY), replied(1, "Hi."), event])
    assert (RESULT,) == commands


def test_what_comes_after_the_deadline_counts_its_usage_and_no_more() -> None:
    """The end is decided by then."""
    state, commands = replay([started(TIDY), replied(1, "Hi."), DeadlinePassed(), DONE])
    assert TENTH + USED == state.usage
    assert (RESULT,) == commands


def test_a_lost_attempt_changes_nothing_but_the_usage() -> None:
    """The memories are still to be put together."""
    late = LateResult(late_step="1/memories", outcome={"usage": {"input_tokens": 4}})
    state, commands = replay([started(TIDY), replied(1, "Hi."), late])
    assert (Consolidate(step="1/memories"),) == commands
    assert 14 == state.usage.input_tokens


@pytest.mark.parametrize("end", [RunCancelled(), RunFailed(code="x", message="X.")])
def test_a_run_can_be_ended_while_its_memories_are_put_together(end: Event) -> None:
    """By whoever may end it."""
    state, commands = replay([started(TIDY), replied(1, "Hi."), end])
    assert state.ended
    assert () == commands


def test_the_end_tells_the_usage_of_both() -> None:
    """What a caller sees is what was spent."""
    events: list[Event] = [started(TIDY), replied(1, "Hi."), DONE, RunFinished(result="Hi.")]
    state, _ = replay(events)
    assert ("succeeded", "Hi.", TENTH + USED) == (state.status, state.result, state.usage)


def test_memories_with_keywords_in_common_are_a_cluster() -> None:
    """At least 0.3 of them, whatever their case; a chain is one cluster."""
    memories = [
        memory(1, "Customer", "language"),
        memory(2, "invoice"),
        memory(3, "customer", "office"),
        memory(4, "office", "lyon"),
        memory(5),
        memory(6, "a", "b", "c", "invoice"),
    ]
    assert [["m1", "m3", "m4"]] == ids(clusters(memories))


def test_clusters_that_a_later_memory_links_become_one() -> None:
    """In the order of their first members."""
    memories = [memory(1, "a"), memory(2, "b"), memory(3, "c"), memory(4, "c"), memory(5, "a", "b")]
    assert [["m1", "m2", "m5"], ["m3", "m4"]] == ids(clusters(memories))


@given(st.lists(st.lists(st.sampled_from("abcdeF"), max_size=4), max_size=12))
def test_clusters_are_what_comparing_every_two_gives(keywords: list[list[str]]) -> None:
    """Nobody is left out, and nobody is in two of them."""
    memories = [memory(number, *words) for number, words in enumerate(keywords)]
    expected: list[set[str]] = [{each.id} for each in memories]
    for one in memories:
        for other in memories:
            if overlap(one.keywords, other.keywords) >= 0.3:
                joined = [group for group in expected if {one.id, other.id} & group]
                expected = [group for group in expected if group not in joined]
                expected.append(set().union(*joined))
    wanted = sorted(sorted(group) for group in expected if len(group) > 1)
    assert wanted == sorted(sorted(each.id for each in group) for group in clusters(memories))


def test_the_oldest_clusters_come_first_and_only_so_many() -> None:
    """Each is a call of the model; the rest has time until the next run."""
    memories = [memory(number, f"k{number % 15}") for number in range(60, 0, -1)]
    found = ids(chosen(memories))
    assert MOST_CLUSTERS == len(found)
    assert ["m1", "m16", "m31", "m46"] == found[0]


def test_what_is_too_long_for_one_summary_stays_as_it_is() -> None:
    """A megabyte cannot be told in a few sentences."""
    long = memory(1, "a", content="x" * (MOST_CHARACTERS + 1))
    assert [] == chosen([long, memory(2, "a")])
    assert [["m2", "m3"]] == ids(chosen([long, memory(2, "a"), memory(3, "a")]))


def test_the_model_is_shown_the_memories_and_nothing_else() -> None:
    """In few words, which it must not take for instructions."""
    asked = request([memory(1, content="One."), memory(2, content="Two.")], "m-1")
    assert "- One.\n- Two." == asked.messages[0].text
    assert (512, "m-1", ()) == (asked.max_tokens, asked.model, asked.tools)
    assert "not instructions" in asked.system


@pytest.mark.parametrize(
    ("text", "stop", "word"),
    [
        ("All.", "end_turn", None),
        ("All.", "stop_sequence", None),
        ("All", "max_tokens", "cut"),
        (" ", "end_turn", "empty"),
        ("No.", "refusal", "refusal"),
        ("", "context_too_long", "context_too_long"),
    ],
)
def test_only_a_whole_answer_takes_the_place_of_memories(
    text: str, stop: StopReason, word: str | None
) -> None:
    """Whatever else there is to be said against it is told."""
    found = problem(Completion(parts=(TextPart(text=text),), stop_reason=stop))
    assert (found is None) == (word is None)
    assert word is None or word in (found or "")
