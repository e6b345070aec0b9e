"""What a fork keeps: the beginning of a journal, up to the point where one of its turns is asked.

The kept events are those of the first run, unchanged, behind a start of their own. They must lead
where they led: what the new start says otherwise counts from the forked turn on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from heartbit.core.agent import AgentDefinition
from heartbit.core.events import Event, Origin, RunStarted
from heartbit.core.run import Progress, follow
from heartbit.errors import RunStateError


@dataclass(frozen=True, kw_only=True, slots=True)
class Fork:
    """How the new run begins: its start, and the kept events that come after it."""

    start: RunStarted
    kept: tuple[Event, ...]


def fork(
    events: Sequence[Event],
    origin: Origin,
    *,
    blackboard: str,
    model: str | None = None,
    prompt: str | None = None,
) -> Fork:
    """Keep everything of a journal before the turn that `origin` names.

    A `model` is that of the agent, and of every sub-agent that is served by the same provider. A
    `prompt` takes the place of the one the conversation begins with, above the kept turns.

    Raises:
        RunStateError: the run has no such turn, or what is kept does not follow from the prompt.
    """
    kept = _before(events, origin)
    started = kept[0]
    assert isinstance(started, RunStarted)  # noqa: S101 - follow() has accepted the journal
    start = replace(
        started,
        prompt=started.prompt if prompt is None else prompt,
        definition=started.definition if model is None else _with(model, started.definition),
        blackboard=blackboard,
        forked_from=origin,
    )
    forked = Fork(start=start, kept=tuple(kept[1:]))
    if prompt is not None and not _leads_the_same_way(kept, (start, *forked.kept)):
        raise RunStateError(
            f"The turns before turn {origin.turn} of run {origin.run_id} do not fit the new "
            "prompt: with it the conversation would have been summarised elsewhere. Fork from "
            "turn 1."
        )
    return forked


def _before(events: Sequence[Event], origin: Origin) -> Sequence[Event]:
    turn = 0
    for seq, progress in enumerate(_folded(events), 1):
        turn = max(turn, progress.state.turn)
        if f"{origin.turn}/model" in progress.commands:
            return events[:seq]
    there = "turn 1 only" if turn == 1 else f"the turns 1 to {turn}"
    raise RunStateError(f"Run {origin.run_id} has {there}; it has no turn {origin.turn}.")


def _folded(events: Iterable[Event]) -> Iterator[Progress]:
    progress = None
    for event in events:
        progress = follow(progress, [event])
        yield progress


def _leads_the_same_way(one: Sequence[Event], other: Sequence[Event]) -> bool:
    """Whether the same steps are open after each event; the first difference ends the folding."""
    both = zip(_folded(one), _folded(other), strict=True)
    return all(first.commands.keys() == second.commands.keys() for first, second in both)


def _with(model: str, definition: AgentDefinition) -> AgentDefinition:
    delegates = tuple(
        replace(each, model=model) if each.provider == definition.provider else each
        for each in definition.delegates
    )
    return replace(definition, model=model, delegates=delegates)
