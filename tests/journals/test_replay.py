"""Journals of the past replay to the commands they led to then: a run in flight is not changed.

When one of these tests fails, the rules have changed for runs that are under way. Give the new
rules a new RULES_VERSION and keep the old ones; the files are never edited.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from heartbit.core.events import Event
from heartbit.core.run import follow, replay
from heartbit.stores.codec import decode_event
from tests.support.kept_journals import KEPT, described, prefixes

FILES = sorted(KEPT.glob("*.json"))
JOURNALS = [
    pytest.param(journal, kept["event_version"], id=f"{path.stem}:{place or 'root'}")
    for path in FILES
    for kept in [json.loads(path.read_text())]
    for place, journal in kept["journals"].items()
]
every_journal = pytest.mark.parametrize(("journal", "version"), JOURNALS)


def events_of(journal: dict[str, Any], version: int) -> list[Event]:
    """The events as a worker of today reads them."""
    return [decode_event(event, version) for event in journal["events"]]


@every_journal
def test_every_prefix_leads_to_the_commands_it_led_to_then(
    journal: dict[str, Any], version: int
) -> None:
    """Whatever a worker was doing when it was replaced by a newer one."""
    assert journal["commands"] == prefixes(events_of(journal, version))


@every_journal
def test_a_journal_read_bit_by_bit_leads_where_the_whole_leads(
    journal: dict[str, Any], version: int
) -> None:
    """A worker that knows a part folds only the rest."""
    events = events_of(journal, version)
    progress = None
    for event, commands in zip(events, journal["commands"], strict=True):
        progress = follow(progress, [event])
        assert commands == [described(command) for command in progress.commands.values()]


@every_journal
def test_a_kept_journal_is_that_of_a_run_that_ended(journal: dict[str, Any], version: int) -> None:
    """With nothing left to do."""
    state, commands = replay(events_of(journal, version))
    assert state.ended
    assert () == commands
    assert [] == journal["commands"][-1]


def test_the_kept_journals_have_every_kind_of_command() -> None:
    """What never was in one of them could change unseen."""
    done = {
        command["do"]
        for path in FILES
        for journal in json.loads(path.read_text())["journals"].values()
        for commands in journal["commands"]
        for command in commands
    }
    kinds = "AskApproval CallModel CallTool Consolidate Finish RefuseCall StartSubRun Summarise"
    assert set(kinds.split()) == done


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_name_of_a_file_tells_its_rules(path: Path) -> None:
    """So that journals of newer rules are kept beside it."""
    version = json.loads(path.read_text())["rules_version"]
    assert path.name.startswith(f"rules{version}_")
