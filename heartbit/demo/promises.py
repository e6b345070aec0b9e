"""What the durable demo has seen, and which of the promises it kept. Nothing is started here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from heartbit.chaos.record import read_record
from heartbit.core.events import ModelReplied
from heartbit.core.messages import Json
from heartbit.demo.fleet import as_line
from heartbit.stores.journal import Journal


@dataclass(frozen=True, kw_only=True, slots=True)
class Journaled:
    """What stands in the journals of a run and those below it.

    `turns` as the model's log names them, `notices` the lines of calls to `put_up` with a result.
    """

    turns: frozenset[str]
    notices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """A run whose worker was killed, and the same without: what became of them.

    `killed` was in the journal when the worker was killed, `lost` are the turns that were only
    under way, `later` those that were requested from then on. `journaled` is there at the end.
    """

    killed: Journaled
    lost: frozenset[str]
    later: Sequence[str]
    journaled: Journaled
    board: Sequence[str]
    output: Json
    undisturbed: Json

    @property
    def again(self) -> frozenset[str]:
        """The turns that stood in the journal and were requested again."""
        return self.killed.turns & set(self.later)

    @property
    def promises(self) -> Mapping[str, bool]:
        """Everything that is promised, and whether it was kept."""
        board = sorted(self.board)
        return {
            "worker-1 had done turns and an at_most_once call when it was killed": bool(
                self.killed.turns and self.killed.notices
            ),
            "no turn that stood in the journal was requested again": not self.again,
            "the board has one line for each at_most_once call": bool(board)
            and board == sorted(self.journaled.notices),
            "the answer is that of an undisturbed run": self.output["status"] == "succeeded"
            and _answer(self.output) == _answer(self.undisturbed),
        }


def _answer(output: Json) -> tuple[str, str]:
    return output["status"], output["result"]


def read_journal(journal: Journal, run_id: str) -> Journaled:
    """What stands in the journal of a run tree now."""
    rows = {row.run_id: row.agent for row in journal.tree(run_id)}
    record = read_record(journal, run_id)
    calls = [record.calls[key].call for key in record.returned]
    return Journaled(
        turns=frozenset(
            f"{agent} {turn}"
            for each, agent in rows.items()
            for turn in range(1, 1 + _replies(journal, each))
        ),
        notices=tuple(as_line(call.arguments["notice"]) for call in calls if call.name == "put_up"),
    )


def _replies(journal: Journal, run_id: str) -> int:
    return sum(isinstance(event, ModelReplied) for event in journal.events(run_id))
