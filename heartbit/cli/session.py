"""Runs on a prompt under the eyes of a person: the asyncio side of `run` and `chat`."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import click

from heartbit.cli.approver import TerminalApprover
from heartbit.cli.display import Display
from heartbit.cli.exits import OF_STATUS
from heartbit.cli.interrupts import Interrupts
from heartbit.cli.keyboard import Keyboard, approval_keyboard
from heartbit.config import Loaded
from heartbit.core.messages import Usage
from heartbit.core.result import RunOutput
from heartbit.orchestrator import Orchestrator
from heartbit.wiring import open_orchestrator


def run_once(
    loaded: Loaded,
    prompt: str,
    *,
    approve: bool,
    verbose: bool,
    as_json: bool,
    debug: bool,
    stdin_is_free: bool,
) -> int:
    """Run `prompt` and give the exit code.

    Raises:
        ConfigError: something that the configuration names cannot be had.
    """
    set_up_log(debug)
    display = Display(verbose=verbose, quiet=as_json)
    keyboard = approval_keyboard(stdin_is_free=stdin_is_free)
    return asyncio.run(_run_once(loaded, prompt, approve, display, keyboard))


async def _run_once(
    loaded: Loaded, prompt: str, approve: bool, display: Display, keyboard: Keyboard | None
) -> int:
    with Interrupts() as interrupts:
        async with session(loaded, approve, display, interrupts, keyboard) as orchestrator:
            output = await interrupts.watch(drive(orchestrator, prompt))
            display.report(output)
        return exit_code(output, display)


@asynccontextmanager
async def session(
    loaded: Loaded,
    approve: bool,
    display: Display,
    interrupts: Interrupts,
    keyboard: Keyboard | None,
) -> AsyncIterator[Orchestrator]:
    """An orchestrator that shows what it does on `display`; the terminal is left clean."""
    display.on_failure(interrupts.stop)
    for warning in loaded.warnings:
        display.warn(warning)
    opened = open_orchestrator(
        loaded.config,
        approve=approve,
        approver=TerminalApprover(keyboard, display) if keyboard else None,
        on_event=display.on_event,
        on_warning=display.warn,
        on_indexing=display.on_indexing,
    )
    try:
        with _logged_warnings(display):
            async with opened as orchestrator:
                yield orchestrator
    finally:
        display.close()


async def drive(orchestrator: Orchestrator, prompt: str) -> RunOutput:
    """Run to the end. Cancelled, it still gives what there is: the caller asked for that."""
    run_id = str(uuid.uuid4())
    run = None
    try:
        async with orchestrator.opened(prompt, run_id=run_id) as run:
            await run.drive()
    except asyncio.CancelledError:
        if run is None:
            return _not_started(run_id)
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)  # where a cancellation is taken that came as the run ended
    return run.output


def _not_started(run_id: str) -> RunOutput:
    return RunOutput(
        run_id=run_id,
        status="cancelled",
        result=None,
        structured=None,
        usage=Usage(),
        tool_calls_made=0,
        turns=0,
        cost_usd=None,
    )


def exit_code(output: RunOutput, display: Display) -> int:
    """The code of the run's status.

    Raises:
        click.ClickException: the answer could not be written.
    """
    failure = display.out.failure
    if failure is not None and not display.out.reader_left:
        raise click.ClickException(f"the answer could not be written: {failure.strerror}.")
    return OF_STATUS[output.status]


def set_up_log(debug: bool) -> None:
    """Show the log with --debug; without it nothing but our own lines may reach stderr."""
    if debug:
        logging.basicConfig(level=logging.INFO)  # below it the HTTP client writes down headers
        logging.getLogger("heartbit").setLevel(logging.DEBUG)
    else:
        logging.getLogger().addHandler(logging.NullHandler())


@contextmanager
def _logged_warnings(display: Display) -> Iterator[None]:
    """Show what our own modules warn of in the log, which --debug shows anyhow."""
    logger = logging.getLogger("heartbit")
    if logger.isEnabledFor(logging.DEBUG):
        yield
        return
    handler = _Warnings(asyncio.get_running_loop(), display)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Warnings(logging.Handler):
    """Tells each warning once. Threads log, too, but only the loop's writes to the terminal."""

    def __init__(self, loop: asyncio.AbstractEventLoop, display: Display) -> None:
        super().__init__(logging.WARNING)
        self._loop = loop
        self._display = display
        self._told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self._told:
            self._told.add(text)
            self._loop.call_soon_threadsafe(self._display.warn, text)
