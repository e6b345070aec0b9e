"""What the command line costs before it does anything: CPU and memory of whole processes."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.report import Found
from benchmarks.rig import model_server

ROUNDS = 7
LIBRARIES = """
import asyncio, click, rich.live, httpx2, pydantic, jsonschema

async def main():
    async with httpx2.AsyncClient():
        pass

asyncio.run(main())
"""
# A child's peak memory begins with that of the process it was forked from: this one is small.
LAUNCHER = """
import json, os, subprocess, sys
command = json.load(sys.stdin)
nothing = subprocess.DEVNULL
child = subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing)
_, status, usage = os.wait4(child.pid, 0)
assert status == 0, status
print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
"""


def measure() -> list[Found]:
    """All rows of this module."""
    with model_server() as url, tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "heartbit.toml")
        config.write_text(
            f'[provider]\nname = "openai"\nmodel = "m"\nbase_url = "{url}/v1"\napi_key = "none"\n'
        )
        ours = ["-m", "heartbit"]
        run = [*ours, "run", "--config", str(config), "turns=1 pad=0"]
        commands = (["-c", "pass"], [*ours, "--help"], ["-c", LIBRARIES], run)
        taken = [[_spent(command) for command in commands] for _ in range(ROUNDS)]
    sides = [_medians(side) for side in zip(*taken, strict=True)]
    (empty, _), (shown, _), (libraries, libraries_mib), (whole, whole_mib) = sides
    return [
        Found("help", empty, shown, shown),
        Found("start", libraries, whole, whole - libraries),
        Found("start_memory", libraries_mib, whole_mib, whole_mib - libraries_mib),
    ]


def _spent(arguments: list[str]) -> tuple[float, float]:
    """Milliseconds of CPU and MiB at the most of one python process."""
    output = subprocess.run(
        [sys.executable, "-S", "-E", "-c", LAUNCHER],
        input=json.dumps([sys.executable, *arguments]),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    seconds, mib = output.split()
    return float(seconds) * 1000, float(mib)


def _medians(values: tuple[tuple[float, float], ...]) -> tuple[float, float]:
    milliseconds, mib = zip(*values, strict=True)
    return statistics.median(milliseconds), statistics.median(mib)
