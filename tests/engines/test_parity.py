"""Every script through every engine: the same journal, and the same requests at the provider."""

from __future__ import annotations

import pytest

from heartbit.core.events import ApprovalResolved, Event, RunCancelled
from heartbit.core.run import advance, replay
from heartbit.stores.codec import decode_event, encode_event
from tests.engines.scripts import SCRIPTS
from tests.support.engines import ENGINES, Engine
from tests.support.parity import Script, canonical, canonical_requests

every_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
every_engine = pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES.keys())


@every_engine
@every_script
def test_the_engine_fulfils_the_script(engine: Engine, script: Script) -> None:
    """What the script expects of the outcome holds."""
    script.expect(engine(script))


@every_script
def test_a_journal_replays_to_the_state_it_came_from(script: Script) -> None:
    """Every event of a stored journal is the outcome of a command that its prefix asks for."""
    outcome = ENGINES["standalone"](script)
    for events in outcome.journals.values():
        stored = [decode_event(encode_event(event)) for event in events]
        assert stored == list(events)
        _check_order(stored)


def _check_order(events: list[Event]) -> None:
    asked_for: set[str] = set()
    for length in range(1, len(events)):
        state, commands = replay(events[:length])
        still_open = {command.step for command in commands}
        asked_for |= still_open
        event = events[length]
        # What was under way when the end was decided may still come in.
        expected = asked_for if state.ending else still_open
        of_itself = event.step is None or isinstance(event, ApprovalResolved | RunCancelled)
        assert of_itself or event.step in expected


@pytest.mark.slow
@every_script
def test_two_runs_of_a_script_write_the_same_journal(script: Script) -> None:
    """Nothing in a journal depends on the clock, on chance, or on who was faster."""
    first, second = (ENGINES["standalone"](script) for _ in range(2))
    assert first.journals.keys() == second.journals.keys()
    for place, events in first.journals.items():
        assert canonical(events) == canonical(second.journals[place])
    assert canonical_requests(first.asked) == canonical_requests(second.asked)


def test_advance_refuses_a_journal_that_does_not_begin_with_its_start() -> None:
    """A journal out of order is an error, not a run that goes wrong silently."""
    script = SCRIPTS[0]
    events = ENGINES["standalone"](script).journals[""]
    with pytest.raises(Exception, match="does not begin with its start"):
        advance(None, events[1])
    with pytest.raises(Exception, match="second start"):
        replay([events[0], events[0]])
