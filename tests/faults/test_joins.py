"""Tool calls of one turn that end at the same instant, ten thousand times over."""

from __future__ import annotations

import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import psycopg
import pytest

from heartbit.core.agent import AgentDefinition
from heartbit.core.events import RunStarted
from heartbit.core.run import Progress, follow
from heartbit.engines.folded import FoldedRuns
from heartbit.engines.patience import Patience
from heartbit.engines.plan import Keeper, Plan, RunPlace, first_steps
from heartbit.engines.recorder import Recorder
from heartbit.stores.postgres import PostgresJournal
from heartbit.stores.records import NewRun
from tests.support.bench import Outbox
from tests.support.journals import LOOK, call, replied, returned

JOINS = 10_000
RUNS_AT_ONCE = 4
TURNS = 50
"""Joins of one run: what a turn costs the rules grows with the conversation."""
KEEPER = Keeper(owner="test", lease_seconds=600)
AGENT = AgentDefinition(name="solo", system_prompt="Act.", tools=(LOOK,), max_turns=TURNS + 1)


class Finishers:
    """Three workers of one run, each of which knows only what it has appended or was told."""

    def __init__(self, journal: PostgresJournal) -> None:
        self.journal = journal
        self.threads = ThreadPoolExecutor(3)
        self.recorders = [
            Recorder(
                journal=journal,
                outbox=Outbox(),
                runs=FoldedRuns(journal),
                lease_seconds=KEEPER.lease_seconds,
                announce=None,
                max_active_runs=None,
                patience=Patience(),
            )
            for _ in range(3)
        ]

    def work(self, runs: int) -> list[str]:
        """Do this many runs, one after the other; gives their ids."""
        return [self._run() for _ in range(runs)]

    def _run(self) -> str:
        run_id = str(uuid.uuid4())
        place = RunPlace(run_id=run_id, root_run_id=run_id)
        start = RunStarted(prompt="Go.", definition=AGENT, blackboard=run_id)
        steps = first_steps(follow(None, [start]))
        new = NewRun(run_id=run_id, task_id=run_id, root_run_id=run_id, start=start, steps=steps)
        self.journal.open_run(new)
        claim = self.journal.claim(run_id, "1/model", owner="test", lease_seconds=600, known=0)
        progress = follow(None, claim.events)
        for turn in range(1, TURNS + 1):
            progress = self._join(place, progress, turn)
        end = replied(TURNS + 1, "done")
        self.recorders[0].record(place, progress, end, step=end.step, attempt=1)
        return run_id

    def _join(self, place: RunPlace, before: Progress, turn: int) -> Progress:
        """A turn whose calls all end at once: exactly one of them begins the next turn."""
        calls = [call("look", str(n), turn=turn, n=n) for n in range(2 + turn % 2)]
        asked = replied(turn, *calls)
        plan = self.recorders[0].record(
            place, before, asked, step=asked.step, attempt=1, keeper=KEEPER
        )
        assert plan is not None
        together = Barrier(len(calls))

        def finish(n: int) -> Plan | None:
            together.wait()
            outcome = returned(f"{turn}/tool/{n}")
            return self.recorders[n].record(
                place, plan.after, outcome, step=outcome.step, attempt=1, keeper=KEEPER
            )

        plans = list(self.threads.map(finish, range(len(calls))))
        assert None not in plans
        handed_over = [p.after for p in plans if p is not None and p.append.steps]
        assert 1 == len(handed_over)
        return handed_over[0]


@pytest.mark.timeout(300)
def test_ten_thousand_joins_of_simultaneous_finishers_lose_none_and_hand_over_once_each(
    postgres: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody waits for anybody in a circle, and nobody has to ask twice because of one."""
    journal = PostgresJournal(postgres)
    lanes = [Finishers(journal) for _ in range(RUNS_AT_ONCE)]
    share = JOINS // RUNS_AT_ONCE // TURNS
    with ThreadPoolExecutor(RUNS_AT_ONCE) as pool:
        done = [pool.submit(lane.work, share) for lane in lanes]
        run_ids = [run_id for each in done for run_id in each.result()]
    assert JOINS == len(run_ids) * TURNS
    expected = Counter({"model_replied": TURNS + 1, "tool_returned": TURNS // 2 * 5})
    for run_id in run_ids:
        assert "succeeded" == journal.run(run_id).status
        events = journal.events(run_id)
        assert expected == Counter(e.type for e in events if e.type in expected)
        assert len(events) == len({event.step for event in events})
    journal.close()
    assert [] == caplog.records
    with psycopg.connect(postgres) as connection:
        query = "select deadlocks from pg_stat_database where datname = current_database()"
        assert (0,) == connection.execute(query).fetchone()
