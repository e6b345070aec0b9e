"""The transaction of one call of a tool with tables of its own.

It is opened for the tool, on the loop's side, and ended by whoever has the outcome: in one process
right after the call, in a fleet once the outcome is appended in it. What blocks is done in threads
that nobody has to wait for.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, suppress
from functools import partial
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from heartbit.errors import JournalError, JournalUnavailable, ToolTimedOut
from heartbit.tools.threads import in_thread

NAME = "heartbit-transaction"


class Tables(Protocol):
    """An open transaction, as a tool and whoever looks after it see it."""

    @property
    def connection(self) -> Any:
        """What the tool gets."""

    def settle(self) -> None:
        """The tool has done its part.

        Raises:
            ToolError: what it has done cannot be kept.
        """

    def disconnect(self) -> None:
        """Take the connection away from a tool that was given up and may still be at it."""

    def lost(self, error: BaseException) -> bool:
        """Whether the tool failed with `error` because the database was lost on the way."""


X = TypeVar("X", bound=Tables)


class _Undo(Exception):
    """The way out of a transaction without a commit."""


class CallTransaction(Generic[X]):
    """A transaction that is opened at most once; `with` it: what is not committed is undone."""

    def __init__(self, open_: Callable[[float | None], AbstractContextManager[X]]) -> None:
        self._open = open_
        self._stack = ExitStack()
        self._lock = threading.Lock()
        self._over = self._tool_has_ended = False
        self._failure: JournalError | None = None
        self._opened: X | None = None
        self.written: X | None = None
        """The transaction, once the tool has ended well; its writes wait for the commit."""

    @asynccontextmanager
    async def during(self, seconds: float | None) -> AsyncIterator[Any]:
        """The connection for a tool whose statements may take `seconds`."""
        opened = await in_thread(partial(self._begin, seconds), NAME)
        try:
            yield opened.connection
            await in_thread(opened.settle, NAME)
        except ToolTimedOut:
            raise
        except Exception as error:
            self._tool_has_ended = True
            if opened.lost(error):
                self._failure = JournalUnavailable(
                    "The database was lost during a call; nothing of it was written."
                )
            raise
        self._tool_has_ended = True
        self.written = opened

    def check(self) -> None:
        """Ask whether what became of the call is the tool's own doing.

        Raises:
            JournalError: the database failed; nothing has happened.
        """
        if self._failure is not None:
            raise self._failure

    def commit(self) -> None:
        """Keep everything that was written."""
        with self._lock:
            self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._over = True
            # A tool that was given up may not know it yet: what it still does must not be done on a
            # connection that others get.
            if self._opened is not None and not self._tool_has_ended:
                self._opened.disconnect()
            _undo(self._stack)

    def _begin(self, seconds: float | None) -> X:
        stack = ExitStack()
        try:
            opened = stack.enter_context(self._open(seconds))
        except JournalError as error:
            self._failure = error
            raise
        with self._lock:
            if self._over:  # nobody waits for it any more
                _undo(stack)
            self._stack, self._opened = stack, opened
        return opened


def _undo(stack: ExitStack) -> None:
    with suppress(_Undo), stack:
        raise _Undo


@asynccontextmanager
async def committed(
    open_: Callable[[float | None], AbstractContextManager[X]], seconds: float | None
) -> AsyncIterator[Any]:
    """The connection of a transaction that is committed at the end of the block."""
    transaction = CallTransaction(open_)
    try:
        async with transaction.during(seconds) as connection:
            yield connection
        await in_thread(transaction.commit, NAME)
    finally:
        await in_thread(partial(transaction.__exit__, None, None, None), NAME)
