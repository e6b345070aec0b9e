"""The workloads on LangGraph as its documentation writes them: create_agent, a Postgres saver."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

CONNECTIONS = 8
STEPS = 1000


@tool
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@asynccontextmanager
async def client(model: str, database: str) -> AsyncIterator[Callable[[str], Awaitable[str]]]:
    """Runs of a prompt, each a thread of its own; a step is stored before the next one begins."""
    options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    pool = AsyncConnectionPool(database, max_size=CONNECTIONS, kwargs=options, open=False)
    chat = ChatOpenAI(model="m", base_url=f"{model}/v1", api_key="none", max_retries=0)
    async with pool:
        saver = AsyncPostgresSaver(pool)
        await saver.setup()
        solve = create_agent(chat, [add], checkpointer=saver)

        @tool
        async def delegate_task(tasks: list[dict[str, str]]) -> str:
            """Hand tasks to agents."""
            return "\n\n".join(
                await asyncio.gather(*(_answer(solve, each["task"]) for each in tasks))
            )

        lead = create_agent(chat, [delegate_task], checkpointer=saver)
        yield lambda prompt: _answer(lead if "delegate=" in prompt else solve, prompt)


async def _answer(agent: Any, prompt: str) -> str:
    place = {"configurable": {"thread_id": str(uuid.uuid4())}, "recursion_limit": STEPS}
    message = {"role": "user", "content": prompt}
    state = await agent.ainvoke({"messages": [message]}, place, durability="sync")
    return str(state["messages"][-1].content)
