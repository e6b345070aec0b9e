"""Agents for durable runs in worker processes: what one does stands in its prompt.

"say X" answers X, "fail" has the provider refuse, "look" calls a tool that only reads, "save N"
calls a tool N times about which a human is asked, "later N" does so when the file `go` is there,
"delegate A; B" hands A and B to the saver.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path

from heartbit.core.messages import TextPart, ToolResult
from heartbit.core.request import ModelRequest
from heartbit.core.tools import DELEGATE
from heartbit.errors import InvalidRequest
from heartbit.providers.scripted import Reply, call
from heartbit.tools.function import tool
from tests.support.command_line import environment

SECONDS = 30
CONFIG = """
[provider]
name = "scripted"
model = "tests.support.durable_agents:reply"

[[agents]]
name = "saver"
description = "Saves."
system_prompt = "You save."
tools = ["tests.support.durable_agents:save", "tests.support.durable_agents:look"]

[[agents]]
name = "reader"
description = "Reads."
system_prompt = "You read."

[[permissions]]
tool = "save"
action = "ask"
"""


@tool(effect="pure")
def look() -> str:
    """Look around."""
    return "a lake"


@tool(effect="idempotent")
def save(text: str) -> str:
    """Save a text."""
    return f"saved {text}"


def reply(request: ModelRequest) -> Reply | Awaitable[Reply]:
    """What the prompt orders; once tools have answered, their results."""
    parts = [part for message in request.messages for part in message.parts]
    results = [part.content for part in parts if isinstance(part, ToolResult)]
    if results:
        return " | ".join(results)
    prompt = next(part.text for part in parts if isinstance(part, TextPart))
    match prompt.split(maxsplit=1):
        case ["fail"]:
            raise InvalidRequest("The provider was told to refuse.")
        case ["look"]:
            return call("look")
        case ["save", number]:
            return [call("save", text=f"t{n}") for n in range(1, int(number) + 1)]
        case ["later", number]:
            return _later([call("save", text=f"t{n}") for n in range(1, int(number) + 1)])
        case ["delegate", orders]:
            tasks = [{"agent": "saver", "task": each} for each in orders.split("; ")]
            return call(DELEGATE, tasks=tasks)
        case ["say", words]:
            return words
    return prompt


def _may_go() -> bool:
    return Path("go").exists()


async def _later(calls: Reply) -> Reply:
    while not _may_go():  # noqa: ASYNC110 - from elsewhere
        await asyncio.sleep(0.01)
    return calls


def addresses(database: str, broker: str) -> dict[str, str]:
    """What a process must know to find these servers."""
    return {
        "HEARTBIT_DATABASE_URL": database,
        "CELERY_BROKER_URL": broker,
        "CELERY_RESULT_BACKEND": broker,
    }


@contextmanager
def worker(folder: Path, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process that reads heartbit.toml in `folder`; its log is worker.log there."""
    command = ["-A", "heartbit", "worker", "-P", "threads", "-c", "4", "--loglevel", "INFO"]
    log = folder / "worker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", *command],
            cwd=folder,
            env=environment(env),
            stdout=output,
            stderr=output,
        )
    try:
        wait_for_line(log, " ready.", process)
        yield process
    finally:
        os.kill(process.pid, signal.SIGTERM)
        try:
            process.wait(SECONDS)
        finally:
            process.kill()
            process.wait()


def wait_for_line(log: Path, text: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until a log has this text; the process must live as long."""
    until = time.monotonic() + SECONDS
    while text not in log.read_text(errors="replace"):
        assert process.poll() is None, log.read_text(errors="replace")
        assert time.monotonic() < until, log.read_text(errors="replace")
        time.sleep(0.02)
