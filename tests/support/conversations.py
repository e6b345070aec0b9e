"""Conversations as a run makes them: a task, replies, and the results of the calls they ask for."""

from __future__ import annotations

from hypothesis import strategies as st

from heartbit.core.messages import Message, TextPart, ToolCall, ToolResult, user_message

any_text = st.text(st.characters(exclude_categories=()), max_size=80)


def assistant(text: str) -> Message:
    """A reply without tool calls."""
    return Message(role="assistant", parts=(TextPart(text=text),))


def calls(*ids: str, arguments: dict[str, object] | None = None) -> Message:
    """A reply that asks for one tool per id."""
    return Message(
        role="assistant",
        parts=tuple(ToolCall(id=each, name="look", arguments=arguments or {}) for each in ids),
    )


def results(*ids: str, content: str = "seen") -> Message:
    """The answers to the calls with these ids."""
    return Message(
        role="user", parts=tuple(ToolResult(call_id=each, content=content) for each in ids)
    )


def tool_turns(count: int, content: str = "seen") -> tuple[Message, ...]:
    """A task and `count` turns of one call each."""
    turns = (
        pair for n in range(count) for pair in (calls(f"c{n}"), results(f"c{n}", content=content))
    )
    return (user_message("task"), *turns)


def called(message: Message) -> list[str]:
    """The ids of the calls in the message."""
    return [call.id for call in message.tool_calls]


def answered(message: Message) -> list[str]:
    """The ids of the calls that the message answers."""
    return [part.call_id for part in message.parts if isinstance(part, ToolResult)]


def pairs_are_whole(messages: tuple[Message, ...]) -> bool:
    """Whether all results follow their calls directly and all calls but the last have results."""
    befores = (Message(role="user", parts=()), *messages)
    return all(
        called(before) == answered(message)
        for before, message in zip(befores, messages, strict=False)
    )


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Message, ...]:
    """A task, then turns: calls with their results, or a reply and what the user says to it."""
    messages = [user_message(draw(any_text))]
    for turn, call_count in enumerate(draw(st.lists(st.integers(0, 3), max_size=10))):
        ids = [f"{turn}.{n}" for n in range(call_count)]
        if ids:
            messages += [
                calls(*ids),
                results(*ids, content=draw(any_text) * draw(st.integers(1, 9))),
            ]
        else:
            messages += [assistant(draw(any_text)), user_message(draw(any_text))]
    return tuple(messages)
