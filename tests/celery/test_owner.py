"""Whose run it is, when Celery tasks are how it is asked for."""

from __future__ import annotations

from typing import Any

import pytest
from celery import chain

from heartbit.errors import HeartbitError, RunNotFound
from heartbit.tasks import run_agent
from tests.support.canvas import SECONDS


def test_a_run_and_those_below_it_belong_to_the_tenant_and_user_that_are_named(fleet: Any) -> None:
    """And nobody else sees them."""
    whose = {"tenant_id": "acme", "user_id": "ann", "priority": 7}
    result = run_agent.delay("delegate say one; say two", **whose)
    result.get(timeout=SECONDS)
    tree = fleet.journal.tree(result.id, tenant="acme")
    assert [("acme", "ann")] * 3 == [(row.tenant_id, row.user_id) for row in tree]
    for tenant in (None, "other"):
        assert () == fleet.journal.tree(result.id, tenant=tenant)
        with pytest.raises(RunNotFound):
            fleet.journal.run(result.id, tenant=tenant)
    with fleet.journal._database.connection() as connection:
        assert [(7,)] == connection.execute("select distinct priority from runs").fetchall()


def test_it_is_said_in_a_canvas_as_any_argument_is(fleet: Any) -> None:
    signature = run_agent.s(agent="worker", tenant_id="acme")
    made = chain(fleet.host.fetch.s("hello"), signature, fleet.host.text.s())()
    assert "<hello>" == made.get(timeout=SECONDS)
    assert "acme" == fleet.journal.run(made.parent.id).tenant_id


def test_headers_of_a_message_say_nothing_about_whose_run_it_is(fleet: Any) -> None:
    """Anybody on the way could have set them."""
    headers = {"tenant_id": "acme", "user_id": "ann"}
    result = run_agent.apply_async(("say hi",), {"agent": "worker"}, headers=headers)
    result.get(timeout=SECONDS)
    row = fleet.journal.run(result.id)
    assert (None, None) == (row.tenant_id, row.user_id)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"tenant_id": 7}, "tenant_id must be printable text"),
        ({"user_id": "a\x00b"}, "user_id must be printable text"),
        ({"priority": "high"}, "priority must be a whole number"),
    ],
)
def test_an_owner_that_is_none_is_an_error_of_the_caller(
    fleet: Any, said: dict[str, Any], problem: str
) -> None:
    """One sentence, and no run."""
    with pytest.raises(HeartbitError, match=problem):
        run_agent.delay("say hi", agent="worker", **said).get(timeout=SECONDS)
    assert () == fleet.journal.list_runs()
