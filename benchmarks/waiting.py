"""What a run costs that waits for its model: memory of one process that holds a thousand of them.

python -m benchmarks.waiting heartbit http://127.0.0.1:4711     # prints KiB per run, seconds
"""

from __future__ import annotations

import asyncio
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.clients import Client, ask, bare_client, heartbit_client
from benchmarks.report import Found
from benchmarks.rig import model_server

RUNS = 1000
LATENCY_SECONDS = 2.0
SAMPLE_SECONDS = 0.05
REPETITIONS = 3


def measure() -> list[Found]:
    """All rows of this module, each side in fresh processes."""
    with model_server(LATENCY_SECONDS) as url:
        taken = [(_child("bare", url), _child("heartbit", url)) for _ in range(REPETITIONS)]
    (bare, bare_wall), (ours, ours_wall) = (
        map(statistics.median, zip(*side, strict=True)) for side in zip(*taken, strict=True)
    )
    return [
        Found("waiting", bare, ours, ours),
        Found("waiting_wall", bare_wall, ours_wall, ours_wall),
    ]


def _child(side: str, url: str) -> tuple[float, float]:
    command = [sys.executable, "-m", "benchmarks.waiting", side, url]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    kib, seconds = output.split()
    return float(kib), float(seconds)


async def _hold(side: str, url: str) -> tuple[float, float]:
    """KiB per run above the first, and the seconds until all are done."""
    async with (heartbit_client if side == "heartbit" else bare_client)(url) as client:
        alone, _ = await _peak(client, 1)
        together, seconds = await _peak(client, RUNS)
    return (together - alone) / (RUNS - 1), seconds


async def _peak(client: Client, runs: int) -> tuple[float, float]:
    start = time.perf_counter()
    work = asyncio.gather(*(ask(client, 1) for _ in range(runs)))
    peak = _resident_kib()
    while not work.done():
        await asyncio.wait([work], timeout=SAMPLE_SECONDS)
        peak = max(peak, _resident_kib())
    await work
    return peak, time.perf_counter() - start


def _resident_kib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1024


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(*asyncio.run(_hold(*sys.argv[1:3])))
