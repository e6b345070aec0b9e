"""Flower, as it is: what it shows of a run."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.repository import ROOT
from tests.support.workers import SECONDS, addresses, run, worker

pytestmark = pytest.mark.slow

EXAMPLE = ROOT / "examples" / "celery_tools"
SUBMIT = """
import heartbit
run = heartbit.submit("Remind whoever owes us invoice 4711.", run_id={run_id!r})
print(run.result(timeout=20).status)
"""
DELAY = """
from heartbit.tasks import run_agent
run = run_agent.apply_async(["Remind whoever owes us invoice 4711."], task_id={run_id!r})
print(run.get(timeout=20)["status"])
"""


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def get(url: str) -> Any:
    """What a JSON address gives; nothing while nobody answers there."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)
    except (urllib.error.URLError, ConnectionError):
        return None


@contextmanager
def flower(environ: Mapping[str, str], log: Path) -> Iterator[str]:
    """A Flower that listens; gives its address."""
    port = free_port()
    options = [f"--port={port}", "--address=127.0.0.1"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "heartbit", "flower", *options],
            cwd=EXAMPLE,
            env={**environ, "FLOWER_UNAUTHENTICATED_API": "true"},
            stdout=out,
            stderr=out,
        )
        try:
            address = f"http://127.0.0.1:{port}/api"
            until(lambda: get(f"{address}/tasks") is not None, log)
            yield address
        finally:
            process.terminate()
            process.wait(SECONDS)


def until(condition: Any, log: Path) -> Any:
    """Wait for what must come."""
    end = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < end, log.read_text(errors="replace")
        time.sleep(0.1)
    return found


@pytest.mark.parametrize(
    ("program", "number"), [(SUBMIT, 9), (DELAY, 10)], ids=["submitted", "a task"]
)
def test_flower_lists_the_turns_and_tool_calls_of_a_run_under_its_root(
    valkey: str, postgres: str, tmp_path: Path, program: str, number: int
) -> None:
    """With the agent, the turn and the tool in place of ids, and no text of the model."""
    environ, run_id = addresses(valkey, postgres, 8, EXAMPLE), str(uuid.uuid4())
    log = tmp_path / "flower.log"
    options = ("-P", "threads", "-c", "4", "-E")
    with (
        worker("heartbit", environ, EXAMPLE, tmp_path / "heartbit.log", *options),
        worker("billing", environ, EXAMPLE, tmp_path / "billing.log", "-E", "-c", "1"),
        flower(environ, log) as address,
    ):
        program = program.format(run_id=run_id)
        assert "succeeded" == run("-c", program, environ=environ, folder=EXAMPLE)

        def of_the_run() -> list[dict[str, Any]]:
            tasks = get(f"{address}/tasks?limit=1000") or {}
            return [task for task in tasks.values() if task["root_id"] == run_id]

        tasks = until(lambda: (t := of_the_run()) and len(t) == number and t, log)
    turns = [task for task in tasks if task["name"] == "heartbit.llm_turn"]
    shown = sorted(task["args"] for task in turns)
    assert [f"(run={run_id} agent=clerk turn={n})" for n in (1, 2, 3)] == shown
    calls = sorted((t["name"], t["args"]) for t in tasks if t["name"].startswith("billing"))
    lookup, remind = "agent=clerk turn=1 tool=lookup_invoice", "agent=clerk turn=2 tool=remind"
    assert [
        ("billing.lookup_invoice", f"(run={run_id} {lookup})"),
        ("billing.remind", f"(run={run_id} {remind})"),
        ("billing.remind", f"(run={run_id} {remind})"),
    ] == calls
    answers = [task["args"] for task in tasks if task["name"] == "heartbit.tool_finished"]
    assert 3 == len(answers)
    assert all(re.fullmatch(rf"\(run={run_id} step=\d/tool/\d\)", each) for each in answers)
    assert {"SUCCESS", "FAILURE"} == {task["state"] for task in tasks}
    # under the id of the run there is one task: run_agent, and finish_run when it has ended
    assert number == 9 + sum(task["uuid"] == run_id for task in tasks)
    assert all(task["parent_id"] for task in tasks if task["name"] == "heartbit.tool_finished")
