"""What a run tree says, for programs: one object to iterate over, with a loop or without one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, closing
from dataclasses import dataclass

from heartbit.core.messages import Json
from heartbit.stores.journal import Journal
from heartbit.stores.stream_reader import StreamItem, StreamReader
from heartbit.stores.streams import START


@dataclass(frozen=True, kw_only=True, slots=True)
class RunEvents:
    """The entries of a run and of those below it: what `heartbit watch --json` prints.

    Every iteration begins after the offset `after`, waits for what is still to come, and ends after
    the end of the root run. No entry is missed or told twice while Redis or the database is away.
    Without a loop use `for`, inside of one only `async for`.

    Raises:
        RunNotFound: there is no such run.
        ConfigError: `after` is no offset.
        JournalError: the journal could not be read at the beginning; later it is waited for.
        RuntimeError: `for` inside of a loop, which it would keep from doing anything else.
    """

    run_id: str
    journal: Journal
    reader: StreamReader
    after: str | None = None

    def __iter__(self) -> Iterator[Json]:
        if _in_a_loop():
            raise RuntimeError("Inside of an asyncio loop the events of a run want `async for`.")
        with closing(self.reader.iterate(self._root(), self.after or START)) as items:
            for item in items:
                yield _entry(item)

    async def __aiter__(self) -> AsyncGenerator[Json]:
        root = await asyncio.to_thread(self._root)
        async with aclosing(self.reader.follow(root, self.after or START)) as items:
            async for item in items:
                yield _entry(item)

    def _root(self) -> str:
        return self.journal.run(self.run_id).root_run_id


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _entry(item: StreamItem) -> Json:
    return {"offset": item.offset} | item.entry
