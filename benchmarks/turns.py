"""What a model turn costs: CPU of the client process against the bare loop, and as a run grows."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import httpx2

from benchmarks import bare
from benchmarks.clients import (
    Client,
    add_in_thread,
    ask,
    bare_client,
    bare_orchestrator,
    heartbit_client,
)
from benchmarks.report import Found
from benchmarks.rig import alternating, cpu_seconds, model_server, ratio
from heartbit import tool

TURNS, RUNS = 10, 12
LONG = 120
EARLY, LATE = range(5, 16), range(95, 106)
SUB_AGENTS, SUB_TURNS = 8, 4


def measure() -> list[Found]:
    """All rows of this module."""
    with model_server() as url:
        return [*asyncio.run(_wires(url)), *asyncio.run(_flatness(url)), asyncio.run(_tree(url))]


async def _wires(url: str) -> list[Found]:
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(client)
            for client in (
                bare_client(url),
                heartbit_client(url),
                heartbit_client(url, anthropic=True),
                heartbit_client(url, adder=add_in_thread),
                bare_client(url, stream=True),
                heartbit_client(url, stream=True),
                heartbit_client(url, stream=True, anthropic=True),
            )
        ]
        taken = await alternating(*(_per_turn(client) for client in clients))
    whole, streamed = taken[:4], taken[4:]
    return [
        _against("turn", whole[0], whole[1]),
        _against("turn_anthropic", whole[0], whole[2]),
        _against("turn_threads", whole[0], whole[3]),
        _against("turn_streaming", streamed[0], streamed[1]),
        _against("turn_anthropic_streaming", streamed[0], streamed[2]),
    ]


def _per_turn(client: Client) -> Callable[[], Awaitable[float]]:
    async def work() -> None:
        for _ in range(RUNS):
            await ask(client, TURNS)

    async def measured() -> float:
        return await cpu_seconds(work()) / (RUNS * TURNS) * 1000

    return measured


def _against(key: str, bare: list[float], ours: list[float]) -> Found:
    return Found(key, statistics.median(bare), statistics.median(ours), ratio(ours, bare))


async def _flatness(url: str) -> list[Found]:
    """The tool itself looks at the clock: `a` counts the turns."""
    clock = [0.0] * LONG

    def stamped(a: int, b: int) -> int:
        if not b:
            clock[a] = time.process_time()
        return a + b

    @tool(effect="pure", name="add")
    async def add(a: int, b: int) -> int:
        return stamped(a, b)

    def growth(client: Client) -> Callable[[], Awaitable[float]]:
        async def measured() -> float:
            await ask(client, LONG, pad=1000)
            return _cost(clock, LATE) / _cost(clock, EARLY)

        return measured

    async with httpx2.AsyncClient() as http, heartbit_client(url, adder=add) as ours:
        taken = await alternating(
            growth(lambda prompt: bare.run(http, url, prompt, tool=stamped)), growth(ours)
        )
    before, after = map(statistics.median, taken)
    return [Found("flat", before, after, after)]


def _cost(clock: list[float], turns: range) -> float:
    return clock[turns[-1]] - clock[turns[0]]


async def _tree(url: str) -> Found:
    prompt = f"delegate={SUB_AGENTS} turns={SUB_TURNS} pad=0"
    calls = 2 + SUB_AGENTS * SUB_TURNS

    def per_call(client: Client) -> Callable[[], Awaitable[float]]:
        async def work() -> None:
            for _ in range(RUNS // 4):
                assert await client(prompt) == f"sum={SUB_AGENTS * 9}"

        async def measured() -> float:
            return await cpu_seconds(work()) / (RUNS // 4 * calls) * 1000

        return measured

    async with bare_orchestrator(url) as lone, heartbit_client(url, orchestrate=True) as ours:
        return _against("tree", *await alternating(per_call(lone), per_call(ours)))
