"""The two sides of every comparison: a run of the bare loop and a run of heartbit, same answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx2

from benchmarks import bare
from benchmarks.model_server import total
from heartbit import Agent, AnthropicProvider, OpenAIProvider, Orchestrator, tool
from heartbit.agent import Limits
from heartbit.toolbox import ToolLike

Client = Callable[[str], Awaitable[str]]
"""Runs a prompt to its end and gives the answer."""


@tool(effect="pure")
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool(effect="pure", name="add")
def add_in_thread(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@asynccontextmanager
async def bare_client(url: str, *, stream: bool = False) -> AsyncIterator[Client]:
    """The bare loop over one client."""
    async with httpx2.AsyncClient(limits=httpx2.Limits(max_connections=None)) as http:
        yield lambda prompt: bare.run(http, url, prompt, stream=stream)


@asynccontextmanager
async def bare_orchestrator(url: str) -> AsyncIterator[Client]:
    """The bare loop that hands tasks to others of its kind."""
    async with httpx2.AsyncClient() as http:
        yield lambda prompt: bare.orchestrate(http, url, prompt)


@asynccontextmanager
async def heartbit_client(
    url: str,
    *,
    stream: bool = False,
    anthropic: bool = False,
    orchestrate: bool = False,
    adder: ToolLike = add,
) -> AsyncIterator[Client]:
    """One agent with one tool, or an orchestrator above it."""
    address = url if anthropic else f"{url}/v1"
    kind = AnthropicProvider if anthropic else OpenAIProvider
    provider = kind(model="m", base_url=address, api_key="none")
    orchestrator = Orchestrator(
        provider=provider,
        agents=[Agent(name="adder", tools=[adder], max_turns=1000)],
        routing="always_orchestrate" if orchestrate else "auto",
        limits=Limits(max_tokens=4096),
        on_text=_nowhere if stream else None,
    )

    async def run(prompt: str) -> str:
        return (await orchestrator.run(prompt)).result or ""

    async with orchestrator:
        yield run
    await provider.aclose()


def _nowhere(text: str) -> None:
    """Somebody listens, so the reply is streamed."""


async def ask(client: Client, turns: int, *, pad: int = 0) -> None:
    """One run of `turns` model turns, each of `pad` characters and two tool calls.

    Raises:
        AssertionError: the answer is wrong.
    """
    answer = await client(f"turns={turns} pad={pad}")
    assert answer.endswith(f"sum={total(turns)}"), answer[-200:]
