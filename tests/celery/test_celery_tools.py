"""Celery tasks of a host as tools, with a real worker, broker and journal."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import product
from typing import Any

import pytest
from celery import Celery, _state
from celery.app.routes import MapRoute
from celery.signals import worker_ready

from heartbit import Agent, Orchestrator, ScriptedProvider, tasks
from heartbit import runtime as process
from heartbit.core.events import LateResult, ToolReturned
from heartbit.core.messages import ToolResult
from heartbit.core.request import ModelRequest
from heartbit.engines.ids import external_task_id
from heartbit.errors import ConfigError, JournalUnavailable
from heartbit.loop import background_loop, stop_background_loop
from heartbit.outbox import TOOL_FINISHED, CeleryOutbox
from heartbit.providers.scripted import Reply, call
from heartbit.runtime import Runtime
from heartbit.stores.postgres import PostgresJournal
from heartbit.tasks import run_agent
from heartbit.tools.celery_task import celery_task
from heartbit.tools.registry import ToolOptions
from tests.support import canvas
from tests.support.canvas import SECONDS, until

RESULTS: dict[str, Any] = {
    "text": "four",
    "nothing": None,
    "number": 4,
    "list": [{"a": [1, 2.5, None, True]}],
    "NUL": "a\0b",
    "half a character": "a\ud800b",
    "half a character inside": {"a": "\ud800"},
    "time": datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
    "10 MB": "x" * 10_000_000,
}
SHOWN = {
    "nothing": "",
    "number": "4",
    "list": '[{"a":[1,2.5,null,true]}]',
    "half a character inside": "{'a': '\\ud800'}",
    "time": '"2026-01-02T03:04:00Z"',
}
OBJECT = {"type": "object"}
OPTIONS = (
    ToolOptions(name="celery:host.slow", timeout_seconds=1.5),
    ToolOptions(name="celery:host.unheard_of", input_schema=OBJECT, description="Who knows."),
    ToolOptions(name="celery:host.dropped", effect="pure"),
)


@dataclass
class Host:
    """What the tasks of the host and a test share."""

    app: Celery
    began: list[Any] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    end: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        app, began = self.app, self.began

        @app.task(name="host.give", shared=False)
        def give(what: str, times: int = 1) -> Any:
            """Give something.

            Args:
                what: its name
            """
            return RESULTS[what]

        @app.task(name="host.forget", ignore_result=True, shared=False)
        def forget(what: str) -> str:
            return what

        @app.task(name="host.fail", shared=False)
        def fail(how: str) -> None:
            raise ValueError(how)

        @app.task(name="host.opaque", shared=False)
        def opaque() -> object:
            began.append("opaque")
            return object()

        @app.task(name="host.again", bind=True, shared=False)
        def again(self: Any, word: str) -> str:
            began.append(self.request.id)
            if self.request.retries == 0:
                raise self.retry(countdown=0)
            return f"{word}!"

        @app.task(name="host.slow", shared=False)
        def slow() -> str:
            began.append("slow")
            self.gate.wait(SECONDS)
            return "at last"

        @app.task(name="host.hold", shared=False)
        def hold() -> str:
            self.end.wait(SECONDS)
            return "held"

        @app.task(name="host.dropped", shared=False)
        def dropped() -> str:
            began.append("dropped")
            return "kept"


STEPS = ("1/model", "1/tool/0", "\0", {"a": 1})
TOOLS = ("give", "forget", "fail", "opaque", "again", "slow", "hold", "unheard_of", "dropped")


def reply(request: ModelRequest) -> Reply:
    """Call what the prompt says in JSON, then say what came back."""
    parts = [part for message in request.messages for part in message.parts]
    results = [part for part in parts if isinstance(part, ToolResult)]
    if results:
        return "|".join(f"{'ERROR ' * r.is_error}{r.content}" for r in results)
    return [call(name, **arguments) for name, arguments in json.loads(request.messages[0].text)]


@dataclass(frozen=True)
class Fleet:
    """A worker with the host's tasks and an agent that may call them."""

    host: Host
    runtime: Runtime

    def run(self, *calls: tuple[str, dict[str, Any]]) -> str:
        """What the agent says about the results of these calls."""
        return str(self.start(*calls).get(timeout=SECONDS)["result"])

    def start(self, *calls: tuple[str, dict[str, Any]]) -> Any:
        """The run, under way."""
        return run_agent.delay(json.dumps(calls), agent="caller")


@pytest.fixture(scope="module")
def _fleet(valkey_server: str, _postgres_database: str) -> Iterator[Fleet]:
    app = canvas.host_app(f"{valkey_server.rpartition('/')[0]}/3")
    app.set_current()
    host = Host(app)
    loop, stack = background_loop(), AsyncExitStack()
    orchestrator = Orchestrator(
        provider=ScriptedProvider(reply),
        agents=[
            Agent(
                name="caller", description="Calls.", tools=[f"celery:host.{each}" for each in TOOLS]
            )
        ],
        tool_options=OPTIONS,
        celery_tasks=celery_task,
    )
    runtime = Runtime(
        journal=PostgresJournal(_postgres_database),
        outbox=CeleryOutbox(),
        orchestrator=loop.run(stack.enter_async_context(orchestrator)),
        resources=stack,
        loop=loop,
        lease_seconds=1,
    )
    tasks.use(runtime)
    state: Any = _state
    try:
        with canvas.worker(app):
            worker_ready.send(sender=app)
            yield Fleet(host, runtime)
    finally:
        host.gate.set()
        process.close()
        stop_background_loop()
        canvas.close(app)
        state._tls.current_app = state.default_app = None


@pytest.fixture
def fleet(_fleet: Fleet, postgres: str) -> Iterator[Fleet]:
    """The same, without what tests before have left."""
    _fleet.host.began.clear()
    _fleet.host.gate.clear()
    _fleet.host.end.clear()
    yield _fleet
    _fleet.host.gate.set()
    _fleet.host.end.set()


@pytest.mark.parametrize(
    "what", [pytest.param(r, marks=pytest.mark.slow if r == "10 MB" else ()) for r in RESULTS]
)
def test_whatever_a_task_returns_is_text_for_the_model(fleet: Fleet, what: str) -> None:
    """JSON where it is no text already; nothing of it gets lost on its way."""
    expected = SHOWN.get(what, RESULTS[what])
    assert expected == fleet.run(("give", {"what": what}))


def test_the_tools_of_a_turn_are_called_together_and_answered_in_their_order(fleet: Fleet) -> None:
    """Each in a message of its own."""
    said = fleet.run(("forget", {"what": "a"}), ("give", {"what": "text"}), ("fail", {"how": "so"}))
    assert "a|four|ERROR ValueError: so" == said


def test_a_failure_is_one_line(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    """The class and what it says, no traceback, and not without end."""
    assert "ERROR ValueError: two lines" == fleet.run(("fail", {"how": "two\nlines"}))
    assert "ERROR ValueError" == fleet.run(("fail", {"how": ""}))
    assert 5000 > len(fleet.run(("fail", {"how": "x" * 100_000})))
    assert not [r for r in caplog.records if r.name.startswith("heartbit")]


def test_a_result_that_is_no_json_is_an_error_that_says_so(fleet: Fleet) -> None:
    """The model must not think that nothing was done."""
    said = fleet.run(("opaque", {}))
    assert said.startswith("ERROR The Celery task was done, but its result cannot be sent as JSON")
    assert ["opaque"] == fleet.host.began


def test_a_task_may_retry_by_itself(fleet: Fleet) -> None:
    """Its callbacks go along; a bound task has no argument more."""
    assert "hey!" == fleet.run(("again", {"word": "hey"}))
    assert 2 == len(fleet.host.began)
    assert 1 == len(set(fleet.host.began))


def test_arguments_are_checked_before_anything_is_sent(fleet: Fleet) -> None:
    """As for every tool: the schema is that of the signature."""
    assert "ERROR Input validation failed" in fleet.run(("give", {"what": 4}))


def test_a_worker_that_sends_calls_listens_for_none_of_them(fleet: Fleet) -> None:
    """Celery subscribes whoever sends a task to its result, and that would never end."""
    run = fleet.start(("forget", {"what": "x"}))
    assert "x" == run.get(timeout=SECONDS)["result"]
    backend: Any = fleet.host.app.backend
    consumer = backend.result_consumer
    task_id = external_task_id(run.id, "1/tool/0", 0)
    assert not [key for key in consumer.subscribed_to if task_id in str(key)]


@pytest.mark.slow
def test_a_task_that_no_worker_knows_is_an_error(fleet: Fleet) -> None:
    """Celery throws its message away and notes so in the result backend, where the sweep looks."""
    said = fleet.run(("unheard_of", {"a": 1}))
    assert said.startswith("ERROR NotRegistered: ")
    assert "host.unheard_of" in said


@pytest.mark.slow
def test_a_task_that_takes_too_long_is_given_up(fleet: Fleet) -> None:
    """No worker of ours waits, and the model hears of it."""
    said = fleet.run(("slow", {}))
    assert "host.slow did not answer within 1.5 seconds. It may still take effect" in said
    assert ["slow"] == fleet.host.began


@pytest.mark.slow
def test_a_revoked_task_is_an_error(fleet: Fleet) -> None:
    """Celery calls nobody back then: the sweep finds out."""
    app = fleet.host.app
    run_id = str(uuid.uuid4())
    app.control.revoke(external_task_id(run_id, "1/tool/0", 0), reply=True, timeout=1)
    run = run_agent.apply_async(
        [json.dumps([("give", {"what": "text"})])], {"agent": "caller"}, task_id=run_id
    )
    said = run.get(timeout=SECONDS)["result"]
    assert "ERROR The Celery task was revoked: it was not done." == said


@pytest.mark.slow
def test_a_task_whose_message_is_lost_is_sent_again_if_that_does_no_harm(fleet: Fleet) -> None:
    """The broker has forgotten it, and nobody has begun it."""
    outbox, lost = fleet.runtime.engine._outbox, []
    steps = outbox.steps

    def lose_the_first(dispatches: Any) -> None:
        external = [each for each in dispatches if each.call]
        if external and not lost:
            lost.extend(external)
        else:
            steps(dispatches)

    outbox.steps = lose_the_first  # type: ignore[method-assign]
    try:
        assert "kept" == fleet.run(("dropped", {}))
    finally:
        outbox.steps = steps  # type: ignore[method-assign]
    assert ["dropped"] == fleet.host.began
    assert 1 == len(lost)


@pytest.mark.slow
def test_a_lost_callback_is_made_up_for(fleet: Fleet) -> None:
    """The result is in the backend."""
    callback: Any = fleet.host.app.tasks[TOOL_FINISHED]
    send, callback.apply_async = callback.apply_async, lambda *_, **__: None
    try:
        assert "four" == fleet.run(("give", {"what": "text"}))
    finally:
        callback.apply_async = send


def test_an_answer_waits_in_its_queue_while_the_journal_is_away(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be known to nobody else."""
    monkeypatch.setattr(tasks, "PAUSE_SECONDS", 0.01)
    external, left = fleet.runtime.engine.external, [3]
    finished = external.finished

    def refuse(*args: Any, **kwargs: Any) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise JournalUnavailable("The database is starting up; try again in a moment.")
        finished(*args, **kwargs)

    monkeypatch.setattr(external, "finished", refuse)
    assert "so" == fleet.run(("forget", {"what": "so"}))
    assert 3 == caplog.text.count("waits in its queue: The database is starting up")
    assert "Traceback" not in caplog.text


def test_an_eager_run_refuses_celery_tasks(fleet: Fleet) -> None:
    """It is over when the call returns, and nobody could have answered."""
    with pytest.raises(ConfigError, match="Celery tasks are tools of durable runs only"):
        run_agent.apply(["[]"], {"agent": "caller"}).get()


def test_it_is_known_whether_the_broker_can_be_reached(fleet: Fleet) -> None:
    """The discard port is no broker."""
    outbox = CeleryOutbox()
    assert outbox.reachable()
    app = canvas.host_app("redis://127.0.0.1:9/0")
    state: Any = _state
    before = state._tls.current_app
    app.set_current()
    try:
        assert not outbox.reachable()
        outbox.revoke(["a task"])
        assert "unknown" == outbox.answer("a task").state
    finally:
        state._tls.current_app = before
        app.close()


@pytest.mark.slow
def test_the_end_of_a_run_recalls_what_has_not_begun(fleet: Fleet) -> None:
    """The worker throws the task away."""
    run = fleet.start(("slow", {}))
    until(lambda: ["slow"] == fleet.host.began)
    task_id = external_task_id(run.id, "1/tool/0", 0)
    fleet.runtime.engine.cancel(run.id)
    until(lambda: "cancelled" == fleet.runtime.journal.run(run.id).status)
    inspect = fleet.host.app.control.inspect(timeout=1)
    until(lambda: task_id in str(inspect.revoked()))


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ([], {"error": "\0\ud800" * 100}),
        (["forged"], {}),
        (["forged", "twice"], {}),
        (["forged"], {"attempt": 10**40}),
        (["forged"], {"attempt": "x"}),
        (["forged"], {"attempt": None}),
        ([], {}),
        ([str(uuid.uuid4())], {"failed": True}),
        (["a", "b", "c"], {"failed": True}),
        ([{"deep": ["x" * 1_000_000]}], {}),
        (["\0\ud800"], {}),
    ],
)
def test_a_forged_answer_changes_nothing(
    fleet: Fleet, caplog: pytest.LogCaptureFixture, args: Any, kwargs: Any
) -> None:
    """Of a run that exists and one that does not; the worker keeps running."""
    run = fleet.start(("forget", {"what": "true"}))
    assert "true" == run.get(timeout=SECONDS)["result"]
    before = fleet.runtime.journal.events(run.id)
    for run_id, step in product((run.id, str(uuid.uuid4()), None), STEPS):
        about = {"run_id": run_id, "step": step}
        fleet.host.app.send_task(
            TOOL_FINISHED, args=args, kwargs=kwargs | about, queue="heartbit.control"
        )
    assert "four" == fleet.run(("give", {"what": "text"}))
    assert before == fleet.runtime.journal.events(run.id)
    assert "Traceback" not in caplog.text
    assert all("\n" not in r.getMessage() for r in caplog.records if "heartbit" in r.name)


@pytest.mark.slow
def test_an_answer_that_comes_too_late_is_kept_for_the_record(fleet: Fleet) -> None:
    """The task that was given up ends after all, while its run still goes on."""
    run, journal = fleet.start(("slow", {}), ("hold", {})), fleet.runtime.journal

    def events(kind: type[Any]) -> list[Any]:
        return [event for event in journal.events(run.id) if isinstance(event, kind)]

    until(lambda: events(ToolReturned))
    fleet.host.gate.set()
    [late] = until(lambda: events(LateResult))
    assert ("1/tool/0", "at last") == (late.late_step, late.outcome["content"])
    fleet.host.end.set()
    assert run.get(timeout=SECONDS)["result"].endswith("|held")


class TestTheDescription:
    """What a model is told about a task."""

    def test_it_comes_from_the_signature_and_the_docstring(self, fleet: Fleet) -> None:
        """With the code of `@heartbit.tool`."""
        spec = celery_task("celery:host.give").spec
        assert ("give", "Give something.", "celery:host.give") == (
            spec.name,
            spec.description,
            spec.ref,
        )
        assert {
            "what": {"type": "string", "description": "its name"},
            "times": {"type": "integer", "default": 1},
        } == spec.input_schema["properties"]
        assert ("at_most_once", None) == (spec.effect, spec.queue)

    def test_a_bound_task_keeps_its_self_for_itself(self, fleet: Fleet) -> None:
        """A model knows nothing of it."""
        assert ["word"] == list(celery_task("celery:host.again").spec.input_schema["properties"])

    def test_a_task_that_nobody_here_knows_must_be_described(self, fleet: Fleet) -> None:
        """The error says how."""
        with pytest.raises(ConfigError) as raised:
            celery_task("celery:billing.tasks.pay")
        assert (
            "Tool celery:billing.tasks.pay: This process does not know the task, nor what "
            'arguments it takes. Write [[tools]] with name = "celery:billing.tasks.pay", '
            "input_schema = {...} and, where needed, queue; or have the Celery app import the "
            "task's module (its `include`)."
        ) == raised.value.message
        options = ToolOptions(name="celery:billing.tasks.pay", input_schema=OBJECT)
        assert OBJECT == celery_task("celery:billing.tasks.pay", options).spec.input_schema

    def test_a_task_without_type_hints_must_be_described(self, fleet: Fleet) -> None:
        """Its parameters say nothing to a model."""

        @fleet.host.app.task(name="host.untyped", shared=False)
        def untyped(a, b=1):  # type: ignore[no-untyped-def]
            return a

        with pytest.raises(ConfigError, match=r"celery:host\.untyped: give the parameter a a type"):
            celery_task("celery:host.untyped")

    def test_an_app_that_would_send_it_to_us_must_be_told_where_to(self, fleet: Fleet) -> None:
        """heartbit's own app does: its workers would throw the task away."""
        app: Any = Celery("own", set_as_current=False, broker="memory://")
        app.conf.task_default_queue = "heartbit.control"
        state: Any = _state
        before = state._tls.current_app
        app.set_current()
        try:
            options = ToolOptions(name="x", input_schema=OBJECT)
            with pytest.raises(ConfigError, match="No route says which queue"):
                celery_task("celery:billing.pay", options)
            routed = ToolOptions(name="x", input_schema=OBJECT, queue="billing")
            assert "billing" == celery_task("celery:billing.pay", routed).spec.queue
            app.amqp.router.routes = [MapRoute({"billing.*": {"queue": "there"}})]
            assert celery_task("celery:billing.pay", options).spec.queue is None
        finally:
            state._tls.current_app = before
            app.close()
