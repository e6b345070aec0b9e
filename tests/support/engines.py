"""The engines that parity scripts run through; each gives the same kind of outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from heartbit.core.events import Event, RunStarted
from heartbit.engines.standalone import StandaloneRun, World
from heartbit.providers.anthropic import AnthropicProvider
from tests.support.model_server import ModelServer
from tests.support.parity import Asked, Outcome, Script, answers

Engine = Callable[[Script], Outcome]


def standalone(script: Script) -> Outcome:
    """Run a script in this process."""
    with ModelServer(answers(script)) as server:
        return asyncio.run(_standalone(script, server))


async def _standalone(script: Script, server: ModelServer) -> Outcome:
    provider = AnthropicProvider(model="test-model", api_key="test-key", base_url=server.url)
    world = World(
        providers={"default": provider},
        tools={tool.spec.ref: tool for tool in script.tools},
        approver=script.decide,
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
    )


def _journals(run: StandaloneRun) -> Iterator[tuple[str, list[Event]]]:
    yield "", run.events
    for step, child in run.children.items():
        yield step, child.events


ENGINES: dict[str, Engine] = {"standalone": standalone}
