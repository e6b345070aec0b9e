"""What a fleet does now and then: sent once by whoever sweeps, however many do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from heartbit.engines.chores import EMBED_MEMORIES, PRUNE_MEMORIES, Chores, memory_chores
from heartbit.engines.recovery import Sweep
from heartbit.stores.journal import Journal
from heartbit.stores.memories.in_memory import InMemoryMemories
from heartbit.testing import HashEmbedder
from heartbit.tools.memory import Memories
from tests.support.bench import LEASE_SECONDS, Bench, Outbox
from tests.support.stages import ClockedJournal, Stage, memory_stage

MINUTE, DAY = 60.0, 24 * 3600.0
MODEL = Memories(store=InMemoryMemories(), embedder=HashEmbedder())


@pytest.fixture(params=["memory", "postgres"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A journal of each kind, whose clock can be moved."""
    if request.param == "memory":
        yield memory_stage()
        return
    made = Stage(ClockedJournal(request.getfixturevalue("postgres")))
    yield made
    made.journal.close()


class Process:
    """A process of a fleet that looks after chores."""

    def __init__(self, journal: Journal, memories: Memories | None = MODEL) -> None:
        self.outbox = Outbox()
        self.now = 0.0
        self.chores = Chores(journal, self.outbox, memory_chores(memories), clock=lambda: self.now)

    def sent(self) -> list[str]:
        """What it sends when it looks a minute later."""
        self.now += MINUTE
        self.outbox.messages.clear()
        self.chores.look()
        return [task for _, task in self.outbox.messages]


def test_one_process_of_a_fleet_sends_each_chore(stage: Stage) -> None:
    """Whoever looks first; the others find it done."""
    fleet = [Process(stage.journal) for _ in range(3)]
    assert [[PRUNE_MEMORIES, EMBED_MEMORIES], [], []] == [each.sent() for each in fleet]


def test_pruning_is_due_once_a_day_and_embedding_once_an_hour(stage: Stage) -> None:
    """By the clock of the database."""
    process = Process(stage.journal)
    process.sent()
    stage.advance(MINUTE)
    assert [] == process.sent()
    stage.advance(3600)
    assert [EMBED_MEMORIES] == process.sent()
    stage.advance(DAY)
    assert [PRUNE_MEMORIES, EMBED_MEMORIES] == process.sent()


def test_another_model_is_not_waited_for(stage: Stage) -> None:
    """A worker with a new configuration begins at once."""
    Process(stage.journal).sent()
    other = Memories(store=InMemoryMemories(), embedder=HashEmbedder(model="other"))
    assert [EMBED_MEMORIES] == Process(stage.journal, other).sent()


@pytest.mark.parametrize(
    ("memories", "tasks"),
    [(None, []), (Memories(store=InMemoryMemories()), [PRUNE_MEMORIES])],
    ids=["no memory", "no embedder"],
)
def test_only_what_is_configured_is_looked_after(
    stage: Stage, memories: Memories | None, tasks: list[str]
) -> None:
    """Nothing is sent that no worker could do."""
    assert tasks == Process(stage.journal, memories).sent()


def test_a_process_asks_the_database_once_a_minute() -> None:
    """And not at each of its sweeps, of which there is one a second."""
    process = Process(memory_stage().journal)
    process.sent()
    process.now += MINUTE - 1
    process.outbox.messages.clear()
    process.chores._journal = None  # type: ignore[assignment]
    process.chores.look()
    assert [] == process.outbox.messages


def test_the_sweep_looks_after_chores_while_there_is_a_broker() -> None:
    """Else what is due would be lost until the next time."""
    bench = Bench(lambda state: "Done.")  # type: ignore[arg-type,return-value]
    chores = Chores(bench.journal, bench.outbox, memory_chores(MODEL))
    sweep = Sweep(bench.journal, bench.engine, lease_seconds=LEASE_SECONDS, chores=chores)
    bench.outbox.unreachable = True
    sweep.once()
    assert ("chore", PRUNE_MEMORIES) not in bench.outbox.messages
    bench.outbox.unreachable = False
    bench.clock.now += 2
    sweep.once()
    assert ("chore", PRUNE_MEMORIES) in bench.outbox.messages
