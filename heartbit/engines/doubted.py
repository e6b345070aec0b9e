"""A call in doubt whose tool can be asked: has it happened, or may it be begun again?

Only the answer "certainly not" begins it again. Whatever else the tool says or fails to say is left
to what its spec wants done about a call in doubt.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from heartbit.core.calls import doubt
from heartbit.core.commands import CallTool
from heartbit.core.events import Event
from heartbit.core.state import RunState
from heartbit.engines.perform import Outside, perform, probe
from heartbit.errors import ToolError

_logger = logging.getLogger("heartbit.engine")


async def asked_first(
    command: CallTool, state: RunState, outside: Outside, check: Callable[[], None]
) -> Event | None:
    """What has become of a call, which is begun again if it certainly has not happened.

    `check` is asked right before that; whatever it raises passes through.
    """
    try:
        event = await probe(command, state, outside)
    except ToolError as error:
        where = f"run {outside.identity.run_id} step {command.step}"
        _logger.warning("Nobody knows what became of %s: %s", where, error.message)
        return doubt(state, command)
    if event is not None:
        return event
    check()
    return await perform(command, state, outside)
