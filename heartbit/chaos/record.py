"""What a run has left behind, in a form in which two runs of the same script can be compared.

Pure, but for the reading: run ids are replaced by places, and what differs for good reasons (usage,
late results, the wording of an outcome that nobody knows) is left out.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from heartbit.chaos.stage import fingerprint
from heartbit.core.agent import as_json
from heartbit.core.calls import OUTCOME_UNKNOWN
from heartbit.core.commands import CallModel, CallTool, Summarise
from heartbit.core.events import ContextSummarised, Event, ModelReplied, ToolReturned
from heartbit.core.memory import Memory
from heartbit.core.messages import Json
from heartbit.core.run import Progress, follow, model_request
from heartbit.core.summary import summary_request
from heartbit.engines.chaos import place_of_row
from heartbit.stores.journal import Journal
from heartbit.stores.records import RunRow

MASKED = frozenset({"usage", "cost_usd", "definition", "sub_run_id", "blackboard"})
MEMORY_ID = re.compile(r"\bm[0-9a-f]{12}\b")
UNKNOWN = "the outcome of this call is unknown"
Entry = tuple[str, str, str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """A run tree: its journals by place, its blackboard, and what its root has come to.

    `memories` are those that its agents have afterwards.
    """

    status: str
    result: Json
    entries: Counter[Entry]
    board: tuple[tuple[str, int], ...]
    turns: Counter[str]
    calls: Mapping[tuple[str, str], CallTool]
    returned: Mapping[tuple[str, str], ToolReturned]
    memories: tuple[str, ...] = ()


def read_record(journal: Journal, run_id: str, memories: Iterable[Memory] = ()) -> Record:
    """The record of a run tree as it stands now, with the memories of its user."""
    rows = journal.tree(run_id)
    root = next(row for row in rows if row.run_id == run_id)
    journals = [(row, journal.events(row.run_id)) for row in rows]
    folded = [_folded(row, events) for row, events in journals]
    names = {row.run_id: place_of_row(row) for row in rows}
    return Record(
        status=root.status,
        result={k: (root.output or {}).get(k) for k in ("result", "structured", "error_code")},
        entries=Counter(
            entry for row, events in journals for entry in _entries(row, events, names)
        ),
        board=tuple(sorted((e.key, e.version) for e in journal.board_after(run_id, 0))),
        turns=Counter(request for each in folded for request in each.turns),
        calls={key: call for each in folded for key, call in each.calls.items()},
        returned={key: event for each in folded for key, event in each.returned.items()},
        memories=_remembered(list(memories)),
    )


def _remembered(memories: Sequence[Memory]) -> tuple[str, ...]:
    """All there is to memories but their times and their ids, which are made of the user's."""
    contents = {each.id: each.content for each in memories}
    return tuple(sorted(json.dumps(_timeless(each, contents)) for each in memories))


def _timeless(memory: Memory, contents: Mapping[str, str]) -> Json:
    links = sorted(contents.get(each, "?") for each in memory.related_ids)
    times = {"id", "created_at", "last_accessed", "strength", "namespace", "source_ids"}
    kept = {f.name: getattr(memory, f.name) for f in fields(memory) if f.name not in times}
    own = {"agent": memory.namespace.agent, "sources": len(memory.source_ids)}
    return {**kept, **own, "related_ids": links}


@dataclass(kw_only=True, slots=True)
class _Folded:
    turns: list[str]
    calls: dict[tuple[str, str], CallTool]
    returned: dict[tuple[str, str], ToolReturned]


def _folded(row: RunRow, events: Sequence[Event]) -> _Folded:
    """The requests that were answered, and the calls that were to be made."""
    found = _Folded(turns=[], calls={}, returned={})
    progress: Progress | None = None
    for event in events:
        if progress is not None and isinstance(event, ModelReplied | ContextSummarised):
            found.turns += _request(progress, event.step)
        if isinstance(event, ToolReturned):
            found.returned[row.run_id, event.step] = event
        progress = follow(progress, [event])
        commands = progress.commands.values()
        calls = [command for command in commands if isinstance(command, CallTool)]
        found.calls |= {(row.run_id, call.step): call for call in calls}
    return found


def _request(progress: Progress, step: str) -> list[str]:
    state, command = progress.state, progress.commands.get(step)
    if isinstance(command, CallModel):
        return [fingerprint(model_request(state))]
    if isinstance(command, Summarise):
        definition, messages = state.definition, state.messages
        return [fingerprint(summary_request(definition, messages, state.summary, command.upto))]
    return []


def _entries(row: RunRow, events: Sequence[Event], names: Mapping[str, str]) -> list[Entry]:
    return [
        (place_of_row(row), event.step or "", event.type, _masked(event, names))
        for event in events
        if event.type != "late_result"
    ]


def _masked(event: Event, names: Mapping[str, str]) -> str:
    if isinstance(event, ToolReturned) and event.content == OUTCOME_UNKNOWN:
        return UNKNOWN
    text = json.dumps(_without(as_json(event)), sort_keys=True)
    for run_id, name in names.items():
        text = text.replace(run_id, name)
    return MEMORY_ID.sub("m*", text)


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without(v) for k, v in value.items() if k not in MASKED}
    return [_without(each) for each in value] if isinstance(value, list) else value
