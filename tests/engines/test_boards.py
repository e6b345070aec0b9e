"""A step's writes to blackboards are stored with its outcome: all of them, once, or none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from heartbit.core.commands import CallTool, Command
from heartbit.core.state import RunState
from heartbit.engines.boards import StepBoards
from heartbit.engines.leases import Held
from heartbit.engines.plan import RunPlace
from heartbit.engines.ports import Done
from heartbit.errors import ToolError
from heartbit.stores.memory_journal import InMemoryJournal
from tests.support.bench import RUN, SOLO, Bench, calling
from tests.support.journals import returned


@pytest.fixture
def stored() -> InMemoryJournal:
    """A journal whose blackboard has one key."""
    journal = InMemoryJournal()
    journal.board_write("board", "a", 1, run_id=RUN)
    return journal


def test_a_step_sees_what_it_wrote_and_nobody_else_does(stored: InMemoryJournal) -> None:
    """Until its outcome is stored."""
    boards = StepBoards(stored)
    assert 2 == boards.board_write("board", "a", [2], run_id=RUN)
    assert 1 == boards.board_write("board", "b", None, run_id=RUN)
    assert (([2], 2), (None, 1)) == (
        boards.board_read("board", "a"),
        boards.board_read("board", "b"),
    )
    assert ("a", "b") == boards.board_keys("board")
    assert () == boards.board_keys("elsewhere")
    assert ((1, 1), ("a",)) == (stored.board_read("board", "a"), stored.board_keys("board"))


def test_each_write_says_for_which_version_it_was_made(stored: InMemoryJournal) -> None:
    """Also the second one of the same key in the same step."""
    boards = StepBoards(stored)
    for value in (2, 3):
        boards.board_write("board", "a", value, run_id=RUN)
    assert [(2, 1), (3, 2)] == [(w.value, w.expected_version) for w in boards.writes]


def test_a_write_for_another_version_is_refused_at_once(stored: InMemoryJournal) -> None:
    """The caller reads again, and nothing is kept."""
    boards = StepBoards(stored)
    with pytest.raises(ToolError):
        boards.board_write("board", "a", 2, run_id=RUN, expected=0)
    boards.board_write("board", "a", 2, run_id=RUN, expected=1)
    boards.board_write("board", "a", 3, run_id=RUN, expected=2)
    assert 2 == len(boards.writes)


@pytest.mark.parametrize(
    ("key", "value"),
    [("", 1), ("a", object()), ("a", float("nan"))],
    ids=["no key", "no JSON", "no number"],
)
def test_what_cannot_be_stored_is_refused_and_leaves_nothing(
    stored: InMemoryJournal, key: Any, value: Any
) -> None:
    """Before it is part of an outcome, which it would keep from being stored."""
    boards = StepBoards(stored)
    with pytest.raises(ToolError):
        boards.board_write("board", key, value, run_id=RUN)
    assert [] == boards.writes
    assert (1, 1) == boards.board_read("board", "a")


def test_what_was_written_is_a_copy(stored: InMemoryJournal) -> None:
    """Whoever changes a value after its write, or one that was read, writes nothing."""
    boards, value = StepBoards(stored), [1]
    boards.board_write("board", "a", value, run_id=RUN)
    value.append(2)
    assert [1] == boards.writes[0].value


def test_a_value_that_was_read_back_can_be_changed_without_writing(
    stored: InMemoryJournal,
) -> None:
    """As with every blackboard: a read gives a value of its own."""
    boards = StepBoards(stored)
    boards.board_write("board", "a", [1], run_id=RUN)
    boards.board_read("board", "a")[0].append(2)
    assert [1] == boards.writes[0].value
    assert [1] == boards.board_read("board", "a")[0]


class Counting(Bench):
    """A run whose calls each add one to a key, as a step of the durable engine does."""

    def __init__(self, *tools: str) -> None:
        super().__init__(calling(*tools), SOLO)
        self.between: Callable[[str], None] = lambda step: None
        self.tries = 0

    def _done(self, command: Command, state: RunState, place: RunPlace) -> Done:
        if not isinstance(command, CallTool):
            return super()._done(command, state, place)
        self.tries += 1
        boards = StepBoards(self.journal)
        count = (boards.board_read("board", "n")[0] or 0) + 1
        boards.board_write("board", "n", count, run_id=RUN)
        boards.board_write("board", f"own {command.step}", count, run_id=RUN)
        self.between(command.step)
        return Done(event=returned(command.step, str(count)), board=boards.writes)

    def versions(self, key: str) -> list[Any]:
        """Every value that a key ever had."""
        return [entry.value for entry in self.journal.board_after("board", 0) if entry.key == key]


def test_a_step_that_was_overtaken_runs_again_and_nothing_is_written_twice() -> None:
    """Two steps add one each, at the same time: the sum is two, in two versions."""
    bench = Counting("look", "look")
    bench.engine.resume(RUN)
    bench.deliver(bench.outbox.messages.pop(0))
    first, second = bench.outbox.messages

    def meanwhile(step: str) -> None:
        bench.between = lambda step: None
        bench.deliver(second, bench.worker())

    bench.between = meanwhile
    bench.deliver(first)
    assert 3 == bench.tries
    assert [1, 2] == bench.versions("n")
    assert ([2], [1]) == (bench.versions("own 1/tool/0"), bench.versions("own 1/tool/1"))
    assert ["start", "1/model", "1/tool/1", "1/tool/0"] == bench.steps


def test_somebody_else_s_write_is_never_lost() -> None:
    """Not even one from outside of any step."""
    bench = Counting("look")
    bench.engine.resume(RUN)

    def meanwhile(step: str) -> None:
        bench.between = lambda step: None
        bench.journal.board_write("board", "n", 10, run_id=RUN)

    bench.between = meanwhile
    bench.deliver_all()
    assert [10, 11] == bench.versions("n")


def test_a_step_whose_attempt_was_overtaken_writes_nothing() -> None:
    """Its outcome does not count, so neither do its writes."""
    bench = Counting("look")
    bench.engine.resume(RUN)
    bench.deliver(bench.outbox.messages.pop(0))
    message = bench.outbox.messages.pop(0)

    def overtaken(step: str) -> None:
        bench.between = lambda step: None
        bench.later()
        bench.deliver(bench.outbox.messages.pop(0), bench.worker())

    bench.between = overtaken
    bench.deliver(message)
    assert [1] == bench.versions("n")
    assert 2 == bench.tries


def test_a_step_that_ran_twice_at_once_is_stored_once() -> None:
    """A message that was delivered twice, in the same instant, on two machines."""
    bench = Counting("look")
    bench.engine.resume(RUN)
    bench.deliver(bench.outbox.messages.pop(0))
    [message] = bench.outbox.messages
    held: list[Held] = []
    bench.before = lambda h, c: held.append(h)
    bench.between = lambda step: bench.deliver(message, bench.worker())
    bench.deliver(message)
    assert 1 == len(held)
    assert [1] == bench.versions("n")
