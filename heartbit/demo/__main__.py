"""`python -m heartbit.demo [PROMPT]`: the main job on demo.toml, through the real command line.

With an API key in the environment the real provider answers; without one a script does.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from heartbit.cli import main
from heartbit.config.environment import PROVIDER_KEYS

PROMPT = "What is the number of the day, and what are its prime factors?"
CONFIG = Path(__file__).with_name("demo.toml")


def arguments(prompt: str) -> list[str]:
    """The command line of the demo."""
    flags = ["run", "--config", str(CONFIG)]
    if not any(os.environ.get(variable) for variable in PROVIDER_KEYS.values()):
        print(  # noqa: T201 - the command line is not running yet
            "No API key in the environment: a scripted model answers. Set ANTHROPIC_API_KEY, "
            "OPENROUTER_API_KEY or OPENAI_API_KEY for a real one.",
            file=sys.stderr,
        )
        flags += ["--provider", "scripted"]
    return [*flags, "--", prompt]


if __name__ == "__main__":
    # The demo's MCP server is started as `python`: that must be the one which has heartbit.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    given = " ".join(sys.argv[1:]).strip() or os.environ.get("PROMPT", "").strip()
    sys.exit(main(arguments(given or PROMPT)))
