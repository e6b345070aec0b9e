"""Every event there is can be written as JSON and read back as it was."""

from __future__ import annotations

import dataclasses
import types
import typing
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbit.core.agent import AgentDefinition, as_json
from heartbit.core.events import Event, ModelReplied, RunFinished, RunStarted, ToolReturned
from heartbit.errors import JournalError
from heartbit.stores.codec import VERSION, decode_event, encode_event
from tests.support.journals import SOLO, call, replied

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=8)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | ANY_TEXT,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(ANY_TEXT, values, max_size=3),
    max_leaves=5,
)
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: ANY_TEXT,
    int: st.integers(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    type(None): st.none(),
    Any: ANY_JSON,
}
KINDS: tuple[type, ...] = typing.get_args(Event)


@cache
def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a type: read from the annotations, so that no event is forgotten."""
    if kind in PLAIN:
        return PLAIN[kind]
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return st.deferred(lambda: _dataclass(kind))
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*map(values_of, arguments))
    if origin is tuple:
        return st.lists(values_of(arguments[0]), max_size=2).map(tuple)
    assert dict is origin, kind
    return st.dictionaries(ANY_TEXT, ANY_JSON, max_size=2)


def _dataclass(kind: type) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind) if f.init]
    members = {name: values_of(hints[name]) for name in names}
    if kind is AgentDefinition:  # the hierarchy is flat
        members["delegates"] = st.just(()) | st.just((SOLO,))
    return st.builds(kind, **members)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
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
    started = RunStarted(prompt="Go.", definition=SOLO)
    SOLO.tools[0].memo["tokens"] = object()
    assert before == encode_event(event)
    assert "memo" not in encode_event(started)


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
