"""Messages that nobody of heartbit has sent: one line in the log, and the worker goes on."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
import redis
from celery.worker import state
from kombu import Queue

from heartbit.errors import ConfigError, HeartbitError
from heartbit.tasks import run_agent
from tests.support.canvas import SECONDS, until

ID = str(uuid.uuid4())
FOREIGN: dict[str, tuple[str, list[Any], dict[str, Any], str]] = {
    "no arguments": ("heartbit.llm_turn", [], {}, "missing"),
    "too many arguments": ("heartbit.tool_call", [ID, "1/model", 3], {}, "positional"),
    "an unknown argument": ("heartbit.continue_run", [ID], {"color": "red"}, "color"),
    "an id that is none": ("heartbit.llm_turn", ["../etc", "1/model"], {}, "UUID"),
    "an id that is no text": ("heartbit.finish_run", [{"a": 1}], {}, "UUID"),
    "an unknown run": ("heartbit.continue_run", [ID], {}, "There is no run"),
    "an unknown run's end": ("heartbit.finish_run", [ID], {}, "There is no run"),
    "an unknown step": ("heartbit.llm_turn", [ID, "1/model"], {}, "There is no step"),
    "a step that is no text": ("heartbit.tool_call", [ID, {"a": 1}], {}, "There is no step"),
    "a step with NUL": ("heartbit.tool_call", [ID, "1/\0"], {}, "There is no step"),
    "an unknown sub-run": ("heartbit.run_agent", [None], {"sub_run": True}, "There is no run"),
}


def still_works() -> bool:
    """Whether the worker does what it is there for."""
    return bool(run_agent.delay("say hi", agent="worker").get(timeout=SECONDS)["result"] == "hi")


@pytest.mark.parametrize("case", FOREIGN)
def test_a_foreign_message_is_one_line_in_the_log(
    fleet: Any, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    """It is acknowledged, changes nothing, and the worker keeps running."""
    name, args, kwargs, words = FOREIGN[case]
    fleet.app.send_task(name, args=args, kwargs=kwargs, queue="heartbit.tools")
    until(lambda: [r for r in caplog.records if r.name == "heartbit.tasks"])
    [record] = [r for r in caplog.records if r.name == "heartbit.tasks"]
    assert words in record.getMessage()
    assert "\n" not in record.getMessage()
    assert "Traceback" not in caplog.text
    assert () == fleet.journal.list_runs()
    assert still_works()
    client = fleet.app.backend.client
    until(lambda: not client.hlen("unacked"))


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ("not json at all", {"id": ID, "task": "heartbit.llm_turn"}),
        ('{"no": "task"}', {}),
        ('[["x"], {}, {}]', {"id": ID, "task": "heartbit.no_such_task", "lang": "py"}),
        ('["x", [], {}]', {"id": ID, "task": "heartbit.llm_turn", "lang": "py"}),
        ("[[], [], {}]", {"id": ID, "task": "heartbit.llm_turn", "lang": "py"}),
    ],
)
def test_what_is_no_task_message_does_not_stop_the_worker(
    fleet: Any, body: str, headers: dict[str, str]
) -> None:
    """Celery throws it away."""
    with fleet.app.connection_for_write() as connection, connection.Producer() as producer:
        producer.publish(
            body,
            routing_key="heartbit.control",
            headers=headers,
            content_type="application/json",
            content_encoding="utf-8",
            declare=[Queue("heartbit.control", routing_key="heartbit.control")],
        )
    assert still_works()
    # Some of them end a thread of the pool before Celery knows of a task: it waits for ever.
    state.active_requests.clear()
    with redis.Redis.from_url(fleet.app.conf.broker_url) as client:
        client.flushall()


def test_a_caller_hears_what_is_wrong_with_the_call(fleet: Any) -> None:
    """Arguments that `run_agent` does not have, from a caller without our signature."""
    result = fleet.app.send_task("heartbit.run_agent", kwargs={"promt": "x"})
    with pytest.raises(HeartbitError, match=r"cannot be called like this.*'promt'"):
        result.get(timeout=SECONDS)


def test_a_caller_hears_of_an_unknown_agent(fleet: Any, caplog: pytest.LogCaptureFixture) -> None:
    """With the names there are, without a traceback in the worker's log, and nothing written."""
    with pytest.raises(ConfigError, match=r"no agent 'nobody'.*worker"):
        run_agent.delay("say hi", agent="nobody").get(timeout=SECONDS)
    assert () == fleet.journal.list_runs()
    assert "Traceback" not in caplog.text


def test_a_task_id_that_no_store_can_keep_is_refused(fleet: Any) -> None:
    """Not tried again for ever."""
    result = run_agent.apply_async(("say hi",), {"agent": "worker"}, task_id="half\0")
    with pytest.raises(HeartbitError, match="printable"):
        result.get(timeout=SECONDS)


def test_what_a_model_said_is_not_in_the_worker_s_log(
    fleet: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be confidential, or text that no log can be written with."""
    caplog.set_level("INFO")
    output = run_agent.delay("say hushhush", agent="worker").get(timeout=SECONDS)
    assert "hushhush" == output["result"]
    assert "succeeded" in caplog.text
    assert "hushhush" not in caplog.text


@pytest.mark.parametrize("prompt", ["say a\0b", "say \ud800", "say " + "x" * 2_000_000])
def test_any_text_is_a_prompt(fleet: Any, prompt: str, caplog: pytest.LogCaptureFixture) -> None:
    """NUL, half a character, and megabytes survive the broker and the journal."""
    caplog.set_level("WARNING")  # Celery logs results as they are, xdist cannot send such a log
    output = run_agent.delay(prompt, agent="worker").get(timeout=SECONDS)
    assert prompt.removeprefix("say ") == output["result"]
