"""Every event there is can be written as JSON and read back as it was."""

from __future__ import annotations

import typing
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heartbit.core.agent import as_json
from heartbit.core.events import Event, ModelReplied, RunFinished, RunStarted, ToolReturned
from heartbit.errors import JournalError
from heartbit.stores.codec import VERSION, decode_event, encode_event
from tests.support.event_values import values_of
from tests.support.journals import SOLO, call, replied

KINDS: tuple[type, ...] = typing.get_args(Event)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=50, deadline=None)
@given(st.data())
def test_an_event_survives_its_encoding(kind: type, data: st.DataObject) -> None:
    """Whatever it holds: NUL, lone surrogates, any JSON value."""
    event = data.draw(values_of(kind))
    text = encode_event(event)
    assert text.isascii()
    assert "\x00" not in text
    assert event == decode_event(text)
    assert text == encode_event(decode_event(text))


def test_no_two_events_have_one_name() -> None:
    """The name tells which event a stored line is."""
    names = [kind.__dataclass_fields__["type"].default for kind in KINDS]  # type: ignore[attr-defined]
    assert len(KINDS) == len(set(names))


def test_what_was_derived_from_a_message_is_not_stored() -> None:
    """A memo belongs to the process that made it."""
    event = replied(1, call("look"))
    before = encode_event(event)
    event.completion.message.memo["tokens"] = 7
    own = replace(SOLO, tools=tuple(replace(tool) for tool in SOLO.tools))
    own.tools[0].memo["tokens"] = object()
    started = RunStarted(prompt="Go.", definition=own)
    assert before == encode_event(event)
    assert '"memo"' not in encode_event(started)


def test_json_of_a_value_shares_nothing_with_it() -> None:
    """Whoever changes what he was shown changes nothing else."""
    event = RunFinished(result="", structured={"list": [1]})
    shown = as_json(event)
    shown["structured"]["list"].append(2)
    assert {"list": [1]} == event.structured


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", "{}", '{"type":"unknown"}', '{"type":"model_replied"}']
)
def test_what_is_no_event_is_a_journal_error(text: str) -> None:
    """A damaged journal is told in one sentence."""
    with pytest.raises(JournalError, match="cannot be read"):
        decode_event(text)


def test_an_event_of_a_newer_heartbit_is_left_alone() -> None:
    """An old worker does not guess what a newer one meant."""
    text = encode_event(ToolReturned(step="1/tool/0", content=""))
    with pytest.raises(JournalError, match="upgrade"):
        decode_event(text, VERSION + 1)


def test_a_completion_is_read_back_with_every_kind_of_part() -> None:
    """Parts are told apart by their type."""
    event = replied(1, "text", call("look", x=1))
    read = decode_event(encode_event(event))
    assert isinstance(read, ModelReplied)
    assert event.completion.parts == read.completion.parts
