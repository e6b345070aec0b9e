"""What a fork takes over in memory: the steps of the kept events as done, and a blackboard."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from heartbit.core.events import SubRunFinished
from heartbit.stores.memory_state import Tables, Written
from heartbit.stores.records import NewRun


def keep(tables: Tables, run: NewRun) -> None:
    """Copy the steps of the kept events, and what was on the blackboard when they were written."""
    origin = run.start.forked_from
    if origin is None:
        return
    for event in run.kept:
        step = tables.steps.get((origin.run_id, event.step or ""))
        if step is not None:
            tables.steps[run.run_id, step.new.step] = step.freed("done")
    tables.boards[run.run_id] = tuple(_writes(tables, run, origin.run_id))


def _writes(tables: Tables, run: NewRun, origin: str) -> list[Written]:
    # What a sub-run wrote came with the event that reports its end.
    ends = {
        event.sub_run_id: seq + 1
        for seq, event in enumerate(run.kept, 2)
        if isinstance(event, SubRunFinished)
    }
    versions: Counter[str] = Counter()
    kept: list[Written] = []
    for write in tables.boards.get(origin, ()):
        run_seq = write.run_seq if write.run_id == origin else ends.get(write.run_id)
        if run_seq is not None and run_seq <= len(run.kept) + 2:
            versions[write.key] += 1
            version = versions[write.key]
            kept.append(replace(write, version=version, run_id=run.run_id, run_seq=run_seq))
    return kept
