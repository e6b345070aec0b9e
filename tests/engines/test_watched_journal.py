"""Boundaries are told of whatever is stored about a run, and of nothing else."""

from __future__ import annotations

import inspect

from heartbit.engines.chaos import COMMITS, Boundaries, Boundary, Places, watched_journal
from heartbit.stores.journal import Journal
from heartbit.stores.memory_journal import InMemoryJournal
from tests.support.stages import new_run

READS = {"events", "run", "tree", "approvals", "undispatched"}


def test_every_method_that_stores_something_about_one_run_is_told_of() -> None:
    """A crash before and after each of them is what the harness is there for."""
    firsts = {
        name: list(inspect.signature(method).parameters)[1:2]
        for name, method in inspect.getmembers(Journal, inspect.isfunction)
        if not name.startswith("_")
    }
    of_one_run = {name for name, first in firsts.items() if first in (["run_id"], ["append"])}
    assert of_one_run - READS == set(COMMITS)


def test_a_timer_is_a_boundary_when_it_is_set_and_when_it_is_cleared() -> None:
    """Under its name, so that those of two steps are two."""
    told: list[Boundary] = []
    inner = InMemoryJournal()
    journal = watched_journal(inner, Boundaries(Places(inner), told.append))
    run = new_run()
    journal.open_run(run)
    told.clear()
    journal.set_timer(run.run_id, "again/1/tool/0", 5)
    journal.clear_timer(run.run_id, "again/1/tool/0")
    whats = ("timer again/1/tool/0", "no timer again/1/tool/0")
    expected = [(what, edge) for what in whats for edge in ("before", "after")]
    assert expected == [(each.what, each.edge) for each in told]
