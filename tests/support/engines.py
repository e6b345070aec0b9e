"""The engines that parity scripts run through; each gives the same kind of outcome."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

from heartbit.core.events import Event, RunStarted
from heartbit.engines.standalone import StandaloneRun, World
from heartbit.providers.anthropic import AnthropicProvider
from heartbit.stores.memories.in_memory import InMemoryMemories
from heartbit.tools.memory import Memories
from tests.support.model_server import ModelServer
from tests.support.parity import Asked, Outcome, Script, answers

Engine = Callable[[Script], Outcome]
T = TypeVar("T")


def standalone(script: Script) -> Outcome:
    """Run a script in this process."""
    with ModelServer(answers(script)) as server:
        return asyncio.run(_standalone(script, server))


async def _standalone(script: Script, server: ModelServer) -> Outcome:
    provider = AnthropicProvider(model="test-model", api_key="test-key", base_url=server.url)
    memories = Memories(store=InMemoryMemories()) if script.remembers else None
    world = World(
        providers={"default": provider},
        tools=script.executables(memories),
        approver=script.decide,
        memories=memories,
    )
    run = StandaloneRun(world, RunStarted(prompt=script.prompt, definition=script.agent))
    await run.drive()
    await provider.aclose()
    board = world.blackboards.scope(run.identity.run_id)
    values = {key: (await board.read(key))[0] for key in await board.keys()}
    return Outcome(
        output=run.output,
        journals=dict(_journals(run)),
        asked=[Asked(request.json) for request in server.requests],
        blackboard=values,
        remembered=list(memories.store.export()) if memories else (),
    )


def _journals(run: StandaloneRun) -> Iterator[tuple[str, list[Event]]]:
    yield "", run.events
    for step, child in run.children.items():
        yield step, child.events


ENGINES: dict[str, Engine] = {"standalone": standalone}


def run_clean(main: Coroutine[Any, Any, T], seconds: float = 10) -> T:
    """What `main` returns, run in asyncio's debug mode: a word of complaint or a task left fails.

    `seconds` is when a test that hangs is given up.
    """

    async def watched() -> T:
        asyncio.get_running_loop().slow_callback_duration = seconds
        result = await asyncio.wait_for(main, seconds)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left
        return result

    complaints = _Complaints()
    logger = logging.getLogger("asyncio")
    logger.addHandler(complaints)
    gc.freeze()  # what is older than this test need not be looked through
    try:
        result = asyncio.run(watched(), debug=True)
        gc.collect()
    finally:
        gc.unfreeze()
        logger.removeHandler(complaints)
    assert [] == complaints.heard
    return result


class _Complaints(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(record.getMessage())
