"""The rules' own `replace` does what dataclasses.replace does, for the values they replace."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from heartbit.core.agent import AgentDefinition
from heartbit.core.delegation import SubTask
from heartbit.core.messages import ToolCall, Usage
from heartbit.core.state import OpenCall, RunState
from heartbit.core.values import replace

CALL = ToolCall(id="c1", name="add", arguments={"a": 1})
CHANGES: list[tuple[Any, dict[str, Any]]] = [
    (
        RunState(definition=AgentDefinition(name="a"), prompt="p", tools=(), usage=Usage(), turn=3),
        {"turn": 4, "calls": (), "status": "failed"},
    ),
    (OpenCall(position=1, call=CALL, fate="run"), {"fate": "refuse", "reason": "no"}),
    (CALL, {"malformed": "{"}),
    (SubTask(position=0, agent="a", prompt="p", number=1), {"started": True}),
]
IDS = [type(value).__name__ for value, _ in CHANGES]


@pytest.mark.parametrize(("value", "changes"), CHANGES, ids=IDS)
def test_replace_gives_the_value_that_dataclasses_would_give(
    value: Any, changes: dict[str, Any]
) -> None:
    """Changed fields are new, all others the very objects of the old value."""
    assert dataclasses.replace(value, **changes) == replace(value, **changes)
    kept = [field.name for field in dataclasses.fields(value) if field.name not in changes]
    made = replace(value, **changes)
    assert [] == [name for name in kept if getattr(made, name) is not getattr(value, name)]


@pytest.mark.parametrize(("value", "changes"), CHANGES, ids=IDS)
def test_replace_leaves_the_old_value_as_it_was(value: Any, changes: dict[str, Any]) -> None:
    """A value never changes: replay and parallel runs may hold the old one."""
    before = dataclasses.replace(value)
    replace(value, **changes)
    assert before == value


@pytest.mark.parametrize(("value", "_"), CHANGES, ids=IDS)
def test_every_replaced_kind_has_only_fields_that_are_given_at_the_start(
    value: Any, _: object
) -> None:
    """`replace` copies fields and derives nothing: a kind that derives something isn't for it."""
    assert [] == [field.name for field in dataclasses.fields(value) if not field.init]
    assert not hasattr(value, "__post_init__")
