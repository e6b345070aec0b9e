"""Whether a run that was disturbed has kept the promises, compared with one that was not. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from heartbit.chaos.record import UNKNOWN, Entry, Record
from heartbit.core.messages import Json

Checks = Mapping[str, Sequence[str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Strike:
    """What was true at the moment at which a process was struck.

    `turns` are the answered requests that stood in the journal, `asked` is how many requests the
    models had got.
    """

    turns: Counter[str]
    asked: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """Everything that was seen of one run: its journal, and what its models and tools noted."""

    record: Record
    requests: Sequence[str]
    calls: Sequence[Json]
    strike: Strike | None = None
    late: Sequence[str] = ()


def judge(seen: Seen, undisturbed: Record) -> Checks:
    """What is wrong with each promise; nothing where it was kept."""
    return {
        "result": list(_result(seen.record, undisturbed)),
        "journal": list(_journal(seen.record, undisturbed)),
        "tools": list(_tools(seen)),
        "turns": list(_turns(seen)),
        "late": list(_late(seen)),
    }


def _result(record: Record, undisturbed: Record) -> Iterator[str]:
    if record.status != undisturbed.status:
        yield f"the run is {record.status}, not {undisturbed.status}"
    elif record.result != undisturbed.result:
        yield f"the result is {record.result}, not {undisturbed.result}"


def _journal(record: Record, undisturbed: Record) -> Iterator[str]:
    """The same events, but for calls whose outcome is unknown; the same blackboard and memories."""
    unknown = {entry[:3] for entry in record.entries if entry[3] == UNKNOWN}
    got, expected = _known(record, unknown), _known(undisturbed, unknown)
    for name, events in (("missing", expected - got), ("too many", got - expected)):
        for place, step, kind, _ in events:
            yield f"{name}: {kind} {step} of {place}"
    if record.board != undisturbed.board:
        yield f"the blackboard has {record.board}, not {undisturbed.board}"
    if record.memories != undisturbed.memories:
        yield f"the memories are {record.memories}, not {undisturbed.memories}"


def _known(record: Record, unknown: set[tuple[str, str, str]]) -> Counter[Entry]:
    return Counter(
        {
            ((*entry[:3], UNKNOWN) if entry[:3] in unknown else entry): count
            for entry, count in record.entries.items()
        }
    )


def _tools(seen: Seen) -> Iterator[str]:
    """A call that must not be repeated began once at most; a pure one with a result, at least."""
    begun = Counter((call["run_id"], call["step"]) for call in seen.calls)
    for key, command in seen.record.calls.items():
        name, effect = command.call.name, command.spec.effect
        returned = seen.record.returned.get(key)
        if effect == "at_most_once" and begun[key] > 1:
            yield f"{name} ({key[1]}) was begun {begun[key]} times"
        if effect == "pure" and returned and not returned.is_error and begun[key] < 1:
            yield f"{name} ({key[1]}) has a result and was never begun"


def _turns(seen: Seen) -> Iterator[str]:
    """No turn that stood in the journal when the process was struck is asked for again."""
    if seen.strike is None:
        return
    later = Counter(seen.requests[seen.strike.asked :])
    for request, journaled in seen.strike.turns.items():
        open_then = seen.record.turns[request] - journaled
        if later[request] > open_then:
            yield f"a turn of the journal was requested again ({request[:8]})"


def _late(seen: Seen) -> Iterator[str]:
    if "after" in seen.late:
        yield "what a frozen worker brought late was accepted"
