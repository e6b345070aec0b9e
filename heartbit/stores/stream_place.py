"""Where a reader of a run tree is: what it was given, and the offset that says so.

No I/O. An offset is the id of a stream entry, followed by the events the reader was given although
the stream does not show them up to there: `1795349761160-0,<run id>:<seq>`. Whoever comes back with
it is given exactly the rest, as long as the stream still reaches back that far.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from heartbit.core.messages import Json
from heartbit.errors import ConfigError
from heartbit.stores.streams import START, Published

_OFFSET = re.compile(r"(?P<id>\d{1,20}-\d{1,20})(?P<beyond>(,[\w-]+:\d{1,9})*)", re.ASCII)
_LAST = 2**64 - 1
_OVER = (2**31, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Offset:
    """A place in a stream, and by run the last event that was given beyond it."""

    id: str = START
    beyond: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return ",".join([self.id, *(f"{run}:{seq}" for run, seq in self.beyond.items())])


def parse_offset(text: str) -> Offset:
    """The offset that a `StreamItem` carried.

    Raises:
        ConfigError: it is none.
    """
    found = _OFFSET.fullmatch(text)
    if found is None or max(_numbers(found["id"])) > _LAST:
        raise ConfigError(
            f"{text[:80]!r} is no offset of a stream: give one that came with an event, or {START} "
            "for the beginning."
        )
    beyond = (pair.rpartition(":") for pair in found["beyond"].split(",")[1:])
    return Offset(id=found["id"], beyond={run: int(seq) for run, _, seq in beyond})


def is_before(one: str, other: str) -> bool:
    """Whether one stream id is older than another."""
    return _numbers(one) < _numbers(other)


def _numbers(stream_id: str) -> tuple[int, int]:
    milliseconds, _, number = stream_id.partition("-")
    return int(milliseconds), int(number)


class Place:
    """What one reader was given: per run the number of the last event, and the text of each turn.

    Of a turn it gets a prefix of what was spoken, in one attempt: a lost piece silences the rest,
    which comes with the event that ends the turn.
    """

    def __init__(self, offset: Offset, seen: Iterable[Published] = ()) -> None:
        """`seen` is what the stream still shows up to the offset."""
        self._id = offset.id
        self._seqs: dict[str, int] = {}
        self._shown: dict[str, int] = {}
        self._heard: dict[tuple[str, str], tuple[int, int]] = {}
        self._held: list[Published] | None = None
        for published in seen:
            self._relive(published)
        for run_id, seq in offset.beyond.items():
            self._seqs[run_id] = max(seq, self.seq(run_id))

    def seq(self, run_id: str) -> int:
        """The number of the last event of a run that was given."""
        return self._seqs.get(run_id, 0)

    def given(self, entry: Json) -> None:
        """Note that an event is given."""
        self._seqs[entry["run_id"]] = entry["seq"]
        self._heard[entry["run_id"], entry["step"]] = _OVER

    def hears(self, spoken: Published) -> bool:
        """Note a piece of a turn; false if it is not the next one of its latest attempt."""
        turn = (spoken.run_id, spoken.step)
        attempt, n = self._heard.get(turn, (0, 0))
        if spoken.attempt < attempt:
            return False
        last = n if spoken.attempt == attempt else 0
        fresh = (spoken.entry or {}).get("type") == "turn_restarted" and spoken.n > last
        follows = fresh or spoken.n == last + 1
        self._heard[turn] = (spoken.attempt, spoken.n if follows else last)
        return follows

    def passed(self, published: Published) -> None:
        """Note that all that an entry of the stream stands for is given."""
        if self._held is not None:
            self._held.append(published)
            return
        self._id = published.id
        if published.seq:
            self._shown[published.run_id] = max(published.seq, self._shown.get(published.run_id, 0))

    def hold(self) -> None:
        """Stay: what is passed from now on counts from `release` on."""
        self._held = self._held or []

    def release(self) -> None:
        """Count what was passed meanwhile."""
        held, self._held = self._held or [], None
        for published in held:
            self.passed(published)

    def restart(self) -> None:
        """The stream has begun again; what was given remains given."""
        self._id = START
        self._shown.clear()

    def offset(self) -> Offset:
        """Where the reader can come back to."""
        shown = self._shown
        beyond = {run: seq for run, seq in self._seqs.items() if seq > shown.get(run, 0)}
        return Offset(id=self._id, beyond=beyond)

    def _relive(self, published: Published) -> None:
        if not published.seq:
            self.hears(published)
        elif published.seq > self.seq(published.run_id):
            self._seqs[published.run_id] = published.seq
            step = (published.entry or {}).get("step")
            self._heard[published.run_id, step or ""] = _OVER
        self.passed(published)
