"""What is sent of a conversation: estimates, the window, pruning, and the order they work in."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbit.core.agent import AgentDefinition, ContextStrategy, SessionPrune
from heartbit.core.context import (
    estimate,
    estimate_message,
    estimate_text,
    estimate_tools,
    fit,
    prune,
    sliding_window,
)
from heartbit.core.messages import (
    Message,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResult,
    user_message,
)
from heartbit.core.output import byte_length
from heartbit.core.summary import Summary
from heartbit.core.tools import ToolSpec
from tests.support.conversations import (
    any_text,
    assistant,
    calls,
    conversations,
    pairs_are_whole,
    results,
    tool_turns,
)

LOOK = ToolSpec(name="look", description="Looks.", input_schema={"type": "object"}, ref="x:y")


def contents(message: Message) -> list[str]:
    return [part.content for part in message.parts if isinstance(part, ToolResult)]


# Estimates


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("ééé", 2), ("\ud800", 1)]
)
def test_a_token_is_four_bytes_rounded_up(text: str, tokens: int) -> None:
    assert estimate_text(text) == tokens


def test_a_message_counts_every_part_and_four_for_itself() -> None:
    parts = (
        TextPart(text="abcde"),
        ToolCall(id="c1", name="look", arguments={"a": 1}),
        ThinkingPart(provider="p", data={"t": "x"}),
    )
    assert estimate_message(Message(role="assistant", parts=parts)) == 4 + 2 + (1 + 1 + 2) + 3
    assert estimate_message(results("c1", content="abcdefgh")) == 4 + 1 + 2


def test_a_request_counts_the_system_prompt_and_the_tool_schemas() -> None:
    assert estimate_tools((LOOK,)) == 1 + 2 + estimate_text('{"type":"object"}')
    messages = (user_message("abcd"),)
    assert estimate("abcd", (LOOK,), messages) == 1 + estimate_tools((LOOK,)) + 5


def test_a_message_and_a_tool_are_estimated_once_and_not_once_per_turn() -> None:
    arguments: dict[str, object] = {"a": 1}
    message = calls("c", arguments=arguments)
    tool = ToolSpec(name="t", description="", input_schema=arguments, ref="x:y")
    before = (estimate_message(message), estimate_tools((tool,)))
    arguments["b"] = "much more than before"  # would show if it were looked at again
    assert before == (estimate_message(message), estimate_tools((tool,)))


# Sliding window


def test_a_conversation_that_fits_is_sent_whole() -> None:
    messages = tool_turns(3)
    assert sliding_window(messages, 1_000, 0) is messages


def test_the_window_keeps_the_task_and_the_newest_pairs() -> None:
    messages = tool_turns(3)
    tokens = estimate("", (), (messages[0], *messages[3:]))
    assert sliding_window(messages, tokens, 0) == (messages[0], *messages[3:])
    assert sliding_window(messages, tokens - 1, 0) == (messages[0], *messages[5:])


def test_system_prompt_and_tool_schemas_take_their_room_from_the_window() -> None:
    messages = tool_turns(3)
    tokens = estimate("", (), messages)
    assert sliding_window(messages, tokens, 0) == messages
    assert sliding_window(messages, tokens, 1) == (messages[0], *messages[3:])


def test_the_window_leaves_no_gap_for_a_message_that_would_still_fit() -> None:
    task, large, newest = user_message("task"), assistant("x" * 400), user_message("go on")
    messages = (task, assistant("small"), large, newest)
    assert sliding_window(messages, 40, 0) == (task, newest)


def test_what_the_model_has_just_asked_for_is_sent_even_if_it_is_too_long() -> None:
    messages = tool_turns(2, content="x" * 4_000)
    assert sliding_window(messages, 100, 0) == (messages[0], *messages[-2:])


@given(conversations(), st.integers(0, 400), st.integers(0, 60))
def test_the_window_is_the_task_and_the_longest_whole_tail_within_its_budget(
    messages: tuple[Message, ...], max_tokens: int, overhead: int
) -> None:
    sent = sliding_window(messages, max_tokens, overhead)
    tail = sent[1:]
    assert sent[0] is messages[0]
    assert tail == messages[len(messages) - len(tail) :]
    assert pairs_are_whole(sent)
    used = overhead + estimate("", (), sent)
    newest = messages[-2:] if contents(messages[-1]) else messages[-1:]
    assert used <= max_tokens or len(messages) == 1 or tail == newest
    dropped = messages[1 : len(messages) - len(tail)]
    if dropped:
        unit = dropped[-2:] if contents(dropped[-1]) else dropped[-1:]
        assert used + estimate("", (), unit) > max_tokens
    assert sliding_window(sent, max_tokens, overhead) == sent


# Pruning


def test_old_tool_results_are_cut_to_the_limit_and_say_exactly_how_much_is_gone() -> None:
    messages = tool_turns(4, content="x" * 1_000)
    pruned = prune(messages, SessionPrune(keep_recent_n=1, pruned_tool_result_max_bytes=100))
    assert contents(pruned[2]) == ["x" * 71 + "\n[pruned: 929 bytes omitted]"]
    assert contents(pruned[4]) == contents(pruned[2])
    assert pruned[-2:] == messages[-2:]


def test_only_tool_results_are_cut() -> None:
    long = "x" * 5_000
    messages = (user_message(long), assistant(long), user_message(long), *tool_turns(2)[1:])
    assert prune(messages, SessionPrune(preserve_task=False, keep_recent_n=0)) == messages


@pytest.mark.parametrize("preserve", [True, False])
def test_the_first_message_is_cut_only_if_the_task_is_not_preserved(preserve: bool) -> None:
    messages = (results("c", content="x" * 1_000), assistant("ok"))
    settings = SessionPrune(keep_recent_n=0, preserve_task=preserve)
    assert (prune(messages, settings)[0] is messages[0]) is preserve


def test_a_pruned_message_is_the_same_object_in_every_later_request() -> None:
    messages = tool_turns(9, content="x" * 1_000)
    settings = SessionPrune()
    first, later = prune(messages[:-2], settings), prune(messages, settings)
    unchanged = len(first) - 2 * settings.keep_recent_n
    assert unchanged > 9
    assert all(old is new for old, new in zip(first[:unchanged], later, strict=False))


def test_a_result_that_is_short_enough_keeps_its_message() -> None:
    messages = tool_turns(5)
    pruned = prune(messages, SessionPrune())
    assert all(sent is stored for sent, stored in zip(pruned, messages, strict=True))


@pytest.mark.parametrize("limit", [1, 10, 27])
def test_a_marker_never_makes_a_result_longer(limit: int) -> None:
    settings = SessionPrune(keep_recent_n=0, pruned_tool_result_max_bytes=limit)
    messages = tool_turns(1, content="x" * 30)
    assert prune(messages, settings) == messages
    cut = contents(prune(tool_turns(1, content="x" * 300), settings)[2])[0]
    assert byte_length(cut) <= 48


@given(conversations(), st.integers(0, 3), st.integers(1, 300), st.booleans())
def test_pruning_shortens_old_results_and_changes_nothing_else(
    messages: tuple[Message, ...], keep: int, limit: int, preserve: bool
) -> None:
    settings = SessionPrune(
        keep_recent_n=keep, pruned_tool_result_max_bytes=limit, preserve_task=preserve
    )
    pruned = prune(messages, settings)
    assert pairs_are_whole(pruned)
    assert len(messages) == len(pruned)
    assert messages[len(messages) - 2 * keep :] == pruned[len(messages) - 2 * keep :] or not keep
    for before, after in zip(messages, pruned, strict=True):
        for old, new in zip(contents(before), contents(after), strict=True):
            check_pruned(old, new, limit)
    assert prune(pruned, settings) == pruned


def check_pruned(old: str, new: str, limit: int) -> None:
    if new == old:
        return
    marker = re.search(r"\n\[pruned: (\d+) bytes omitted\]\Z", new)
    assert marker is not None
    head = new[: marker.start()]
    assert old.startswith(head)
    assert int(marker[1]) == byte_length(old) - byte_length(head)
    assert byte_length(new) <= max(limit, 48) < byte_length(old)


# All together


def agent(strategy: ContextStrategy, session_prune: SessionPrune | None = None) -> AgentDefinition:
    return AgentDefinition(
        name="a",
        system_prompt="You look.",
        context_strategy=strategy,
        session_prune=session_prune,
    )


def test_without_settings_everything_is_sent() -> None:
    messages = tool_turns(30)
    assert fit(agent(ContextStrategy()), (LOOK,), messages, None) is messages


def test_the_window_of_an_agent_counts_its_prompt_and_tools() -> None:
    messages = tool_turns(3)
    tokens = estimate("You look.", (LOOK,), messages)
    window = ContextStrategy(type="sliding_window", max_tokens=tokens)
    assert fit(agent(window), (LOOK,), messages, None) == messages
    smaller = ContextStrategy(type="sliding_window", max_tokens=tokens - 1)
    assert fit(agent(smaller), (LOOK,), messages, None) == (messages[0], *messages[3:])


def test_results_are_pruned_before_the_window_is_measured() -> None:
    messages = tool_turns(10, content="x" * 4_000)
    window = ContextStrategy(type="sliding_window", max_tokens=4_000)
    sent = fit(agent(window, SessionPrune(keep_recent_n=1)), (), messages, None)
    assert len(messages) == len(sent)
    assert len(fit(agent(window), (), messages, None)) < len(messages)


def test_a_summary_comes_before_the_window_and_stays_in_the_first_message() -> None:
    messages = tool_turns(6)
    summary = Summary(text="It was seen.", upto=9)
    window = ContextStrategy(type="sliding_window", max_tokens=40)
    sent = fit(agent(window), (), messages, summary)
    assert sent[0].text == "task\n\n[Previous conversation summary]\nIt was seen."
    assert sent[1:] == messages[-2:]


@given(conversations(), st.integers(0, 300), any_text)
def test_fitting_never_touches_the_stored_messages(
    messages: tuple[Message, ...], max_tokens: int, text: str
) -> None:
    before = [(message.role, message.parts) for message in messages]
    window = ContextStrategy(type="sliding_window", max_tokens=max_tokens)
    upto = len(messages) - len(messages) % 2
    summary = Summary(text=text, upto=1) if upto > 2 else None
    settings = SessionPrune(keep_recent_n=0, pruned_tool_result_max_bytes=1)
    fit(agent(window, settings), (), messages, summary)
    assert before == [(message.role, message.parts) for message in messages]
