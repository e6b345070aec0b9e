"""One of the sides that heartbit is measured beside, as a process of its own that takes orders.

Runs in an environment where only that side's packages are installed. Each line of its input is an
order, `runs prompt`: that many runs of the prompt at once, whose answers are printed as one line.

    python -m benchmarks.peer bare|dbos|langgraph http://127.0.0.1:4711 postgresql://...
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

Client = Callable[[str], Awaitable[str]]
Side = Callable[[str, str], AbstractAsyncContextManager[Client]]
DELEGATE = "delegate="


@asynccontextmanager
async def _bare(model: str, database: str) -> Any:
    from benchmarks.clients import bare_client, bare_orchestrator

    async with bare_client(model) as alone, bare_orchestrator(model) as leading:
        yield lambda prompt: (leading if DELEGATE in prompt else alone)(prompt)


def _side(name: str) -> Side:
    if name == "dbos":
        from benchmarks.peer_dbos import client
    elif name == "langgraph":
        from benchmarks.peer_langgraph import client
    else:
        client = _bare
    return client


async def serve(name: str, model: str, database: str) -> None:
    """Take orders until the input ends."""
    async with _side(name)(model, database) as client:
        print("ready", flush=True)
        while order := await asyncio.to_thread(sys.stdin.readline):
            runs, _, prompt = order.strip().partition(" ")
            answers = await asyncio.gather(*(client(prompt) for _ in range(int(runs))))
            print(json.dumps(answers), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:4]))
