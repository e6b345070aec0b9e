"""Where tools run: a queue of its own takes a call to the workers that read it."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import pytest

from heartbit.stores.postgres import PostgresJournal
from tests.support.canvas import until
from tests.support.workers import addresses, run, worker

pytestmark = pytest.mark.slow

CONFIG = """
[provider]
name = "scripted"
model = "tests.support.routed_agents:reply"

[[agents]]
name = "solo"
description = "Acts."
system_prompt = "Act."
tools = [
    "tests.support.routed_agents:where",
    "tests.support.routed_agents:elsewhere",
    "tests.support.routed_agents:look",
    "tests.support.routed_agents:fire",
    "tests.support.routed_agents:dawdle",
]

[[tools]]
name = "elsewhere"
queue = "gpu"

[[tools]]
name = "look"
queue = "gpu"
effect = "pure"

[[tools]]
name = "fire"
queue = "gpu"
on_doubt = "ask_human"

[[tools]]
name = "dawdle"
queue = "gpu"
timeout_seconds = 1

[database]
url = "$DATABASE_URL"

[celery]
steps = "{steps}"
lease_seconds = 1
"""
TURNS = ("-P", "threads", "-c", "4", "-Q", "heartbit.control,heartbit.start,heartbit.llm")
TOOLS = ("-P", "threads", "-c", "2", "-Q", "gpu")


@pytest.mark.parametrize(
    ("steps", "prompt"), [("each", "elsewhere"), ("batched", "elsewhere where")]
)
def test_a_tool_runs_on_the_workers_that_read_its_queue(
    valkey: str, postgres: str, tmp_path: Path, steps: str, prompt: str
) -> None:
    """The other one does the model's turns, and in a batch all tools that have no queue."""
    (tmp_path / "heartbit.toml").write_text(CONFIG.replace("{steps}", steps))
    environ = addresses(valkey, postgres, 7)
    logs = tmp_path / "turns.log", tmp_path / "tools.log"
    with (
        worker("heartbit", environ, tmp_path, logs[0], *TURNS) as turns,
        worker("heartbit", environ, tmp_path, logs[1], *TOOLS) as tools,
    ):
        submit = ("-m", "heartbit", "submit", "--wait", prompt)
        said = run(*submit, environ=environ, folder=tmp_path)
    expected = {"elsewhere": tools.pid, "where": turns.pid}
    assert "|".join(str(expected[name]) for name in prompt.split()) == said
    assert {"heartbit.tool_call"} == received(logs[1])
    assert "heartbit.tool_call" not in received(logs[0])


def received(log: Path) -> set[str]:
    """The Celery tasks that came to a worker."""
    return set(re.findall(r"Task (\S+)\[\S+\] received", log.read_text()))


def test_the_options_of_a_tool_decide_what_becomes_of_its_calls(
    valkey: str, postgres: str, tmp_path: Path
) -> None:
    """Killed in three calls: one is begun again, one is asked about, and one had its time."""
    (tmp_path / "heartbit.toml").write_text(CONFIG.replace("{steps}", "each"))
    environ = addresses(valkey, postgres, 7)
    logs = [tmp_path / f"{name}.log" for name in ("turns", "first", "second")]
    journal = PostgresJournal(postgres)
    with closing(journal), worker("heartbit", environ, tmp_path, logs[0], *TURNS):
        with worker("heartbit", environ, tmp_path, logs[1], *TOOLS, "-c", "3") as first:
            submit = ("-m", "heartbit", "submit", "look fire dawdle")
            run_id = run(*submit, environ=environ, folder=tmp_path)
            until(lambda: {"look", "fire", "dawdle"} <= set(begun(tmp_path)))
            until(lambda: [e for e in journal.events(run_id) if e.type == "tool_returned"])
            first.kill()
            first.wait()
        with worker("heartbit", environ, tmp_path, logs[2], *TOOLS):
            until(lambda: 2 == begun(tmp_path).count("look"))
            (tmp_path / "go").touch()
            until(lambda: "waiting" == journal.run(run_id).status)
        [question] = journal.open_approvals()
        returned = {e.step: e for e in journal.events(run_id) if e.type == "tool_returned"}
    assert ["fire"] == [call.name for call in question.calls]
    assert ["dawdle", "fire", "look", "look"] == sorted(begun(tmp_path))
    assert "look done" == returned["1/tool/0"].content
    assert "timed out after 1 seconds" in returned["1/tool/2"].content


def begun(folder: Path) -> list[str]:
    """The calls that a worker has begun."""
    lines = folder / "begun"
    return lines.read_text().split() if lines.exists() else []
