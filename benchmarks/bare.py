"""The bare loop: what a careful person writes by hand with httpx2 and nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx2

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Add two numbers.",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                "required": ["a", "b"],
            },
        },
    }
]


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def run(
    client: httpx2.AsyncClient,
    url: str,
    prompt: str,
    *,
    stream: bool = False,
    tool: Callable[..., int] = add,
) -> str:
    """One agent run on the OpenAI wire."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": prompt}]
    ask = _streamed if stream else whole
    while True:
        message = await ask(client, url, messages)
        messages.append(message)
        if not message.get("tool_calls"):
            return str(message["content"])
        for call in message["tool_calls"]:
            result = tool(**json.loads(call["function"]["arguments"]))
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": str(result)})


async def orchestrate(client: httpx2.AsyncClient, url: str, prompt: str) -> str:
    """A run whose first reply hands tasks to sub-agents, all at once."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": prompt}]
    message = await whole(client, url, messages)
    (call,) = message["tool_calls"]
    tasks = json.loads(call["function"]["arguments"])["tasks"]
    results = await asyncio.gather(*(run(client, url, task["task"]) for task in tasks))
    told = {"role": "tool", "tool_call_id": call["id"], "content": "\n\n".join(results)}
    return str((await whole(client, url, [*messages, message, told]))["content"])


async def whole(client: httpx2.AsyncClient, url: str, messages: list[Any]) -> dict[str, Any]:
    """One model turn: the message that answers these."""
    body = {"model": "m", "messages": messages, "tools": TOOLS, "max_tokens": 4096}
    response = await client.post(f"{url}/v1/chat/completions", json=body)
    response.raise_for_status()
    message: dict[str, Any] = response.json()["choices"][0]["message"]
    return message


async def _streamed(client: httpx2.AsyncClient, url: str, messages: list[Any]) -> dict[str, Any]:
    body = {"model": "m", "messages": messages, "tools": TOOLS, "max_tokens": 4096, "stream": True}
    text: list[str] = []
    calls: dict[int, dict[str, Any]] = {}
    async with client.sse(f"{url}/v1/chat/completions", method="POST", json=body) as events:
        async for event in events:
            if event.data == "[DONE]":
                continue  # leaving now would close the connection before its next request
            for choice in json.loads(event.data)["choices"]:
                _take(choice["delta"], text, calls)
    message: dict[str, Any] = {"role": "assistant", "content": "".join(text) or None}
    if calls:
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
    return message


def _take(delta: dict[str, Any], text: list[str], calls: dict[int, dict[str, Any]]) -> None:
    if delta.get("content"):
        text.append(delta["content"])
    for piece in delta.get("tool_calls", []):
        index = piece["index"]
        if index in calls:
            calls[index]["function"]["arguments"] += piece["function"]["arguments"]
        else:
            calls[index] = {k: v for k, v in piece.items() if k != "index"}
