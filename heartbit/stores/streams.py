"""What a run tree says as it says it: one Redis Stream per tree, written by every worker.

A stream only speeds things up. Nothing here waits for Redis or fails because of it: what is lost of
events a reader takes from the journal, and what is lost of a reply's text is in the event that ends
its turn.
"""

from __future__ import annotations

import itertools
import json
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis
from redis.typing import EncodableT, FieldT

from heartbit.core.messages import Json
from heartbit.core.stream import RunIdentity, text_delta, turn_restarted
from heartbit.stores.redis_client import PAUSE_SECONDS, Outage

START = "0-0"
MAX_ENTRIES = 10_000
TTL_SECONDS = 6 * 3600
MAX_ENTRY_BYTES = 65_536
BATCH_SECONDS = 0.03

Fields = dict[FieldT, EncodableT]

_logger = logging.getLogger("heartbit.streams")


def stream_key(root_run_id: str) -> str:
    """Where the stream of a run tree is."""
    return f"heartbit:{{{root_run_id}}}:events"


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """One entry of a stream.

    An event has a `seq`, and no `entry` if that is too large for the stream. Text has the `step`
    and `attempt` it belongs to, and its number `n` within the attempt, counted from 1.
    """

    id: str
    run_id: str
    seq: int = 0
    step: str = ""
    attempt: int = 0
    n: int = 0
    entry: Json | None = None


def event_fields(entry: Json) -> Fields:
    """The fields of a stream entry for an `event_entry`."""
    fields: Fields = {"run": entry["run_id"], "seq": str(entry["seq"])}
    text = _encoded(entry)
    return fields | {"entry": text} if len(text) <= MAX_ENTRY_BYTES else fields


def spoken_fields(n: int, entry: Json) -> Fields:
    """The fields of a stream entry for a `text_delta` or `turn_restarted`."""
    return {
        "run": entry["run_id"],
        "step": entry["step"],
        "attempt": str(entry["attempt"]),
        "n": str(n),
        "entry": _encoded(entry),
    }


def parse_published(entry_id: bytes, fields: Mapping[bytes, bytes]) -> Published:
    """What a stream holds under an id; of what we did not write, nothing but the id."""
    try:
        return Published(
            id=entry_id.decode(),
            run_id=fields[b"run"].decode(),
            seq=int(fields.get(b"seq", 0)),
            step=fields.get(b"step", b"").decode(),
            attempt=int(fields.get(b"attempt", 0)),
            n=int(fields.get(b"n", 0)),
            entry=json.loads(fields[b"entry"]) if b"entry" in fields else None,
        )
    except (KeyError, ValueError):
        return Published(id=entry_id.decode(), run_id="")


def _encoded(entry: Json) -> str:
    """In ASCII, so that NUL and lone surrogates survive."""
    return json.dumps(entry, separators=(",", ":"))


@dataclass(kw_only=True, slots=True)
class _Event:
    """An event of a journal."""

    entry: Json
    sent: bool = False

    def fields(self) -> Fields:
        return event_fields(self.entry)


@dataclass(kw_only=True, slots=True)
class _Spoken:
    """An entry that takes more text until it is sent."""

    entry: Json
    n: int
    pieces: list[str] = field(default_factory=list)
    sent: bool = False

    def fields(self) -> Fields:
        said = {"text": "".join(self.pieces)} if self.pieces else {}
        return spoken_fields(self.n, self.entry | said)


_Batch = dict[str, list[_Event | _Spoken]]


class _Buffer:
    """What is to be sent, by stream, at the next tick; what is urgent does not wait for it."""

    def __init__(self, batch_seconds: float) -> None:
        self._batch_seconds = batch_seconds
        self._changed = threading.Condition()
        self._waiting: _Batch = {}
        self._urgent: set[str] = set()
        self._due = 0.0
        self._closed = False

    def put(self, root: str, items: Sequence[_Event | _Spoken], *, urgent: bool) -> None:
        with self._changed:
            if self._closed:
                return
            is_first = not self._waiting
            self._waiting.setdefault(root, []).extend(items)
            if urgent:
                self._urgent.add(root)
            if urgent or is_first:
                self._changed.notify()

    def add(self, spoken: _Spoken, text: str) -> bool:
        """Add to an entry, unless it is sent already."""
        with self._changed:
            if not spoken.sent:
                spoken.pieces.append(text)
            return not spoken.sent

    def take(self) -> _Batch | None:
        """Wait for something to send; None when the buffer is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return None
            self._changed.wait_for(
                lambda: self._urgent or self._closed, self._due - time.monotonic()
            )
            now = time.monotonic()
            if everything := self._closed or now >= self._due:
                self._due = now + self._batch_seconds
            roots = list(self._waiting if everything else self._urgent)
            self._urgent.clear()
            batch = {root: self._waiting.pop(root) for root in roots}
            for item in itertools.chain.from_iterable(batch.values()):
                item.sent = True
            return batch

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()


class StreamWriter:
    """Publishes what the runs of this process say; may be used from any thread and any loop.

    Its own thread does all sending. While Redis is away everything is dropped, with one line in the
    log.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        batch_seconds: float = BATCH_SECONDS,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        """After a failure Redis is left alone for `pause_seconds`."""
        self._client = client
        self._buffer = _Buffer(batch_seconds)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._outage = Outage(
            _logger,
            gone="Redis takes no live events, so runs go on unheard and readers follow journals",
            back="Redis takes live events again.",
            pause_seconds=pause_seconds,
        )

    def publish_events(self, root_run_id: str, entries: Sequence[Json]) -> None:
        """Publish the `event_entry` of what has been committed; twice or late does no harm."""
        if entries:
            self.put(root_run_id, [_Event(entry=entry) for entry in entries], urgent=False)

    def listener(self, identity: RunIdentity, step: str, attempt: int) -> StreamListener:
        """Hears a reply for the readers of the run; of a later attempt they are told so."""
        listener = StreamListener(self, identity, step, attempt)
        if attempt > 1:
            listener.restarted("The turn was started again.")
        return listener

    def close(self) -> None:
        """Send what is waiting, and publish no more."""
        self._buffer.close()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def put(self, root: str, items: Sequence[Any], *, urgent: bool) -> None:
        """Have something sent."""
        self._buffer.put(root, items, urgent=urgent)
        if self._thread is None:
            self._start()

    def add(self, spoken: _Spoken, text: str) -> bool:
        """Add to an entry, unless it is sent already."""
        return self._buffer.add(spoken, text)

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._serve, name="heartbit-streams", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # too many threads, or the process is ending
                self._outage.failed(error)
            else:
                self._thread = thread

    def _serve(self) -> None:
        while (batch := self._buffer.take()) is not None:
            if not self._outage.is_on:
                self._try_to_send(batch)

    def _try_to_send(self, batch: _Batch) -> None:
        try:
            self._send(batch)
        except (redis.RedisError, OSError) as error:
            self._outage.failed(error)
        except Exception:  # this thread serves every run of the process
            _logger.exception("Something could not be published.")
        else:
            self._outage.worked()

    def _send(self, batch: _Batch) -> None:
        with self._client.pipeline(transaction=False) as pipeline:
            for root, items in batch.items():
                key = stream_key(root)
                for item in items:
                    pipeline.xadd(key, item.fields(), maxlen=MAX_ENTRIES, approximate=True)
                pipeline.expire(key, TTL_SECONDS)
            pipeline.execute()


class StreamListener:
    """A `Listener` for one attempt of one step. Its calls take microseconds and never raise."""

    def __init__(
        self, writer: StreamWriter, identity: RunIdentity, step: str, attempt: int
    ) -> None:
        self._writer = writer
        self._identity = identity
        self._step = step
        self._attempt = attempt
        self._n = 0
        self._hushed = True
        self._open: _Spoken | None = None

    def text(self, delta: str) -> None:
        """More text of the reply: the first at once, later text in batches."""
        if self._open is None or not self._writer.add(self._open, delta):
            entry = text_delta(self._identity, self._step, self._attempt, "")
            self._open = self._put(entry, [delta], urgent=self._hushed)
            self._hushed = False

    def restarted(self, reason: str) -> None:
        """What was heard so far is void."""
        entry = turn_restarted(self._identity, self._step, self._attempt, reason)
        self._put(entry, [], urgent=True)
        self._open, self._hushed = None, True

    def _put(self, entry: Json, pieces: list[str], *, urgent: bool) -> _Spoken:
        self._n += 1
        spoken = _Spoken(entry=entry, n=self._n, pieces=pieces)
        self._writer.put(self._identity.root_run_id, [spoken], urgent=urgent)
        return spoken
