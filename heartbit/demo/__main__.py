"""`python -m heartbit.demo [PROMPT]`: the main job of demo.toml as a durable run, on one machine.

It starts PostgreSQL, Valkey and a Celery worker, submits the job and shows it as it happens. With
an API key in the environment the real provider answers; without one a script does.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from heartbit.cli.exits import OF_STATUS
from heartbit.config.environment import PROVIDER_KEYS
from heartbit.demo.stage import Stage, open_stage
from heartbit.errors import HeartbitError

PROMPT = "What is the number of the day, and what are its prime factors?"
CONFIG = Path(__file__).with_name("demo.toml")


def main(prompt: str) -> int:
    """Do it, and give the exit code of the run."""
    say("Starting PostgreSQL, Valkey and a Celery worker, for this run only ...")
    with open_stage(CONFIG, environment()) as stage:
        stage.start_worker("worker")
        return follow(stage, stage.heartbit("submit", "--", prompt)["run_id"])


def environment() -> dict[str, str]:
    """What the processes of the demo need besides the servers."""
    # The demo's MCP server is started as `python`: that must be the one which has heartbit.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    if any(os.environ.get(variable) for variable in PROVIDER_KEYS.values()):
        return {"PATH": path}
    say(
        "No API key in the environment: a scripted model answers. Set ANTHROPIC_API_KEY, "
        "OPENROUTER_API_KEY or OPENAI_API_KEY for a real one."
    )
    return {"PATH": path, "HEARTBIT_PROVIDER": "scripted"}


def follow(stage: Stage, run_id: str) -> int:
    """Show a run as it happens, the answer on stdout, and give its exit code."""
    say(f"Submitted as run {run_id}; every turn and every tool call is a Celery task.")
    stage.show("watch", run_id)
    return OF_STATUS[stage.heartbit("result", run_id)["status"]]


def say(line: str) -> None:
    """Tell the person; stdout is the answer's."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - the demo is its output


if __name__ == "__main__":
    given = " ".join(sys.argv[1:]).strip() or os.environ.get("PROMPT", "").strip()
    try:
        sys.exit(main(given or PROMPT))
    except HeartbitError as error:
        sys.exit(f"error: {error.message}")
    except KeyboardInterrupt:
        sys.exit(3)
