"""`heartbit.submit` and `RunHandle`: what is asked, decided and waited for, without a worker."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import heartbit
from heartbit.client import Client, RunHandle, decode_output, lend, only_waits
from heartbit.config import Config, load
from heartbit.core.agent import AgentDefinition
from heartbit.core.commands import CallTool, Command
from heartbit.core.events import Decision, Event, ModelReplied, RunStarted, ToolReturned
from heartbit.core.messages import Completion, TextPart, ToolCall, Usage
from heartbit.core.state import RunState
from heartbit.core.tools import ToolSpec
from heartbit.embedded.address import Addresses, announce
from heartbit.engines.durable import DurableEngine
from heartbit.engines.plan import RunPlace, root_run
from heartbit.engines.ports import Done
from heartbit.errors import ConfigError, InvalidDecision, RunNotFound, RunStateError
from heartbit.stores.postgres import PostgresJournal

AGENT = """
[provider]
name = "scripted"
[[agents]]
name = "worker"
description = "Works."
system_prompt = "You work."
"""
CONFIG = load(None, {}, text=AGENT).config
SAVE = ToolSpec(
    name="save",
    description="Save.",
    input_schema={"type": "object", "properties": {"text": {"type": "string"}}},
    ref="test:save",
    effect="idempotent",
)
ASKING = AgentDefinition(
    name="saver", system_prompt="You save.", model="m", tools=(SAVE,), approve=True
)


class Desk:
    """A client, and an engine in place of a worker: it does the steps that a test names."""

    def __init__(self, database: str) -> None:
        self.journal = PostgresJournal(database, pool_size=2)
        self.naps: list[float] = []
        self.while_waiting: Callable[[], None] = lambda: None
        silence: Any = Silence()
        self.client = Client(self.journal, CONFIG, silence, sleep=self._sleep)
        self._engine = DurableEngine(
            journal=self.journal, outbox=silence, work=self._work, owner="test"
        )

    def asked(self, *texts: str) -> RunHandle:
        """A run that waits for a human to decide about saving these texts."""
        run_id = str(uuid.uuid4())
        place = RunPlace(run_id=run_id, root_run_id=run_id)
        start = RunStarted(prompt="|".join(texts), definition=ASKING, blackboard=run_id)
        self._engine.open(place, start, task_id=run_id)
        self.do(run_id, "1/model")
        return self.client.run(run_id)

    def do(self, run_id: str, *steps: str) -> None:
        """Do these steps."""
        for step in steps:
            self._engine.step(run_id, step)

    def _sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.while_waiting()

    def _work(self, command: Command, state: RunState, *_: object) -> Done:
        return Done(event=self._event(command, state))

    def _event(self, command: Command, state: RunState) -> Event:
        if isinstance(command, CallTool):
            return ToolReturned(step=command.step, content=f"saved {command.call.arguments}")
        texts = state.prompt.split("|") if state.turn == 1 else []
        calls = [ToolCall(id=t, name="save", arguments={"text": t}) for t in texts]
        return ModelReplied(
            step=command.step,
            completion=Completion(
                parts=tuple(calls) or (TextPart(text="done"),),
                stop_reason="tool_use" if calls else "end_turn",
                usage=Usage(input_tokens=1),
                model="m",
            ),
        )


class Silence:
    """An outbox that sends nothing."""

    def __getattr__(self, name: str) -> Callable[..., Sequence[str]]:
        return lambda *_: []


@pytest.fixture
def desk(postgres: str) -> Iterator[Desk]:
    """No worker, and no broker either."""
    desk = Desk(postgres)
    yield desk
    desk.journal.close()


def approve(position: int = 0) -> Decision:
    """Let the call at a position run."""
    return Decision(position=position, verdict="approve")


def test_a_run_that_takes_longer_goes_on(desk: Desk) -> None:
    handle = desk.asked("a")
    with pytest.raises(TimeoutError, match="is waiting after 0 seconds"):
        handle.result(timeout=0)


def test_waiting_asks_less_and_less_often(desk: Desk) -> None:
    """A thousand clients that wait must not keep the database busy."""
    handle = desk.asked("a")

    def decide() -> None:
        if len(desk.naps) == 8:
            handle.deny(handle.pending()[0])
            desk.do(handle.id, "2/model")

    desk.while_waiting = decide
    assert "done" == handle.result().result
    assert (0.05, 1.0) == (min(desk.naps), max(desk.naps))


def test_a_question_shows_exactly_the_calls_that_would_run(desk: Desk) -> None:
    (question,) = desk.asked("a", "b").pending()
    assert ("saver", "1/approval", (0, 1)) == (question.agent, question.step, question.positions)
    assert [{"text": "a"}, {"text": "b"}] == [call.arguments for call in question.calls]


def test_an_approved_call_runs_and_an_edited_one_as_it_was_edited(desk: Desk) -> None:
    handle = desk.asked("a", "b")
    (question,) = handle.pending()
    handle.approve(question, edits={1: {"text": "c"}}, by="ann")
    desk.do(handle.id, "1/tool/0", "1/tool/1", "2/model")
    entries = desk.client.entries(handle.id)
    saved = [e["content"] for e in entries if e["type"] == "tool_returned"]
    assert ["saved {'text': 'a'}", "saved {'text': 'c'}"] == saved
    (decided,) = desk.journal.approvals(handle.id)
    assert "ann" == decided.decided_by


@pytest.mark.parametrize(
    ("decisions", "problem"),
    [
        ([approve()], "1 have none"),
        ([approve(), approve(), approve(1)], "decided on twice"),
        ([approve(), approve(1), approve(7)], "Call 7"),
        ([approve(), Decision(position=1, verdict="edit", arguments={"text": 3})], "not of type"),
    ],
)
def test_a_decision_that_does_not_fit_decides_nothing(
    desk: Desk, decisions: list[Decision], problem: str
) -> None:
    handle = desk.asked("a", "b")
    (question,) = handle.pending()
    with pytest.raises(InvalidDecision, match=problem):
        desk.client.decide(question, decisions)
    assert (question,) == handle.pending()


def test_deciding_twice_is_an_error_that_says_who_was_first(desk: Desk) -> None:
    handle = desk.asked("a")
    (question,) = handle.pending()
    handle.approve(question, by="ann")
    with pytest.raises(RunStateError, match="was decided already by ann"):
        handle.deny(question, by="bob")


def test_a_decision_about_other_calls_than_those_that_wait_is_an_error(desk: Desk) -> None:
    """Somebody looked at one thing and another one would have run."""
    handle = desk.asked("a")
    (question,) = handle.pending()
    other = replace(question.calls[0], arguments={"text": "z"})
    with pytest.raises(RunStateError, match="about other calls"):
        handle.approve(replace(question, calls=(other,)))
    assert (question,) == handle.pending()


def test_submitting_again_under_an_id_is_the_same_run(desk: Desk) -> None:
    first = desk.client.submit("say a", agent="worker", run_id="order-17")
    assert first.id == desk.client.submit("say a", agent="worker", run_id="order-17").id
    assert 1 == len(desk.journal.list_runs())
    with pytest.raises(RunStateError):
        desk.client.submit("say b", agent="worker", run_id="order-17")


def test_a_prompt_may_be_any_json(desk: Desk) -> None:
    handle = desk.client.submit({"number": 1}, agent="worker")
    assert '{"number": 1}' == next(desk.client.entries(handle.id))["prompt"]


def test_approve_asks_about_every_tool_whatever_the_rules_say(desk: Desk) -> None:
    handle = desk.client.submit("say a", agent="worker", approve=True)
    (start,) = desk.journal.events(handle.id)
    assert isinstance(start, RunStarted)
    assert start.definition.approve


def test_without_a_database_nothing_is_submitted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="PostgreSQL database"):
        heartbit.submit("say a")
    with pytest.raises(ConfigError, match="PostgreSQL database"):
        heartbit.submit("say a", config=CONFIG)


RUNNING = Addresses(
    pid=os.getpid(), database_url="postgresql://h/d", broker_url="redis://127.0.0.1:1/0"
)


def lent(tmp_path: Path, config: Config, running: Addresses | None = RUNNING) -> dict[str, str]:
    """What the environment has then, besides where to look."""
    environ = {"XDG_STATE_HOME": str(tmp_path)}
    (tmp_path / "heartbit").mkdir()
    if running:
        announce(tmp_path / "heartbit", running)
    lend(environ, config)
    del environ["XDG_STATE_HOME"]
    return environ


def test_a_running_dev_lends_its_servers(tmp_path: Path) -> None:
    expected = {
        "HEARTBIT_DATABASE_URL": "postgresql://h/d",
        "CELERY_BROKER_URL": "redis://127.0.0.1:1/0",
    }
    assert expected == lent(tmp_path, CONFIG)


def test_what_is_configured_is_never_replaced_by_a_running_dev(tmp_path: Path) -> None:
    """Otherwise a run that was meant for the fleet would end up on a laptop."""
    urls = {"HEARTBIT_DATABASE_URL": "postgresql://x/y", "CELERY_BROKER_URL": "redis://x/0"}
    assert {} == lent(tmp_path, load(None, urls, text=AGENT).config)


def test_without_a_running_dev_nothing_is_lent(tmp_path: Path) -> None:
    assert {} == lent(tmp_path, CONFIG, running=None)


def test_a_parent_waits_when_all_that_goes_on_below_it_waits(desk: Desk) -> None:
    handle = desk.asked("a")
    child = desk.journal.run(handle.id)
    parent = replace(child, run_id="p", status="running")
    below = replace(child, parent_run_id="p")
    assert only_waits([parent, below])
    assert not only_waits([parent, replace(below, status="running")])
    assert not only_waits([parent, replace(below, status="succeeded")])
    assert not only_waits([replace(parent, status="failed")])


def test_an_output_comes_back_from_the_journal_as_it_was(desk: Desk) -> None:
    handle = desk.asked("a")
    handle.deny(handle.pending()[0])
    desk.do(handle.id, "2/model")
    output = handle.result()
    assert output == decode_output(output.as_json())
    assert Usage(input_tokens=2) == output.usage


def asked_and_saved(desk: Desk) -> RunHandle:
    """A run of two turns, the first of which saved a text that a human had approved."""
    handle = desk.asked("a")
    handle.approve(handle.pending()[0], by="ann")
    desk.do(handle.id, "1/tool/0", "2/model")
    return handle


def steps_of(desk: Desk, handle: RunHandle) -> list[str | None]:
    """The steps of its journal, in order."""
    return [event.step for event in desk.journal.events(handle.id)]


def test_a_fork_goes_on_from_what_was_done_and_decided(desk: Desk) -> None:
    """Nobody is asked again, and nothing is saved again."""
    first = asked_and_saved(desk)
    forked = first.fork(2, model="other")
    kept = ["start", "1/model", "1/approval", "1/approval/decision", "1/tool/0"]
    assert kept == steps_of(desk, forked)
    desk.do(forked.id, "2/model")
    assert ("succeeded", "done", 2) == (forked.status(), forked.result().result, 2)
    assert [*kept, "2/model", "end"] == steps_of(desk, forked) == steps_of(desk, first)
    assert "other" == next(desk.client.entries(forked.id))["model"]
    assert {"run_id": first.id, "turn": 2} == next(desk.client.entries(forked.id))["forked_from"]


def test_a_run_that_waits_can_be_forked_and_goes_on_waiting(desk: Desk) -> None:
    """What is open in it is not part of the fork, which asks by itself."""
    first = desk.asked("a")
    forked = first.fork(1, prompt="b|c")
    desk.do(forked.id, "1/model")
    assert (["b", "c"], ["a"]) == (
        [each.arguments["text"] for each in forked.pending()[0].calls],
        [each.arguments["text"] for each in first.pending()[0].calls],
    )


def test_a_fork_is_for_the_same_tenant_and_user(desk: Desk) -> None:
    handle = desk.client.submit("say a", agent="worker", tenant_id="acme", user_id="ann")
    row = desk.journal.run(handle.fork(1).id)
    assert ("acme", "ann") == (row.tenant_id, row.user_id)


def test_what_cannot_be_forked_leaves_nothing_behind(desk: Desk) -> None:
    handle = asked_and_saved(desk)
    with pytest.raises(RunStateError, match="has the turns 1 to 2; it has no turn 3"):
        handle.fork(3)
    with pytest.raises(RunNotFound):
        desk.client.fork(str(uuid.uuid4()), 1)
    assert 1 == len(desk.journal.list_runs())


def test_a_sub_run_is_forked_with_its_root(desk: Desk) -> None:
    """It has no life of its own: its blackboard, and who waits for it, are the root's."""
    root, child = str(uuid.uuid4()), str(uuid.uuid4())
    start = RunStarted(prompt="x", definition=ASKING, blackboard=root)
    for run_id, parent in ((root, None), (child, root)):
        new = root_run(RunPlace(run_id=run_id, root_run_id=root), start, task_id=run_id)
        desk.journal.open_run(
            replace(new, parent_run_id=parent, step_in_parent=parent and "1/sub/0")
        )
    with pytest.raises(RunStateError, match=f"is a sub-run: fork {root}, its root"):
        desk.client.fork(child, 1)


def test_a_run_is_opened_for_the_tenant_and_the_user_that_are_named(desk: Desk) -> None:
    """And under its id there is none for anybody else."""
    handle = desk.client.submit("x", agent="worker", run_id="r", tenant_id="acme", user_id="ann")
    row = desk.journal.run(handle.id, tenant="acme")
    assert ("acme", "ann") == (row.tenant_id, row.user_id)
    with pytest.raises(RunStateError, match="another prompt, agent or tenant"):
        desk.client.submit("x", agent="worker", run_id="r", tenant_id="other")
    with pytest.raises(ConfigError, match="user_id must be printable"):
        desk.client.submit("x", agent="worker", user_id="\0")
