"""What every measurement needs: the model server, CPU of this process, rounds that take turns."""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

ROUNDS = 11

Measure = Callable[[], Awaitable[float]]


@contextmanager
def model_server(latency: float = 0.0) -> Iterator[str]:
    """The address of a model server in a process of its own."""
    with server_of("benchmarks.model_server", "--latency", str(latency)) as address:
        yield address


@contextmanager
def server_of(module: str, *arguments: str) -> Iterator[str]:
    """The address of a server that prints its port and ends with its standard input."""
    command = [sys.executable, "-m", module, *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as server:
        assert server.stdout
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        server.communicate()


async def cpu_seconds(work: Awaitable[object]) -> float:
    """CPU of this process, all threads, while `work` is awaited."""
    gc.collect()
    start = time.process_time()
    await work
    return time.process_time() - start


async def alternating(*sides: Measure, rounds: int = ROUNDS) -> list[list[float]]:
    """Measure the sides in turn, so that a noisy machine is noisy to all of them.

    One round to warm up is thrown away; the order is reversed after each round.
    """
    taken: list[list[float]] = [[] for _ in sides]
    for number in range(rounds + 1):
        order = list(zip(sides, taken, strict=True))
        for measure, values in order if number % 2 else reversed(order):
            values.append(await measure())
    return [values[1:] for values in taken]


def ratio(own: Sequence[float], others: Sequence[float]) -> float:
    """The median over rounds of own / other: what the machine did in a round cancels out."""
    return statistics.median(mine / other for mine, other in zip(own, others, strict=True))
