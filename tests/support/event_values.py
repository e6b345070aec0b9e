"""Any value of a type, read from its annotations: for property tests over all events."""

from __future__ import annotations

import dataclasses
import types
import typing
from functools import cache
from typing import Any

from hypothesis import strategies as st

from heartbit.core.agent import AgentDefinition
from heartbit.core.events import RULES_VERSION, RunStarted
from tests.support.journals import SOLO

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
    if kind is RunStarted:  # others are refused
        members["rules_version"] = st.integers(max_value=RULES_VERSION)
    return st.builds(kind, **members)
