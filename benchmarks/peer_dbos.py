"""The workloads on DBOS: a run is a workflow, each model turn and each tool call a step of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from dbos import DBOS, DBOSConfig

from benchmarks.bare import add, whole

Json = dict[str, Any]


@asynccontextmanager
async def client(model: str, database: str) -> AsyncIterator[Callable[[str], Awaitable[str]]]:
    """Runs of a prompt; the answer is that of the workflow."""
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": database,
        "run_admin_server": False,
        "log_level": "ERROR",
    }
    DBOS(config=config)
    async with httpx2.AsyncClient(limits=httpx2.Limits(max_connections=None)) as http:
        run = _workflows(http, model)
        DBOS.launch()
        try:
            yield run
        finally:
            DBOS.destroy()


def _workflows(http: httpx2.AsyncClient, model: str) -> Callable[[str], Awaitable[str]]:
    @DBOS.step()
    async def turn(messages: list[Json]) -> Json:
        return await whole(http, model, messages)

    @DBOS.step()
    async def tool(arguments: str) -> str:
        return str(add(**json.loads(arguments)))

    @DBOS.workflow()
    async def solve(prompt: str) -> str:
        messages: list[Json] = [{"role": "user", "content": prompt}]
        while calls := await _asked(messages):
            results = await asyncio.gather(*(tool(c["function"]["arguments"]) for c in calls))
            messages += [
                {"role": "tool", "tool_call_id": call["id"], "content": result}
                for call, result in zip(calls, results, strict=True)
            ]
        return str(messages[-1]["content"])

    async def _asked(messages: list[Json]) -> list[Json]:
        message = await turn(messages)
        messages.append(message)
        return message.get("tool_calls") or []

    @DBOS.workflow()
    async def lead(prompt: str) -> str:
        messages: list[Json] = [{"role": "user", "content": prompt}]
        (call,) = await _asked(messages)
        tasks = json.loads(call["function"]["arguments"])["tasks"]
        begun = [await DBOS.start_workflow_async(solve, task["task"]) for task in tasks]
        results = [await each.get_result() for each in begun]
        told = {"role": "tool", "tool_call_id": call["id"], "content": "\n\n".join(results)}
        messages.append(told)
        await _asked(messages)
        return str(messages[-1]["content"])

    async def run(prompt: str) -> str:
        return await (lead if "delegate=" in prompt else solve)(prompt)

    return run
