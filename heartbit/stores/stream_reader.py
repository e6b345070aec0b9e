"""Following a run tree live: fast from its stream, complete from its journals.

Every event is given once, in the order of its run, a sub-run's before the event that reports its
end, and the end of the root last. The stream is only a hint that something has happened: what it
does not show is taken from the journals, which are looked at every few seconds in any case, so that
a reader needs Redis for its speed only.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import redis
import redis.asyncio

from heartbit.core.events import Event, RunStatus
from heartbit.core.messages import Json
from heartbit.core.state import ENDED
from heartbit.core.stream import RunIdentity, event_entry
from heartbit.errors import JournalError, RunNotFound
from heartbit.stores.records import EVERY_TENANT, Tenant
from heartbit.stores.redis_client import QUICK_SECONDS
from heartbit.stores.stream_place import Place, is_before, parse_offset
from heartbit.stores.streams import START, Published, parse_published, stream_key

ENTRIES_PER_READ = 500
ENDINGS = frozenset({"run_finished", "run_failed", "run_cancelled"})

_logger = logging.getLogger("heartbit.streams")


class TreeRow(Protocol):
    """A run of a tree."""

    @property
    def run_id(self) -> str: ...
    @property
    def parent_run_id(self) -> str | None: ...
    @property
    def agent(self) -> str: ...
    @property
    def status(self) -> RunStatus: ...


class TreeJournal(Protocol):
    """What a reader needs of a `Journal`."""

    def tree(self, run_id: str, *, tenant: Tenant = EVERY_TENANT) -> Sequence[TreeRow]:
        """The runs of a tree, oldest first; none if there is no such run."""

    def events(
        self, run_id: str, after: int = 0, *, tenant: Tenant = EVERY_TENANT
    ) -> tuple[Event, ...]:
        """The events of a run after a number, oldest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamItem:
    """Something that a run tree said, and the offset from which a reader gets what came after."""

    offset: str
    entry: Json


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How often the journals are looked at, in seconds.

    A sub-run that is still open when its root has ended is followed for `grace_seconds` more.
    """

    poll_seconds: float = 2.0
    grace_seconds: float = 2.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class StreamReader:
    """Follows run trees; may be used from any loop, and keeps no connection between uses."""

    def __init__(self, url: str, journal: TreeJournal, pace: Pace | None = None) -> None:
        self._url = url
        self._journal = journal
        self._pace = pace or Pace()

    async def follow(
        self, root_run_id: str, after: str = START, *, tenant: Tenant = EVERY_TENANT
    ) -> AsyncGenerator[StreamItem, None]:
        """Everything that a run tree says after an offset, until its root has ended.

        Raises:
            RunNotFound: there is no such run.
            ConfigError: `after` is no offset.
            JournalError: the journal could not be read at the beginning; later it is waited for.
        """
        offset = parse_offset(after)
        journals = _Journals(self._journal, root_run_id, tenant)
        await journals.refresh()
        async with _Tail(self._url, root_run_id, offset.id) as tail:
            place = Place(offset, await tail.before())
            follower = _Follower(self._pace, root_run_id, place, tail, journals)
            while not follower.over:
                for item in await follower.step():
                    yield item

    def iterate(
        self, root_run_id: str, after: str = START, *, tenant: Tenant = EVERY_TENANT
    ) -> Generator[StreamItem]:
        """As `follow`, for callers without a loop."""
        with asyncio.Runner() as runner:
            items = self.follow(root_run_id, after, tenant=tenant)
            while (item := runner.run(_next(items))) is not None:
                yield item


async def _next(items: AsyncIterator[StreamItem]) -> StreamItem | None:
    return await anext(items, None)


class _Follower:
    """One reader on its way: what its stream and its journals say becomes what it is given."""

    def __init__(
        self, pace: Pace, root: str, place: Place, tail: _Tail, journals: _Journals
    ) -> None:
        self.over = False
        self._pace = pace
        self._root = root
        self._place = place
        self._tail = tail
        self._journals = journals
        self._items: list[StreamItem] = []
        self._closed: set[str] = set()
        self._ending: Json | None = None
        self._ended_at: float | None = None
        self._next_poll = pace.clock()

    async def step(self) -> list[StreamItem]:
        """Wait until there may be something new, and give it."""
        try:
            await self._advance()
        except RunNotFound:
            raise
        except JournalError as error:
            _logger.warning("Following run %s waits for its journal: %s", self._root, error)
            await self._pace.sleep(self._pace.poll_seconds)
        items, self._items = self._items, []
        return items

    async def _advance(self) -> None:
        clock = self._pace.clock
        published = await self._tail.read(max(0.0, self._next_poll - clock()))
        if published is None:
            await self._pace.sleep(max(0.0, self._next_poll - clock()))
        for each in published or ():
            await self._take(each)
        # Text that was published before an event shall be given before it, so the stream is read to
        # its end before the journal is; but not for ever, if it grows as fast as it is read.
        late = clock() - self._next_poll
        if late >= (self._pace.poll_seconds if published else 0.0):
            await self._poll()

    async def _take(self, published: Published) -> None:
        found = await self._resolve(published)
        if any(self._is_end(entry) for entry in found):
            self._place.hold()
        for entry in found[:-1]:
            self._give(entry)
        self._place.passed(published)
        for entry in found[-1:]:
            self._give(entry)
        self._tail.position = published.id

    async def _resolve(self, published: Published) -> list[Json]:
        """What an entry of the stream stands for, given what was given."""
        run_id, entry = published.run_id, published.entry
        if published.seq:
            return await self._behind(run_id, published.seq, entry)
        if entry is None or run_id in self._closed:
            return []
        if not self._place.seq(run_id):  # text of a run whose beginning the stream has lost
            for each in await self._behind(run_id, math.inf):
                self._give(each)
        return [entry] if self._place.hears(published) else []

    async def _behind(self, run_id: str, seq: float, entry: Json | None = None) -> list[Json]:
        """What is to be given of a run so that its event `seq` is given: all before it, too."""
        known = self._place.seq(run_id)
        if seq <= known:
            return []
        if entry is not None and seq == known + 1:
            own = [entry]
        else:
            own = [e for e in await self._journals.entries(run_id, known) if e["seq"] <= seq]
        found: list[Json] = []
        for each in own:
            if each["type"] == "sub_run_finished" and each["sub_run_id"] not in self._closed:
                found += await self._behind(each["sub_run_id"], math.inf)
            found.append(each)
        return found

    def _give(self, entry: Json) -> None:
        """Give something, unless it was given. The end of the root waits for all the rest."""
        if entry["type"] in ENDINGS:
            self._note_end(entry["run_id"])
        if self._is_end(entry):
            self._ending = entry
            self._place.hold()
        else:
            self._hand_out(entry)

    def _hand_out(self, entry: Json) -> None:
        if "seq" in entry:
            self._place.given(entry)
        self._items.append(StreamItem(offset=str(self._place.offset()), entry=entry))

    def _note_end(self, run_id: str) -> None:
        self._closed.add(run_id)
        if self._root in self._closed:
            self._next_poll = self._pace.clock()  # this may have been the last one

    def _is_end(self, entry: Json) -> bool:
        return entry["run_id"] == self._root and entry["type"] in ENDINGS

    async def _poll(self) -> None:
        rows = await self._journals.refresh()
        self._next_poll = self._pace.clock() + self._pace.poll_seconds
        if await self._tail.has_begun_again():
            self._place.restart()
        for row in rows:
            await self._catch_up(row)
        if self._is_over(rows):
            self._finish()

    async def _catch_up(self, row: TreeRow) -> None:
        if row.run_id in self._closed:
            return
        for entry in await self._behind(row.run_id, math.inf):
            self._give(entry)
        if row.status in ENDED:
            self._closed.add(row.run_id)

    def _is_over(self, rows: Sequence[TreeRow]) -> bool:
        """Whether the root has ended, and no sub-run may end yet in time to be heard."""
        if self._root not in self._closed:
            return False
        now = self._pace.clock()
        if self._ended_at is None:
            self._ended_at = now
        still_open = any(row.status not in ENDED for row in rows)
        return not still_open or now - self._ended_at >= self._pace.grace_seconds

    def _finish(self) -> None:
        self.over = True
        self._place.release()
        if self._ending is not None:
            self._hand_out(self._ending)


class _Journals:
    """The journals of a tree, as entries of a stream; asked from threads of their own."""

    def __init__(self, journal: TreeJournal, root: str, tenant: Tenant) -> None:
        self._journal = journal
        self._root = root
        self._tenant = tenant
        self._rows: dict[str, TreeRow] = {}

    async def refresh(self) -> Sequence[TreeRow]:
        """The runs there are now.

        Raises:
            RunNotFound: there is none.
        """
        rows = await asyncio.to_thread(self._journal.tree, self._root, tenant=self._tenant)
        if not rows:
            raise RunNotFound(f"There is no run {self._root}.")
        self._rows = {row.run_id: row for row in rows}
        return rows

    async def entries(self, run_id: str, after: int) -> list[Json]:
        """The events of a run after a number; none if it is not of this tree."""
        if run_id not in self._rows:
            await self.refresh()
        row = self._rows.get(run_id)
        if row is None:
            return []
        identity = RunIdentity(
            run_id=run_id,
            root_run_id=self._root,
            agent=row.agent,
            parent_run_id=row.parent_run_id,
        )
        events = await asyncio.to_thread(self._journal.events, run_id, after, tenant=self._tenant)
        return [event_entry(identity, seq, event) for seq, event in enumerate(events, after + 1)]


class _Tail:
    """The stream of a tree from a position on; whatever is wrong with Redis, it is just not there.

    Its client has no timeout of its own, because reads block; each question has one instead.
    """

    def __init__(self, url: str, root: str, position: str) -> None:
        self.position = position
        self._key = stream_key(root)
        self._client = redis.asyncio.Redis.from_url(
            url, socket_timeout=None, socket_connect_timeout=QUICK_SECONDS
        )
        self._away = False

    async def __aenter__(self) -> _Tail:
        return self

    async def __aexit__(self, *_: object) -> None:
        closing = asyncio.ensure_future(self._client.aclose())
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:  # not before the connection is closed
            await closing
            raise

    async def before(self) -> list[Published]:
        """What the stream still shows up to the position."""
        if self.position == START or await self.has_begun_again():
            return []
        found = await self._ask(self._client.xrange(self._key, max=self.position))
        return [parse_published(*each) for each in found or ()]

    async def has_begun_again(self) -> bool:
        """Whether the stream was lost and starts before the position, which then is its start."""
        last = await self._ask(self._client.xrevrange(self._key, count=1))
        if not last or not is_before(last[0][0].decode(), self.position):
            return False
        self.position = START
        return True

    async def read(self, wait: float) -> list[Published] | None:
        """What comes after the position, waited for if need be; None if Redis does not say."""
        block = math.ceil(wait * 1000) or None  # 0 would be for ever
        question = self._client.xread(
            {self._key: self.position}, count=ENTRIES_PER_READ, block=block
        )
        answer = await self._ask(question, wait)
        if answer is None:
            return None
        return [parse_published(*each) for _, entries in answer for each in entries]

    async def _ask(self, question: Awaitable[Any], wait: float = 0.0) -> Any:
        try:
            async with asyncio.timeout(wait + QUICK_SECONDS):
                answer = await question
        except (redis.RedisError, OSError) as error:
            if not self._away:
                _logger.warning("Redis gives no live events, only journals are followed: %s", error)
            self._away = True
            return None
        self._away = False
        return answer
