"""Random agents: whatever they say, in whatever order results arrive, the rules keep their word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from heartbit.core.agent import (
    AgentDefinition,
    ContextStrategy,
    DispatchMode,
    MemoryPolicy,
    PermissionRule,
    SessionPrune,
)
from heartbit.core.commands import (
    AskApproval,
    CallModel,
    CallTool,
    Command,
    Consolidate,
    Finish,
    RefuseCall,
    StartSubRun,
    Summarise,
)
from heartbit.core.events import (
    ApprovalRequested,
    ApprovalResolved,
    ContextSummarised,
    DeadlinePassed,
    Decision,
    Event,
    LateResult,
    MemoriesConsolidated,
    ModelFailed,
    ModelReplied,
    RunCancelled,
    SubRunFinished,
)
from heartbit.core.messages import Message, ToolCall, ToolResult, Usage
from heartbit.core.run import advance, model_request, replay
from heartbit.core.state import RunState
from heartbit.engines.perform import settle
from heartbit.stores.codec import decode_event, encode_event
from tests.support.journals import (
    LOOK,
    MOVE,
    SUBS,
    call,
    delegating,
    replied,
    returned,
    started,
    sub_finished,
)

few = settings(max_examples=25, deadline=None)
Draw = Callable[[st.SearchStrategy], Any]
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
DEFINITIONS = st.builds(
    AgentDefinition,
    name=st.just("chief"),
    tools=st.just((LOOK, MOVE)),
    delegates=st.sampled_from([SUBS, ()]),
    dispatch_mode=st.sampled_from(["parallel", "sequential"]),
    max_turns=st.sampled_from([6, 6, 6, 2, 1]),
    max_total_tokens=st.sampled_from([None, None, None, 40]),
    max_identical_tool_calls=st.none() | st.just(2),
    response_schema=st.none() | st.just(SCHEMA),
    session_prune=st.none() | st.just(SessionPrune(keep_recent_n=1)),
    context_strategy=st.sampled_from(
        [
            ContextStrategy(),
            ContextStrategy(type="sliding_window", max_tokens=60),
            ContextStrategy(type="summarize", threshold=30),
        ]
    ),
    permissions=st.sampled_from(
        [(), (PermissionRule(tool="move", action="ask"), PermissionRule(tool="*", action="allow"))]
    ),
    approve=st.booleans(),
    memory=st.sampled_from([None, MemoryPolicy(), MemoryPolicy(consolidate_on_exit=True)]),
)
TASKS = st.lists(
    st.tuples(st.sampled_from(["ada", "bob", "ida"]), st.just("work")), min_size=1, max_size=3
)
CALLS = st.one_of(
    st.sampled_from(["look", "move", "lock"]).map(lambda name: call(name, name, x=1)),
    st.integers(0, 9).map(lambda x: call("look", "", x=x)),
    st.just(ToolCall(id="m", name="look", arguments={}, malformed='{"x":')),
    st.sampled_from([1, "one"]).map(lambda n: call("__respond__", "r", n=n)),
    TASKS.map(lambda tasks: delegating(*tasks)),
    TASKS.map(lambda tasks: delegating(*tasks, tool="form_squad")),
)
STOPS = st.sampled_from([None] * 30 + ["max_tokens", "refusal", "pause_turn", "context_too_long"])
DECISIONS = st.builds(
    Decision,
    position=st.just(0),
    verdict=st.sampled_from(["approve", "deny", "edit"]),
    reason=st.none() | st.just("no"),
    arguments=st.none() | st.just({"x": 2}),
    always=st.booleans(),
)


def outcome(draw: Draw, command: Command, state: RunState) -> Event:
    """A random thing that performing `command` may have led to."""
    match command:
        case CallModel():
            return _model_outcome(draw, command)
        case CallTool():
            return returned(command.step, f"did {command.step}", is_error=draw(st.booleans()))
        case StartSubRun():
            agent = command.definition.name
            status = draw(st.sampled_from(["succeeded", "failed", "cancelled"]))
            return sub_finished(command.step, agent, status=status, usage=Usage(input_tokens=3))
        case Summarise():
            text = draw(st.none() | st.just("short"))
            return ContextSummarised(step=command.step, summary=text, upto=command.upto)
        case Consolidate():
            usage = Usage(output_tokens=draw(st.sampled_from([0, 2])))
            return MemoriesConsolidated(step=command.step, usage=usage)
        case RefuseCall() | AskApproval() | Finish():
            return settle(command, state)


def _model_outcome(draw: Draw, command: CallModel) -> Event:
    error = draw(st.sampled_from([None] * 20 + ["ContextTooLong", "ContextTooLong", "Overloaded"]))
    if error:
        return ModelFailed(step=command.step, error=error, message="Failed.")
    least = draw(st.sampled_from([1] * 6 + [0]))
    said = draw(st.lists(CALLS, min_size=least, max_size=4))
    stop = draw(STOPS)
    return replied(command.turn, "I say.", *said, stop=stop)


def decision(draw: Draw, asked: ApprovalRequested) -> ApprovalResolved:
    """A random verdict on most of the calls."""
    decisions = tuple(
        replace(draw(DECISIONS), position=position)
        for position in asked.positions
        if draw(st.integers(0, 4))
    )
    return ApprovalResolved(step=f"{asked.step}/decision", decisions=decisions)


class Agent:
    """A run whose outcomes are drawn: it remembers every state and what is still to be done."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self.events: list[Event] = []
        self.states: list[RunState] = []
        self.open: dict[str, Command] = {}
        self.asked: list[ApprovalRequested] = []
        self.opens: list[dict[str, Command]] = []
        self.cancelled = False

    def take(self, event: Event) -> None:
        """Append one event, keeping our own account of what is open."""
        before = self.states[-1] if self.states else None
        state, commands = advance(before, event)
        self.open.pop(event.step or "", None)
        self.open |= {command.step: command for command in commands}
        if state.ending:
            self.open = {s: c for s, c in self.open.items() if isinstance(c, Finish)}
        if state.ended:
            self.open = {}
        if isinstance(event, ApprovalRequested):
            self.asked.append(event)
        if isinstance(event, SubRunFinished) and event.status == "cancelled":
            self.cancelled = True  # only ever with its whole tree
        self.events.append(event)
        self.states.append(state)
        self.opens.append(dict(self.open))

    def live(self) -> None:
        """Perform random open commands until nothing is left, or somebody ends the run."""
        self.take(started(self._draw(DEFINITIONS)))
        while not self.states[-1].ended and (self.open or self.asked or self.cancelled):
            self._interfere()
            nothing_left = not self.open and not self.asked
            if self.cancelled and (nothing_left or self._draw(st.booleans())):
                self.take(RunCancelled())
            elif not nothing_left:
                self._go_on()

    def _go_on(self) -> None:
        choices = [*self.open.values(), *self.asked]
        chosen = self._draw(st.sampled_from(choices))
        if isinstance(chosen, ApprovalRequested):
            self.asked.remove(chosen)
            self.take(decision(self._draw, chosen))
        else:
            self.take(outcome(self._draw, chosen, self.states[-1]))

    def _interfere(self) -> None:
        late = LateResult(late_step="1/model", outcome={})
        rare = [late, DeadlinePassed(), RunCancelled(reason="enough")]
        event = self._draw(st.sampled_from([None] * 60 + rare))
        if event is not None:
            self.take(event)


@st.composite
def lives(draw: st.DrawFn) -> Agent:
    """The life of a random agent."""
    agent = Agent(draw)
    agent.live()
    return agent


@few
@given(lives(), st.data())
def test_every_prefix_replays_to_where_the_run_stood(agent: Agent, data: st.DataObject) -> None:
    """Also after storage, and with exactly those commands open that have no outcome.

    The states are those that `advance` gave on the way: none was changed by a later event.
    """
    stored = [decode_event(encode_event(event)) for event in agent.events]
    for length in data.draw(st.sets(st.integers(1, len(stored)), min_size=1, max_size=3)):
        state, commands = replay(stored[:length])
        assert agent.states[length - 1] == state
        assert agent.opens[length - 1] == {command.step: command for command in commands}


@few
@given(lives())
def test_every_life_ends(agent: Agent) -> None:
    """Somebody always knows what is to be done next, until the run has its end."""
    assert agent.states[-1].ended
    turns = [event for event in agent.events if isinstance(event, ModelReplied | ModelFailed)]
    assert len(turns) <= agent.states[0].definition.max_turns


@few
@given(lives())
def test_every_call_is_answered_in_order_before_the_model_is_asked_again(agent: Agent) -> None:
    """The providers refuse a conversation in which a call has no result, or another one's."""
    for state, opened in zip(agent.states, agent.opens, strict=True):
        if any(isinstance(command, CallModel) for command in opened.values()):
            _check_answers(state.messages)
            _check_answers(model_request(state).messages)


def _check_answers(messages: tuple[Message, ...]) -> None:
    assert "user" == messages[0].role
    for said, answer in pairwise(messages):
        results = [part.call_id for part in answer.parts if isinstance(part, ToolResult)]
        assert [called.id for called in said.tool_calls] == results
    assert () == messages[-1].tool_calls


@few
@given(lives())
def test_what_was_used_is_what_the_journal_says(agent: Agent) -> None:
    """Partial usage is the sum of what was told until then, sub-runs included."""
    total = Usage()
    for event, state in zip(agent.events, agent.states, strict=True):
        if isinstance(event, ModelReplied):
            total += event.completion.usage
        if isinstance(event, SubRunFinished | MemoriesConsolidated):
            total += event.usage
        assert total == state.usage


@few
@given(lives())
def test_no_step_is_asked_for_twice(agent: Agent) -> None:
    """A journal holds one outcome per step, so a step may be asked for only once."""
    seen: set[str] = set()
    before: set[str] = set()
    for opened in agent.opens:
        fresh = opened.keys() - before
        assert not fresh & seen
        seen |= fresh
        before = set(opened)


ROUND = st.lists(
    st.one_of(
        st.sampled_from(["look", "move", "lock"]).map(lambda name: call(name, name, x=1)),
        st.lists(st.tuples(st.sampled_from(["ada", "bob", "ida"]), st.just("w")), min_size=1).map(
            lambda tasks: delegating(*tasks[:3])
        ),
        st.just(delegating(("ada", "w"), ("bob", "w"), tool="form_squad")),
    ),
    min_size=1,
    max_size=4,
)


@few
@given(st.data(), ROUND, st.sampled_from(["parallel", "sequential"]))
def test_the_next_request_is_the_same_in_whatever_order_results_arrive(
    data: st.DataObject, calls: list[ToolCall], mode: DispatchMode
) -> None:
    """Replay and prompt caching depend on it."""
    definition = AgentDefinition(
        name="chief",
        tools=(LOOK, MOVE),
        delegates=SUBS,
        dispatch_mode=mode,
        permissions=(PermissionRule(tool="move", action="ask"),),
    )
    first = _round(definition, calls, lambda choices: choices[0])
    other = _round(definition, calls, lambda choices: data.draw(st.sampled_from(choices)))
    assert model_request(first) == model_request(other)
    assert first == other


def _round(
    definition: AgentDefinition, calls: list[ToolCall], choose: Callable[[list], Command | Event]
) -> RunState:
    """One turn of tools, its outcomes arriving in the order that `choose` says."""
    state, commands = advance(None, started(definition))
    state, commands = advance(state, replied(1, *calls))
    waiting: list[Command | Event] = list(commands)
    while state.turn == 1:
        chosen = choose(waiting)
        waiting.remove(chosen)
        event = _settled(chosen, state)
        if isinstance(event, ApprovalRequested):
            verdicts = tuple(Decision(position=p, verdict="approve") for p in event.positions)
            step = f"{event.step}/decision"
            waiting.append(ApprovalResolved(step=step, decisions=verdicts))
        state, commands = advance(state, event)
        waiting += commands
    return state


def _settled(chosen: Command | Event, state: RunState) -> Event:
    match chosen:
        case CallTool():
            return returned(chosen.step, f"did {chosen.step}")
        case StartSubRun():
            name, prompt = chosen.definition.name, chosen.prompt
            return sub_finished(chosen.step, name, result=f"{name} did {prompt}")
        case RefuseCall() | AskApproval():
            return settle(chosen, state)
        case ApprovalResolved():
            return chosen
    raise AssertionError(chosen)
