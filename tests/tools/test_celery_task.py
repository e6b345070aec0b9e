"""Celery tasks where nobody could wait for them: in one process, without a fleet."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from heartbit import Agent, Orchestrator, ScriptedProvider
from heartbit.core.tools import ToolSpec
from heartbit.errors import ConfigError, ToolError
from heartbit.tools.base import ToolContext
from heartbit.tools.celery_task import CeleryTaskTool
from heartbit.tools.registry import ToolOptions
from tests.support.command_line import environment

REFERENCE = "celery:billing.lookup"
REMEDY = "Celery tasks are tools of durable runs only"
TOOL = CeleryTaskTool(
    spec=ToolSpec(name="lookup", description="", input_schema={"type": "object"}, ref=REFERENCE)
)
CONFIG = f"""
[provider]
name = "scripted"

[[agents]]
name = "clerk"
description = "d"
system_prompt = "s"
tools = ["{REFERENCE}"]

[[tools]]
name = "{REFERENCE}"
input_schema = {{ type = "object" }}
"""
PROGRAM = """
import sys
from heartbit.cli import main
sys.argv = ["heartbit", "run", "Go."]
try:
    sys.exit(main())
finally:
    print("celery" in sys.modules)
"""


def test_heartbit_run_says_what_to_do_instead_and_imports_no_celery(tmp_path: Path) -> None:
    """A mistake in the configuration, exit code 2."""
    (tmp_path / "heartbit.toml").write_text(CONFIG)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env=environment({}),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (2, "False") == (done.returncode, done.stdout.strip())
    assert f"Tool {REFERENCE}: {REMEDY}" in done.stderr
    assert "heartbit submit" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("knows_celery", [False, True])
def test_a_run_in_one_process_refuses_them_before_it_starts(knows_celery: bool) -> None:
    """Also in a process that is made for durable runs: an eager one is in this process, too."""
    orchestrator = Orchestrator(
        provider=ScriptedProvider(["never asked"]),
        agents=[Agent(name="clerk", tools=[REFERENCE])],
        celery_tasks=(lambda reference, options: TOOL) if knows_celery else None,
    )
    with pytest.raises(ConfigError, match=f"Tool {REFERENCE}: {REMEDY}"):
        asyncio.run(orchestrator.run("Go."))


def test_the_options_of_a_task_are_found_by_its_reference_and_by_its_name() -> None:
    """They are asked for when the task is looked up, and hold for what is found."""
    for name in (REFERENCE, "lookup"):
        options = ToolOptions(name=name, effect="pure", timeout_seconds=5, description="Look.")
        asked = []

        def look_up(reference: str, options: ToolOptions | None) -> CeleryTaskTool:
            asked.append((reference, options))  # noqa: B023 - called before the next round
            return TOOL

        orchestrator = Orchestrator(
            provider=ScriptedProvider([]),
            agents=[Agent(name="clerk", tools=[REFERENCE])],
            tool_options=[options],
            celery_tasks=look_up,
        )
        [spec] = asyncio.run(orchestrator.resolve("clerk")).definition.tools
        assert ("pure", 5, "Look.") == (spec.effect, spec.timeout_seconds, spec.description)
        assert [(REFERENCE, options if name == REFERENCE else None)] == asked


def test_it_cannot_be_transactional() -> None:
    """It runs in a process that has no part in our transactions."""
    orchestrator = Orchestrator(
        provider=ScriptedProvider([]),
        agents=[Agent(name="clerk", tools=[REFERENCE])],
        tool_options=[ToolOptions(name=REFERENCE, effect="transactional")],
        celery_tasks=lambda reference, options: TOOL,
    )
    with pytest.raises(ConfigError, match="effect = transactional is for plain def functions only"):
        asyncio.run(orchestrator.resolve("clerk"))


def test_whoever_calls_it_all_the_same_is_told_the_remedy() -> None:
    """It never runs here."""
    with pytest.raises(ToolError, match=REMEDY):
        asyncio.run(TOOL.call({}, ToolContext()))
