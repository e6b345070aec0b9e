"""`run_agent` in everything a caller may build with Celery."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from celery import chain, chord, group
from celery.signals import task_prerun

from heartbit.errors import ModelCallFailed, RunStateError
from heartbit.tasks import run_agent
from tests.support.canvas import SECONDS, text, until


def get(result: Any) -> Any:
    """The result, when it is there."""
    return result.get(timeout=SECONDS)


def test_delay_gives_an_ordinary_result(fleet: Any) -> None:
    """The id of the task is that of the run, and its result is the run's output."""
    result = run_agent.delay("say hello", agent="worker")
    output = get(result)
    assert ("hello", "succeeded") == (output["result"], output["status"])
    assert result.id == output["run_id"]
    assert "SUCCESS" == result.state


def test_a_run_with_tools_and_one_with_sub_agents_end(fleet: Any) -> None:
    """Tool calls join in the journal, sub-agents in a chord."""
    used = run_agent.delay("use the tool", agent="worker")
    delegated = run_agent.delay("delegate say one; say two")
    assert "HELLO" == get(used)["result"]
    found = get(delegated)["result"]
    assert "one" in found
    assert "two" in found


def test_before_in_a_chain(fleet: Any) -> None:
    """What follows gets the output of the run."""
    assert "<hi>" == get(chain(run_agent.s("say hi", agent="worker"), fleet.host.text.s())())


def test_after_in_a_chain(fleet: Any) -> None:
    """What came before is the prompt."""
    output = get(chain(fleet.host.fetch.s("this"), run_agent.s(agent="worker"))())
    assert "this" == output["result"]


def test_twice_in_a_chain(fleet: Any) -> None:
    """A prompt that is no text is given to the agent as JSON."""
    again = get(chain(run_agent.s("say hi", agent="worker"), run_agent.s(agent="worker"))())
    assert "hi" == text(again["result"])


def test_a_group_has_all_results_in_order(fleet: Any) -> None:
    """Runs end in any order."""
    made = group(run_agent.s(f"say {n}", agent="worker") for n in range(5))()
    assert list("01234") == [each["result"] for each in get(made)]


def test_a_chord_waits_for_its_runs(fleet: Any) -> None:
    """The body gets the outputs in the order of the header."""
    made = chord([run_agent.s(f"say {n}", agent="worker") for n in "abc"])(fleet.host.texts.s())
    assert "a b c" == get(made)


def test_a_chord_of_chains_and_a_chain_of_chords(fleet: Any) -> None:
    """Nested canvases count each member once."""
    header = [
        chain(fleet.host.fetch.s(word), run_agent.s(agent="worker"), fleet.host.text.s())
        for word in "xy"
    ]
    whole = chain(chord(header, fleet.host.texts.s()), run_agent.s(agent="worker"))
    assert "<x> <y>" == get(whole())["result"]


def test_runs_with_sub_agents_in_a_chord(fleet: Any) -> None:
    """Chords of heartbit inside a chord of the caller."""
    header = [run_agent.s(f"delegate say {n}; say {n}{n}") for n in "ab"]
    found = get(chord(header)(fleet.host.texts.s()))
    assert all(word in found for word in ("a", "aa", "b", "bb"))


def test_a_callback_gets_the_output(fleet: Any) -> None:
    """`link` is called once, with the result."""
    result = run_agent.apply_async(
        ("say hi",), {"agent": "worker"}, link=fleet.host.hear.s(more="kept")
    )
    output = get(result)
    assert [((output,), {"more": "kept"})] == until(lambda: fleet.scene.heard)


def test_a_failed_run_is_a_failed_task(fleet: Any) -> None:
    """The error of the run, with its class and its sentence."""
    result = run_agent.delay("fail", agent="worker")
    with pytest.raises(ModelCallFailed, match="told to refuse"):
        get(result)
    assert "FAILURE" == result.state


def test_an_errback_hears_of_a_failed_run(fleet: Any) -> None:
    """`link_error` gets the id of the task and the error."""
    result = run_agent.apply_async(
        ("fail",), {"agent": "worker"}, link_error=fleet.host.hear_error.s()
    )
    [(task_id, kind, _)] = until(lambda: fleet.scene.heard)
    assert (result.id, "ModelCallFailed") == (task_id, kind)


def test_a_failed_run_ends_its_chain_and_its_chord(fleet: Any) -> None:
    """Nothing waits for ever for what a failed run was to be followed by."""
    chained = chain(run_agent.s("fail", agent="worker"), fleet.host.text.s())()
    joined = chord([run_agent.s("fail", agent="worker"), run_agent.s("say a", agent="worker")])(
        fleet.host.texts.s()
    )
    with pytest.raises(ModelCallFailed):
        get(chained)
    with pytest.raises(Exception, match="told to refuse"):
        get(joined)


def test_what_waits_may_have_arguments_that_are_no_json(fleet: Any) -> None:
    """Dates go through the broker, so they must go through the journal."""
    day = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.UTC)
    chain(run_agent.s("say hi", agent="worker"), fleet.host.hear.si(day, blob=b"\xff\x00"))()
    assert [((day,), {"blob": b"\xff\x00"})] == until(lambda: fleet.scene.heard)


def test_stamps_and_headers_and_priority_stay_with_the_task(fleet: Any) -> None:
    """What a caller put on the message is on the one that gives the result."""
    seen: list[Any] = []

    def look(task: Any, **_: Any) -> None:
        if task.name == "heartbit.finish_run":
            request = task.request
            seen.append((request.stamps, request.headers, request.delivery_info["priority"]))

    task_prerun.connect(look, weak=False)
    try:
        made = run_agent.s("say hi", agent="worker")
        made.stamp(customer="4711")
        get(made.apply_async(headers={"trace": "abc"}, priority=3))
    finally:
        task_prerun.disconnect(look)
    [(stamps, headers, priority)] = seen
    assert "4711" in stamps["customer"]
    assert "abc" == headers["trace"]
    assert 3 == priority


def test_a_caller_who_wants_no_result_leaves_none(fleet: Any) -> None:
    """ignore_result of the message holds for its deferred end."""
    result = run_agent.apply_async(
        ("say hi",), {"agent": "worker"}, ignore_result=True, link=fleet.host.hear.si()
    )
    until(lambda: fleet.scene.heard)
    assert None is fleet.app.backend.get(fleet.app.backend.get_key_for_task(result.id))


def test_any_task_id_will_do(fleet: Any) -> None:
    """A task id that is no uuid stands for one run."""
    result = run_agent.apply_async(("say hi",), {"agent": "worker"}, task_id="nightly")
    output = get(result)
    assert "nightly" == result.id
    assert "nightly" == fleet.journal.run(output["run_id"]).task_id


def test_the_same_task_sent_again_is_the_same_run(fleet: Any) -> None:
    """Whoever sends it a second time gets the first result, and no second run."""
    first = get(run_agent.apply_async(("say hi",), {"agent": "worker"}, task_id="nightly"))
    fleet.app.backend.client.flushall()
    again = run_agent.apply_async(
        ("say hi",), {"agent": "worker"}, task_id="nightly", link=fleet.host.hear.s()
    )
    assert first == get(again)
    assert [((first,), {})] == until(lambda: fleet.scene.heard)
    assert 1 == len(fleet.journal.list_runs())


def test_the_same_task_id_with_another_prompt_is_an_error(fleet: Any) -> None:
    """Silence would hand out the answer to another question."""
    run_agent.apply_async(("wait",), {"agent": "worker"}, task_id="weekly")
    assert fleet.scene.waiting.acquire(timeout=SECONDS)
    with pytest.raises(RunStateError, match="another run"):
        get(run_agent.apply_async(("say hi",), {"agent": "worker"}, task_id="weekly"))
