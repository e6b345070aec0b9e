"""Summaries: when one is worth its call, what it is made from, and how it is sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbit.core.agent import AgentDefinition, ContextStrategy, SessionPrune
from heartbit.core.context import estimate
from heartbit.core.messages import (
    Message,
    TextPart,
    ThinkingPart,
    ToolCall,
    user_message,
)
from heartbit.core.output import byte_length
from heartbit.core.summary import (
    Summary,
    needs_summary,
    summary_cut,
    summary_request,
    with_summary,
)
from heartbit.core.transcript import transcript
from tests.support.conversations import (
    assistant,
    calls,
    conversations,
    pairs_are_whole,
    results,
    tool_turns,
)


def agent(threshold: int | None, session_prune: SessionPrune | None = None) -> AgentDefinition:
    strategy = ContextStrategy(type="summarize", threshold=threshold)
    if threshold is None:
        strategy = ContextStrategy()
    return AgentDefinition(
        name="a", system_prompt="You look.", context_strategy=strategy, session_prune=session_prune
    )


# Where to cut


def test_the_tail_is_the_last_four_messages() -> None:
    assert summary_cut(tool_turns(4)) == 5


def test_five_messages_are_not_worth_a_summary() -> None:
    assert summary_cut(tool_turns(2)) == 0
    assert summary_cut(tool_turns(2), keep=2) == 0
    assert summary_cut(tool_turns(3)) == 3


def test_the_tail_moves_back_to_an_assistant_message() -> None:
    messages = (*tool_turns(3), user_message("more"), user_message("and more"))
    assert summary_cut(messages) == 5
    assert summary_cut(messages, keep=3) == 5


def test_a_conversation_without_a_middle_is_not_summarised() -> None:
    assert summary_cut(tuple(user_message("x") for _ in range(9))) == 0
    assert summary_cut(tool_turns(3), keep=6) == 0
    assert summary_cut(tool_turns(3), keep=99) == 0


@given(conversations(), st.integers(1, 8))
def test_a_cut_keeps_calls_with_their_results(messages: tuple[Message, ...], keep: int) -> None:
    cut = summary_cut(messages, keep)
    if not cut:
        return
    assert cut > 1
    assert len(messages) - cut >= keep
    assert cut == len(messages) or messages[cut].role == "assistant"
    sent = with_summary(messages, Summary(text="s", upto=cut))
    assert pairs_are_whole(sent)
    assert sent[1:] == messages[cut:]


# When


def test_a_summary_is_needed_once_the_request_passes_the_threshold() -> None:
    messages = tool_turns(4)
    tokens = estimate("You look.", (), messages)
    assert not needs_summary(agent(tokens), (), messages, None)
    assert needs_summary(agent(tokens - 1), (), messages, None)


def test_without_the_strategy_nothing_is_summarised() -> None:
    assert not needs_summary(agent(None), (), tool_turns(50), None)


def test_a_short_conversation_is_not_summarised_however_large_it_is() -> None:
    assert not needs_summary(agent(1), (), tool_turns(2, content="x" * 9_000), None)


def test_after_a_summary_only_what_is_still_sent_counts() -> None:
    messages = tool_turns(20, content="x" * 400)
    summary = Summary(text="short", upto=summary_cut(messages[:-4]))
    sent = estimate("You look.", (), with_summary(messages, summary))
    assert not needs_summary(agent(sent), (), messages, summary)
    assert needs_summary(agent(sent - 1), (), messages, summary)
    assert needs_summary(agent(sent), (), messages, None)


def test_a_summary_is_not_made_again_of_the_same_messages() -> None:
    messages = tool_turns(4)
    summary = Summary(text="x" * 9_000, upto=summary_cut(messages))
    assert not needs_summary(agent(1), (), messages, summary)


def test_pruned_results_count_as_they_are_sent() -> None:
    messages = tool_turns(20, content="x" * 4_000)
    assert needs_summary(agent(5_000), (), messages, None)
    assert not needs_summary(agent(5_000, SessionPrune()), (), messages, None)


# How it is sent


def test_the_summary_stands_below_the_task_and_replaces_what_it_covers() -> None:
    messages = tool_turns(5)
    sent = with_summary(messages, Summary(text="It was seen.", upto=7))
    expected = user_message("task\n\n[Previous conversation summary]\nIt was seen.")
    assert (expected, *messages[7:]) == sent


def test_a_later_summary_takes_the_place_of_the_earlier_one() -> None:
    messages = tool_turns(9)
    with_summary(messages, Summary(text="first", upto=7))
    sent = with_summary(messages, Summary(text="second", upto=11))
    assert sent[0].text == "task\n\n[Previous conversation summary]\nsecond"


def test_the_first_message_is_the_same_object_in_every_request_with_the_summary() -> None:
    messages = tool_turns(9)
    first = with_summary(messages[:-2], Summary(text="s", upto=7))
    assert first[0] is with_summary(messages, Summary(text="s", upto=7))[0]


# What it is made from


def request_text(
    messages: tuple[Message, ...], previous: Summary | None, upto: int, threshold: int | None = None
) -> str:
    request = summary_request(agent(threshold), messages, previous, upto)
    return request.messages[0].text


def test_a_summary_request_is_one_transcript_without_tools() -> None:
    request = summary_request(agent(1_000), tool_turns(3), None, 3)
    assert (request.max_tokens, request.tools, len(request.messages)) == (1024, (), 1)
    assert "summar" in request.system
    assert request.messages[0].text == (
        "User: task\nAssistant: [Tool call: look({})]\nUser: [Tool result: seen]"
    )


def test_a_second_summary_reads_the_first_one_and_only_what_came_since() -> None:
    messages = (*tool_turns(2), assistant("half way"), user_message("go on"), *tool_turns(2)[1:])
    text = request_text(messages, Summary(text="All well.", upto=5), 7)
    assert text == (
        "[Previous conversation summary]\nAll well.\n\nAssistant: half way\nUser: go on"
    )


def test_thinking_is_never_in_a_transcript() -> None:
    thinking = ThinkingPart(provider="p", data={"thinking": "secret thought"})
    only = Message(role="assistant", parts=(thinking,))
    both = Message(role="assistant", parts=(thinking, TextPart(text="said")))
    assert transcript((only, both), 1_000) == "Assistant: said"


def test_the_parts_of_a_message_share_a_line() -> None:
    call = ToolCall(id="c", name="book", arguments={"day": "é", "n": 1})
    broken = ToolCall(id="d", name="book", arguments={}, malformed='{"day": ')
    message = Message(role="assistant", parts=(TextPart(text="Now"), call, broken))
    assert transcript((message,), 1_000) == (
        'Assistant: Now [Tool call: book({"day":"é","n":1})] [Tool call: book({"day": )]'
    )


def test_a_transcript_that_fits_is_not_cut() -> None:
    assert "x" * 50_000 in request_text(tool_turns(1, content="x" * 50_000), None, 3)


def test_long_results_are_cut_when_the_transcript_would_be_too_long() -> None:
    messages = (user_message("task"), calls("c"), results("c", content="x" * 900_000))
    text = request_text(messages, None, 3)
    assert text.startswith("User: task\n")
    assert text.endswith(" bytes omitted]")
    assert byte_length(text) < 5_000


def test_a_transcript_of_many_messages_keeps_the_task_and_the_newest() -> None:
    messages = tool_turns(3_000, content="x" * 300)
    text = request_text(messages, None, len(messages))
    assert text.startswith("User: task\n[")
    assert text.endswith(f"User: [Tool result: {'x' * 300}]")
    assert 90_000 < byte_length(text) < 101_000
    omitted = int(text.split("\n")[1].strip("[]").split()[0])
    assert len(messages) == omitted + len(text.split("\n")) - 1


@pytest.mark.parametrize(("threshold", "limit"), [(5_000, 20_000), (10, 10_000)])
def test_a_transcript_is_no_longer_than_the_threshold_suggests(threshold: int, limit: int) -> None:
    messages = tool_turns(3_000, content="x" * 300)
    text = request_text(messages, None, len(messages), threshold)
    assert limit * 0.9 < byte_length(text) < limit + 100


@given(conversations(), st.integers(1_000, 5_000))
def test_a_transcript_stays_within_its_bound(messages: tuple[Message, ...], limit: int) -> None:
    assert byte_length(transcript(messages, limit)) <= limit + 40
