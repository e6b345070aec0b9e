"""The loop of `heartbit chat`: read a line, run it with what was said before, again."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

from heartbit.cli.conversation import Exchange, with_earlier
from heartbit.cli.display import Display
from heartbit.cli.ending import CANCELLED
from heartbit.cli.interrupts import Interrupts
from heartbit.cli.keyboard import Keyboard, approval_keyboard
from heartbit.cli.session import drive, exit_code, session, set_up_log
from heartbit.config import Loaded
from heartbit.core.result import RunOutput
from heartbit.orchestrator import Orchestrator

ReadLine = Callable[[], Awaitable[str | None]]
PROMPT = "> "


def hold(loaded: Loaded, *, approve: bool, verbose: bool, debug: bool) -> int:
    """Talk until the person has had enough; gives the exit code.

    Raises:
        ConfigError: something that the configuration names cannot be had.
    """
    set_up_log(debug)
    return asyncio.run(_hold(loaded, approve, Display(verbose=verbose)))


async def _hold(loaded: Loaded, approve: bool, display: Display) -> int:
    with Interrupts() as interrupts:
        keyboard = approval_keyboard(stdin_is_free=True)
        async with session(loaded, approve, display, interrupts, keyboard) as orchestrator:
            return await _talk(orchestrator, display, interrupts, line_reader())


async def _talk(
    orchestrator: Orchestrator, display: Display, interrupts: Interrupts, read: ReadLine
) -> int:
    said: list[Exchange] = []
    while True:
        try:
            line = await interrupts.watch(_next(read))
        except asyncio.CancelledError:
            return CANCELLED
        if not line:
            return 0
        display.start_run()
        output = await interrupts.watch(drive(orchestrator, with_earlier(said, line)))
        display.report(output)
        if display.out.failure is not None:
            return exit_code(output, display)
        said.append(Exchange(line, answer_of(output)))


async def _next(read: ReadLine) -> str:
    return (await read() or "").strip()


def answer_of(output: RunOutput) -> str:
    """What the next run is told about the end of this one."""
    return output.result or f"(no answer: {output.error or output.status})"


def line_reader() -> ReadLine:
    """Lines with editing and history from a terminal, plain ones from anything else."""
    if sys.stdin is None:
        return _nothing
    if not sys.stdin.isatty():
        return Keyboard(sys.stdin.fileno()).line
    from prompt_toolkit import PromptSession
    from prompt_toolkit.output import create_output

    prompts: PromptSession[str] = PromptSession(PROMPT, output=create_output(sys.stderr))

    async def read() -> str | None:
        try:
            return await prompts.prompt_async(handle_sigint=False)
        except EOFError:
            return None
        except KeyboardInterrupt:  # as it is, it would break out of the event loop
            raise asyncio.CancelledError from None

    return read


async def _nothing() -> str | None:
    return None
