"""`make run`: the main job as a durable run, as its program and on its configuration."""

from __future__ import annotations

import asyncio
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from heartbit.config import load
from heartbit.core.messages import Json
from heartbit.demo.__main__ import CONFIG
from heartbit.wiring import open_orchestrator
from tests.support.model_server import ModelServer, Reply

PROMPT = 'What is it? "It\'s" $HOME & more'


def demo(prompt: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The program, without any key of the person who runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    return subprocess.run(
        [sys.executable, "-m", "heartbit.demo", prompt],
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


@pytest.mark.slow
def test_without_a_key_a_script_answers_with_what_real_tools_found() -> None:
    """The number is the MCP server's, drawn at its start; its factors a function tool's."""
    first, second = demo(PROMPT), demo(PROMPT)
    assert (0, 0) == (first.returncode, second.returncode)
    assert "No API key in the environment: a scripted model answers" in first.stderr
    assert f"You asked: {PROMPT}" in first.stdout
    drawn = re.search(r"drew the number (\d{6}) when", first.stdout)
    computed = re.search(r"computed from it: (\d+) = ([\d x]+)\.", first.stdout)
    assert drawn is not None
    assert computed is not None
    assert drawn[1] == computed[1]
    assert int(drawn[1]) == math.prod(int(factor) for factor in computed[2].split(" x "))
    assert first.stdout != second.stdout


@pytest.mark.slow
def test_both_sub_agents_start_before_either_has_finished(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Parallel means at the same time."""
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    entries: list[Json] = []

    async def main() -> None:
        config = load(CONFIG, {}, overrides={"provider.name": "scripted"}).config
        async with open_orchestrator(config, on_event=entries.append) as orchestrator:
            await orchestrator.run("Go.")

    asyncio.run(main())
    lives = [
        (entry["type"], entry["agent"])
        for entry in entries
        if entry["parent_run_id"] and entry["type"] in ("run_started", "run_finished")
    ]
    started = {("run_started", "researcher"), ("run_started", "analyst")}
    assert started == set(lives[:2])
    assert 4 == len(lives)


@pytest.mark.slow
def test_with_a_key_the_real_adapter_sends_the_prompt() -> None:
    """The same agents, another provider."""
    with ModelServer([Reply(text="A real answer.")]) as server:
        done = demo(PROMPT, ANTHROPIC_API_KEY="test-key", HEARTBIT_BASE_URL=server.url)
    assert (0, "A real answer.\n") == (done.returncode, done.stdout)
    assert "scripted" not in done.stderr
    assert "every turn and every tool call is a Celery task" in done.stderr
    [message] = server.requests[0].json["messages"]
    assert PROMPT == message["content"][0]["text"]
    assert "test-key" == server.requests[0].headers["x-api-key"]
