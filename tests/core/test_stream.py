"""The objects that a reader of a run sees."""

from __future__ import annotations

import json
import typing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heartbit.core.agent import as_json
from heartbit.core.events import Event, RunFinished, RunStarted
from heartbit.core.stream import RunIdentity, event_entry, text_delta, turn_restarted
from tests.support.event_values import values_of
from tests.support.journals import CHIEF, started

ME = RunIdentity(run_id="r", root_run_id="root", agent="ada", parent_run_id="p")
WHO = {"run_id": "r", "root_run_id": "root", "parent_run_id": "p", "agent": "ada"}
OTHERS = [kind for kind in typing.get_args(Event) if kind is not RunStarted]


@pytest.mark.parametrize("kind", OTHERS, ids=lambda kind: kind.__name__)
@settings(max_examples=20, deadline=None)
@given(st.data())
def test_an_entry_is_the_event_with_its_run_and_its_place(kind: type, data: st.DataObject) -> None:
    """No field of an event hides whose it is, and all of it is JSON."""
    event = data.draw(values_of(kind))
    entry = event_entry(ME, 7, event)
    assert entry == json.loads(json.dumps(entry))
    assert {**WHO, "seq": 7, **as_json(event)} == entry
    assert WHO.items() <= entry.items()


def test_the_entry_of_a_start_names_what_it_was_opened_with() -> None:
    """Prompts, schemas and sub-agents in full are in the journal."""
    entry = event_entry(ME, 1, started(CHIEF))
    assert (["ada", "bob"], [], "Go.") == (entry["delegates"], entry["tools"], entry["prompt"])
    assert "definition" not in entry
    assert "I am the chief." not in json.dumps(entry)


def test_what_is_spoken_names_its_step_and_its_attempt() -> None:
    """A reader drops what an earlier attempt has said."""
    assert {**WHO, "type": "text_delta", "step": "1/model", "attempt": 2, "text": "Hi"} == (
        text_delta(ME, "1/model", 2, "Hi")
    )
    assert {**WHO, "type": "turn_restarted", "step": "1/model", "attempt": 3, "reason": "cut"} == (
        turn_restarted(ME, "1/model", 3, "cut")
    )


def test_an_entry_shares_nothing_with_the_journal() -> None:
    """Whoever changes what he was shown changes nothing else."""
    event = RunFinished(result="", structured={"list": [1]})
    event_entry(ME, 1, event)["structured"]["list"].append(2)
    assert {"list": [1]} == event.structured
