"""The durable engine on a workbench: whatever happens to messages and workers, the same journal."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heartbit.core.commands import Command
from heartbit.core.events import (
    DeadlinePassed,
    Event,
    LateResult,
    RunFailed,
    RunFinished,
    RunStarted,
    SubRunFinished,
    ToolReturned,
)
from heartbit.core.state import RunState
from heartbit.engines.durable import DurableEngine
from heartbit.engines.leases import Held
from heartbit.engines.plan import Plan, RunPlace
from heartbit.errors import ConfigError, RunNotFound
from tests.support.bench import (
    CHIEF,
    LEASE_SECONDS,
    RUN,
    SOLO,
    Bench,
    Died,
    Message,
    calling,
    script,
)
from tests.support.journals import call, delegating, replied
from tests.support.parity import canonical

MOST_DEATHS = 2
"""A step whose third worker is lost fails its run."""


def test_a_run_with_sub_agents_and_an_approval_ends() -> None:
    """The workbench itself: one question, one effect per call, and whoever waits is told."""
    bench = Bench()
    bench.start()
    assert "waiting" == bench.status
    assert "succeeded" == bench.until_it_ends()
    assert "chief is done" == (bench.journal.run(RUN).output or {})["result"]
    assert {1} == set(bench.effects.values())
    assert 6 == len(bench.effects)
    assert bench.journal.run(RUN).completion_done


def journals(bench: Bench) -> list[list[str]]:
    """What every journal of the tree adds up to, in no particular order."""
    runs = bench.journal.tree(RUN)
    return sorted(canonical(bench.journal.events(run.run_id)) for run in runs)


def undisturbed() -> list[list[str]]:
    """The journals of a run that nothing happened to."""
    bench = Bench()
    bench.start()
    bench.until_it_ends()
    return journals(bench)


EXPECTED = undisturbed()
ACTIONS = st.sampled_from(["deliver", "twice", "drop", "sweep", "look", "judge", "die", "mute"])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(ACTIONS, st.integers(0, 50)), max_size=60))
def test_any_order_of_any_messages_gives_the_same_journal(actions: list[tuple[str, int]]) -> None:
    """Duplicates, losses, late messages, sweeps and deaths: one journal, no effect twice."""
    chaos = _Chaos()
    for action, number in actions:
        chaos.act(action, number)
    chaos.bench.live()
    assert "succeeded" == chaos.bench.until_it_ends()
    assert EXPECTED == journals(chaos.bench)
    assert {1} == {n for key, n in chaos.bench.effects.items() if key[2] != "pure"}
    assert 6 == len(chaos.bench.effects)


PEACEFUL = st.sampled_from(["deliver", "twice", "drop", "sweep", "look"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(PEACEFUL, st.integers(0, 50)), max_size=30))
def test_batches_of_steps_give_the_same_journal_as_single_ones(
    actions: list[tuple[str, int]],
) -> None:
    """Whatever happens to messages; a worker that dies may leave calls in doubt it never began."""
    chaos = _Chaos(batched=True)
    for action, number in actions:
        chaos.act(action, number)
    assert "succeeded" == chaos.bench.until_it_ends()
    assert EXPECTED == journals(chaos.bench)
    assert {1} == set(chaos.bench.effects.values())


class _Chaos:
    """Two workers, and everything that can happen to their messages."""

    def __init__(self, *, batched: bool = False) -> None:
        self.bench = Bench(batched=batched)
        self.engines = [self.bench.engine, self.bench.worker()]
        self.sent: list[Message] = []
        self.deaths: Counter[tuple[str, str]] = Counter()
        self.bench.engine.resume(RUN)

    def act(self, action: str, number: int) -> None:
        """Do one thing; `number` says to what."""
        engine = self.engines[number % 2]
        match action:
            case "deliver":
                self._deliver(number, engine)
            case "twice" if self.sent:
                self._survive(self.sent[number % len(self.sent)], engine)
            case "drop" if self.bench.outbox.messages:
                self.bench.outbox.messages.pop(number % len(self.bench.outbox.messages))
            case "sweep":
                self.bench.later(number)
            case "look":
                runs = self.bench.journal.tree(RUN)
                engine.resume(runs[number % len(runs)].run_id)
            case "die":
                self._dying(number, engine)
            case "mute":
                self.bench.outbox.dead = True
                self._deliver(number, engine)
                self.bench.outbox.dead = False

    def _deliver(self, number: int, engine: DurableEngine) -> None:
        messages = self.bench.outbox.messages
        if messages:
            message = messages.pop(number % len(messages))
            self.sent.append(message)
            self._survive(message, engine)

    def _dying(self, number: int, engine: DurableEngine) -> None:
        """Die with the work done and its outcome not stored, if that may happen again."""

        def die(held: Held, command: Command) -> None:
            pure = getattr(getattr(command, "spec", None), "effect", "pure") == "pure"
            if pure and self.deaths[held.run_id, held.step] < MOST_DEATHS:
                self.deaths[held.run_id, held.step] += 1
                raise Died

        self.bench.after = die
        self._deliver(number, engine)
        self.bench.live()

    def _survive(self, message: Message, engine: DurableEngine) -> None:
        try:
            self.bench.deliver(message, engine)
        except Died:
            self.engines = [self.bench.worker() if e is engine else e for e in self.engines]


@pytest.mark.parametrize("batched", [False, True], ids=["each", "batched"])
@settings(max_examples=60, deadline=None)
@given(deaths=st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=12))
def test_workers_may_die_at_any_moment_and_no_payment_is_made_twice(
    batched: bool, deaths: list[tuple[bool, int]]
) -> None:
    """Before the effect, after it, while sending: the run ends, and says what it does not know."""
    bench = Bench(batched=batched)
    bench.engine.resume(RUN)
    for while_sending, number in deaths:
        _kill_once(bench, while_sending=while_sending, after_effect=number % 2 == 0)
        bench.later(LEASE_SECONDS * (number % 3))
    bench.live()
    bench.until_it_ends()
    asked = {(RUN, "2/tool/0")}  # the call that is run again when a human says so
    payments = {key: n for key, n in bench.effects.items() if key[2] == "at_most_once"}
    assert all(n == 1 for key, n in payments.items() if key[:2] not in asked)


def _kill_once(bench: Bench, *, while_sending: bool, after_effect: bool) -> None:
    def die(held: Held, command: Command) -> None:
        raise Died

    bench.outbox.dead = while_sending
    if not while_sending:
        setattr(bench, "after" if after_effect else "before", die)
    if bench.outbox.messages:
        with suppress(Died):
            bench.deliver(bench.outbox.messages.pop(0), bench.worker())
    bench.live()


def test_two_finishers_at_the_same_instant_start_one_next_turn() -> None:
    """The second one has its outcome ready before the first one is stored."""
    bench = Bench(calling("look", "look"), SOLO)
    other = bench.worker()
    bench.engine.resume(RUN)
    bench.deliver(bench.outbox.messages.pop(0))
    first, second = bench.outbox.messages

    def meanwhile(held: Held, command: Command) -> None:
        if command.step == first[2]:
            bench.deliver(second, other)

    bench.after = meanwhile
    bench.deliver(first)
    assert [("step", RUN, "2/model")] == bench.outbox.messages[2:]
    assert ["start", "1/model", "1/tool/1", "1/tool/0"] == bench.steps


def test_a_hundred_pairs_of_finishers_in_threads_hand_over_once_each() -> None:
    """No run is left without its next turn, and none gets two."""
    for _ in range(100):
        bench = Bench(calling("look", "look"), SOLO)
        bench.engine.resume(RUN)
        bench.deliver(bench.outbox.messages.pop(0))
        both = [bench.outbox.messages.pop() for _ in range(2)]
        together = threading.Barrier(2)
        bench.after = lambda held, command, b=together: b.wait() and None  # type: ignore[misc]
        threads = [
            threading.Thread(target=bench.deliver, args=(message, bench.worker()))
            for message in both
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [("step", RUN, "2/model")] == bench.outbox.messages


def test_an_unknown_step_is_an_error() -> None:
    """A message of a run or a step that never was says so."""
    bench = Bench()
    with pytest.raises(RunNotFound, match="no step '9/model'"):
        bench.engine.step(RUN, "9/model")
    with pytest.raises(RunNotFound, match="no step"):
        bench.engine.step("00000000-0000-4000-8000-00000000000f", "1/model")


def test_a_step_that_this_machine_cannot_do_is_handed_back() -> None:
    """Nothing was begun: no lease is left to run out, and no worker to be taken for lost."""
    bench = Bench(calling("pay"), SOLO)

    def unable(held: Held, command: Command) -> None:
        if command.step == "1/tool/0":
            raise ConfigError("The MCP server cannot be had.")

    bench.before = unable
    bench.engine.resume(RUN)
    bench.deliver(bench.outbox.messages.pop(0))
    with pytest.raises(ConfigError):
        bench.deliver(bench.outbox.messages.pop(0))
    bench.live()
    assert "succeeded" == bench.until_it_ends()
    assert {1} == set(bench.effects.values())


def test_the_tools_of_a_run_know_whom_it_belongs_to() -> None:
    """The tenant and the user of a run are those of its sub-runs and of every step."""
    bench = Bench()
    place = RunPlace(run_id=OTHER, root_run_id=OTHER, tenant_id="acme", user_id="eve")
    start = RunStarted(prompt="Go.", definition=CHIEF, blackboard=OTHER)
    bench.engine.open(place, start, task_id=OTHER)
    bench.engine.resume(OTHER)
    bench.deliver_all()
    seen = {(p.tenant_id, p.user_id) for p in bench.places}
    assert {("acme", "eve")} == seen


OTHER = "00000000-0000-4000-8000-000000000002"


def test_the_end_of_a_sub_run_is_announced_with_what_it_means_to_its_parent() -> None:
    """Whoever watches the tree hears of both, each after its commit."""
    heard = []

    def announce(place: RunPlace, plan: Plan) -> None:
        if plan.append.expected == 1:  # opened before there is a bench to look at
            return
        stored = bench.journal.events(place.run_id)
        first = plan.append.expected - 1
        assert tuple(plan.append.events) == stored[first : first + len(plan.append.events)]
        heard.extend((place.run_id, event.step) for event in plan.append.events)

    bench = Bench(announce=announce)
    bench.start()
    bench.until_it_ends()
    written = [(r.run_id, e.step) for r in bench.journal.tree(RUN) for e in _events(bench, r)]
    assert sorted(written, key=str) == sorted(heard, key=str)


def _events(bench: Bench, run: object) -> tuple[Event, ...]:
    events = bench.journal.events(run.run_id)  # type: ignore[attr-defined]
    return tuple(event for event in events if not isinstance(event, RunStarted))


def in_turn(state: RunState) -> Event:
    """A chief who gives out one task after the other."""
    if (state.definition.name, state.turn) != ("chief", 1):
        return script(state)
    return replied(1, call("look"), delegating(("ada", "look")), delegating(("bob", "pay")))


def test_sub_agents_one_after_another_do_not_wait_for_the_sweep() -> None:
    """Whoever ends one of them sends the next."""
    bench = Bench(in_turn, replace(CHIEF, dispatch_mode="sequential"))
    bench.start()
    ended = [e for e in bench.journal.events(RUN) if isinstance(e, SubRunFinished)]
    assert ["1/sub/0", "1/sub/1"] == [event.step for event in ended]


def test_the_chord_of_sub_runs_wakes_their_parent_and_the_sweep_does_if_it_is_lost() -> None:
    """Whoever ends the last of them leaves the next turn to it, for two seconds."""
    for lost in (False, True):
        bench = Bench(one_helper)
        bench.engine.resume(RUN)
        bench.deliver(bench.outbox.messages.pop(0))
        if lost:
            bench.outbox.chords.clear()
        bench.deliver_all()
        assert lost is (bench.journal.undispatched(RUN) == ("2/model",))
        bench.later(2.5)
        bench.deliver_all()
        assert "succeeded" == bench.status


def one_helper(state: RunState) -> Event:
    """A chief who has one helper do everything."""
    if (state.definition.name, state.turn) == ("chief", 1):
        return replied(1, delegating(("ada", "look")))
    return replied(state.turn, "done")


def test_a_deadline_ends_the_sub_runs_first_and_publishes_the_end_at_once() -> None:
    """The last sub-run to end brings the end of its run about, and whoever waits is told."""
    bench = Bench()
    bench.engine.resume(RUN)
    bench.deliver(bench.outbox.messages.pop(0))
    bench.engine.resolve(RUN, DeadlinePassed())
    assert "failed" == bench.status
    assert ("end", RUN) in bench.outbox.messages
    assert ["cancelled"] * 2 == [r.status for r in bench.journal.tree(RUN) if r.parent_run_id]


def test_a_run_that_a_step_poisons_ends_its_sub_runs_and_counts_them() -> None:
    """Those that would have come after one another are not begun."""
    bench = Bench(in_turn, replace(CHIEF, dispatch_mode="sequential"))
    bench.engine.resume(RUN)
    bench.deliver(bench.outbox.messages.pop(0))
    look = ("step", RUN, "1/tool/0")
    bench.outbox.messages.clear()
    for _ in range(3):
        bench.die_in("1/tool/0")
        with pytest.raises(Died):
            bench.deliver(look, bench.worker())
        bench.live()
        bench.later()
        bench.outbox.messages = [m for m in bench.outbox.messages if m == look]
    failed = bench.event("end")
    assert isinstance(failed, RunFailed)
    assert ("workers_lost", "failed") == (failed.code, bench.status)
    assert "1/tool/0" in failed.message
    subs = [run for run in bench.journal.tree(RUN) if run.parent_run_id]
    assert ["cancelled"] == [run.status for run in subs]


def test_a_third_loss_fails_a_run_only_if_the_step_was_alone() -> None:
    """The step goes to the queue of suspects before it is given up."""
    bench = Bench(calling("look"), SOLO)
    bench.engine.resume(RUN)
    for _ in range(2):
        bench.die_in("1/model")
        with pytest.raises(Died):
            bench.deliver(bench.outbox.messages.pop(0), bench.worker())
        bench.live()
        bench.later()
    assert "heartbit.suspects" == bench.outbox.queues["step", RUN, "1/model"]
    assert "succeeded" == bench.until_it_ends()


def test_a_cancelled_tree_ends_wherever_it_is_looked_at() -> None:
    """By a step, by a look, or by the sweep when every message is lost."""
    for way in ("step", "look", "sweep"):
        bench = Bench()
        bench.engine.resume(RUN)
        bench.deliver(bench.outbox.messages.pop(0))
        steps = [m for m in bench.outbox.messages if m[0] == "step"]
        bench.outbox.messages.clear()
        bench.engine.cancel(RUN)
        looks = bench.outbox.messages.copy()
        bench.outbox.messages.clear()
        for message in {"step": steps[:1], "look": looks, "sweep": []}[way]:
            bench.deliver(message)
        bench.later(3)
        bench.deliver_all()
        assert {"cancelled"} == {run.status for run in bench.journal.tree(RUN)}, way
        assert not bench.effects


def test_the_outcome_of_an_attempt_that_lost_its_lease_is_not_taken() -> None:
    """The next attempt's is, and it is the only one; what came late is kept for the record."""
    bench = Bench(calling("look"), SOLO)
    bench.engine.resume(RUN)
    bench.deliver(bench.outbox.messages.pop(0))
    message, other = bench.outbox.messages.pop(0), bench.worker()

    def overtaken(held: Held, command: Command) -> None:
        if held.attempt == 1 and command.step == "1/tool/0":
            bench.later()
            bench.deliver(bench.outbox.messages.pop(0), other)

    bench.after = overtaken
    bench.deliver(message)
    assert 1 == len([e for e in bench.journal.events(RUN) if isinstance(e, ToolReturned)])
    [late] = [e for e in bench.journal.events(RUN) if isinstance(e, LateResult)]
    assert ("1/tool/0", "look did it") == (late.late_step, late.outcome["content"])
    assert "succeeded" == bench.until_it_ends()


def test_a_run_that_ended_ignores_everything() -> None:
    """Steps, looks, deadlines and decisions that come too late change nothing."""
    bench = Bench(calling("look"), SOLO)
    bench.start()
    before = bench.journal.events(RUN)
    assert isinstance(before[-1], RunFinished)
    for engine in (bench.engine, bench.worker()):
        engine.step(RUN, "1/tool/0")
        engine.resume(RUN)
        engine.pass_deadline(RUN)
    assert before == bench.journal.events(RUN)
