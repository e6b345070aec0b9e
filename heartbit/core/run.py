"""The rules of a run: `advance(state, event) -> (state, commands)` and `replay(events)`.

Rule 1: everything that decides what a run does next lives here and in the modules this one calls.
An engine performs commands and reports events; it decides nothing.

Rule 2: nothing here looks at the world. The same journal gives the same state and the same open
commands on every machine, at any time, which is what makes a run survive the worker it runs on.

A run goes round like this (steps in brackets are the keys of the journal):

    RunStarted [start] -> CallModel [1/model] -> ModelReplied -+-> Finish [end] -> RunFinished
                              ^                                |
                              |                                +-> CallTool [1/tool/0], [1/tool/1]
                              |                                |   StartSubRun [1/sub/0]
                              |                                |   AskApproval [1/approval]
                              |                                v
                              +--- Summarise [1/summary] <-- all calls have their result

An agent that is to do so puts its memories together before it finishes: Consolidate [1/memories].

Turns count from 1, positions within a turn from 0. A turn is one model call; the one that asks for
turn max_turns + 1 fails the run instead. What fails is an event too, so that a replay sees it, and
a failing tool is a result for the model, never the end of a run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from heartbit.core import calls as turn_calls
from heartbit.core.agent import AgentDefinition
from heartbit.core.commands import CallModel, Command, Finish, StartSubRun, Summarise
from heartbit.core.context import fit
from heartbit.core.delegation import delegation_tools
from heartbit.core.ending import (
    budget_message,
    consolidated,
    fail,
    spend,
    spend_on_late_result,
    spend_on_sub_run,
    succeed,
    time_out,
    wind_up,
)
from heartbit.core.events import (
    ApprovalRequested,
    ApprovalResolved,
    ContextSummarised,
    DeadlinePassed,
    Event,
    LateResult,
    MemoriesConsolidated,
    ModelFailed,
    ModelReplied,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunRouted,
    RunStarted,
    SubRunFinished,
    ToolReturned,
)
from heartbit.core.messages import Completion, ToolCall, user_message
from heartbit.core.request import ModelRequest
from heartbit.core.schema import value_violations
from heartbit.core.state import RunState
from heartbit.core.summary import Summary, needs_summary, summary_cut
from heartbit.core.tool_profile import visible
from heartbit.core.tools import RESPOND, ToolChoice, ToolSpec
from heartbit.core.values import replace
from heartbit.errors import (
    BudgetExceeded,
    ContextTooLong,
    MaxTurnsExceeded,
    ModelCallFailed,
    ModelRefused,
    NoStructuredResult,
    ReplyTruncated,
    RunStateError,
)

Step = tuple[RunState, tuple[Command, ...]]

ANSWER_WITH_RESPOND = (
    f"Your answer must be given by calling the tool {RESPOND}, not as text. Call it now."
)


def advance(state: RunState | None, event: Event) -> Step:
    """Take one event in; give the new state and the commands that this event calls for.

    Raises:
        RunStateError: the event cannot follow (a second start, or anything before the first).
    """
    if isinstance(event, RunStarted):
        if state is not None:
            raise RunStateError("The journal has a second start.")
        return _start(event)
    if state is None:
        raise RunStateError("The journal does not begin with its start.")
    if state.ended:
        return state, ()
    if state.ending:
        return wind_up(state, event), ()
    return _advance(state, event)


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """A journal folded up to its event number `seq`: the state, and the commands still open.

    `commands` are those without an outcome, by step.
    """

    seq: int
    state: RunState
    commands: Mapping[str, Command]


def follow(progress: Progress | None, events: Iterable[Event]) -> Progress:
    """Fold more events of a journal; without a `progress`, from its start.

    Raises:
        RunStateError: there is nothing to fold, or the journal is not in order.
    """
    state = progress.state if progress else None
    still_open = dict(progress.commands) if progress else {}
    seq = progress.seq if progress else 0
    for event in events:
        state, commands = advance(state, event)
        still_open.pop(event.step or "", None)
        still_open |= {command.step: command for command in commands}
        seq += 1
    if state is None:
        raise RunStateError("The journal is empty.")
    if state.ended:
        still_open.clear()
    elif state.ending:
        still_open = {s: c for s, c in still_open.items() if isinstance(c, Finish | StartSubRun)}
    return Progress(seq=seq, state=state, commands=still_open)


def replay(events: Iterable[Event]) -> Step:
    """Fold a whole journal: where the run stands, and the commands that have no outcome yet.

    Raises:
        RunStateError: the journal is empty or not in order.
    """
    progress = follow(None, events)
    return progress.state, tuple(progress.commands.values())


def _advance(state: RunState, event: Event) -> Step:  # noqa: C901 - one table of events
    match event:
        case ModelReplied():
            return _replied(state, event)
        case ModelFailed():
            return _model_failed(state, event)
        case ToolReturned():
            position = turn_calls.position_of(event.step)
            return _settle(
                turn_calls.answer(state, position, event.content, is_error=event.is_error)
            )
        case SubRunFinished():
            return _sub_run_finished(state, event)
        case ApprovalResolved():
            return _carry_on(turn_calls.apply_decisions(state, event))
        case ContextSummarised():
            return _summarised(state, event)
        case MemoriesConsolidated():
            return consolidated(state, event)
        case DeadlinePassed():
            return time_out(state)
        case RunFinished() | RunFailed() | RunCancelled():
            return wind_up(state, event), ()
        case ApprovalRequested():
            return turn_calls.park(state, event), ()
        case LateResult():
            return spend_on_late_result(state, event), ()
        case RunRouted():
            return state, ()
        case _:
            raise RunStateError(f"The event {event.type!r} cannot follow here.")


def _start(event: RunStarted) -> Step:
    state = RunState(
        definition=event.definition,
        prompt=event.prompt,
        tools=offered_tools(event.definition),
        blackboard=event.blackboard,
        messages=(user_message(event.prompt),),
    )
    return _next_turn(state)


def offered_tools(definition: AgentDefinition) -> tuple[ToolSpec, ...]:
    """What the model may call: its own tools, delegation, and `__respond__` for a schema."""
    tools = definition.tools + delegation_tools(definition)
    if definition.response_schema is not None:
        tools += (_respond_tool(definition),)
    return visible(tools, definition.tool_profile)


def _respond_tool(definition: AgentDefinition) -> ToolSpec:
    return ToolSpec(
        name=RESPOND,
        description="Give your final answer in this structure. This ends your work; call it alone.",
        input_schema=definition.response_schema or {},
        ref=f"core:{RESPOND}",
        effect="pure",
    )


def _next_turn(state: RunState) -> Step:
    if state.turn >= state.definition.max_turns:
        return _out_of_turns(state)
    turn = state.turn + 1
    return replace(state, turn=turn, calls=()), (CallModel(step=f"{turn}/model", turn=turn),)


def _out_of_turns(state: RunState) -> Step:
    if state.must_respond:
        return fail(state, NoStructuredResult)
    limit = f"Max turns ({state.definition.max_turns}) exceeded"
    return fail(state, MaxTurnsExceeded, f"{limit}; raise max_turns or give it less to do.")


def _replied(state: RunState, event: ModelReplied) -> Step:
    completion = event.completion
    state = spend(state, completion.usage, completion.cost_usd)
    if completion.stop_reason == "context_too_long":
        return _compact(state, "The model stopped because its context window is full.")
    if completion.parts:
        state = replace(state, messages=(*state.messages, completion.message))
    limit, used = state.definition.max_total_tokens, state.usage.total_tokens - state.lost_tokens
    if limit is not None and used > limit:
        return fail(state, BudgetExceeded, budget_message(used, limit))
    if completion.stop_reason == "refusal":
        return fail(state, ModelRefused)  # its calls, if any, may be cut
    if calls := completion.message.tool_calls:
        return _called(state, completion, calls)
    return _answered(state, completion)


def _answered(state: RunState, completion: Completion) -> Step:
    match completion.stop_reason:
        case "max_tokens":
            return fail(state, ReplyTruncated)
        case "pause_turn":
            return _next_turn(state)
    if state.definition.response_schema is None:
        return succeed(state, Finish(result=completion.message.text))
    messages = (*state.messages, user_message(ANSWER_WITH_RESPOND))
    return _next_turn(replace(state, messages=messages, must_respond=True))


def _called(state: RunState, completion: Completion, calls: tuple[ToolCall, ...]) -> Step:
    state = _count_repeats(state, calls)
    cut = completion.stop_reason == "max_tokens"
    if not cut and (respond := _respond_call(state, calls)) is not None:
        return _responded(state, calls, respond)
    return _begin(replace(state, calls=turn_calls.open_calls(state, completion)))


def _count_repeats(state: RunState, calls: tuple[ToolCall, ...]) -> RunState:
    made = state.tool_calls_made + len(calls)
    if state.definition.max_identical_tool_calls is None:
        return replace(state, tool_calls_made=made)
    seen = turn_calls.fingerprint(calls)
    repeats = state.repeats + 1 if seen == state.last_calls else 1
    return replace(state, tool_calls_made=made, repeats=repeats, last_calls=seen)


def _respond_call(state: RunState, calls: tuple[ToolCall, ...]) -> ToolCall | None:
    if state.definition.response_schema is None:
        return None
    return next((call for call in calls if call.name == RESPOND), None)


def _responded(state: RunState, calls: tuple[ToolCall, ...], respond: ToolCall) -> Step:
    schema = state.definition.response_schema or {}
    memo = turn_calls.find(state.tools, RESPOND)
    found = value_violations(schema, respond.arguments, memo.memo if memo else {})
    if respond.malformed is not None:
        found = ("the arguments are no valid JSON object",)
    if not found:
        text = json.dumps(respond.arguments, indent=2, ensure_ascii=False)
        return succeed(state, Finish(result=text, structured=respond.arguments))
    problem = "The answer does not fit its schema: " + "; ".join(found)
    return _begin(
        replace(state, calls=turn_calls.refuse_beside_respond(calls, problem), must_respond=True)
    )


def _begin(state: RunState) -> Step:
    return _carry_on(turn_calls.begin(state))


def _carry_on(step: Step) -> Step:
    """Calls that were settled without any command may have been the last of their turn."""
    state, commands = step
    return step if commands else _settle(state)


def _sub_run_finished(state: RunState, event: SubRunFinished) -> Step:
    if event.status == "cancelled":  # with its whole tree: nothing more is begun here either
        return spend_on_sub_run(state, event), ()
    position = turn_calls.position_of(event.step)
    opened = turn_calls.owner(state, position)
    sub = next(s for s in opened.subtasks if s.position == position)
    state = spend_on_sub_run(state, event)
    state = turn_calls.with_subtask(state, replace(sub, outcome=event))
    state = turn_calls.settle_delegation(state, opened.position)
    return _carry_on(turn_calls.start_subtasks(state))


def _settle(state: RunState) -> Step:
    """Go on once every call of the turn has its result."""
    message = turn_calls.results(state.calls)
    if message is None:
        return state, ()
    state = replace(state, messages=(*state.messages, message), calls=())
    if state.turn < state.definition.max_turns and needs_summary(
        state.definition, state.tools, state.messages, state.summary
    ):
        upto = summary_cut(state.messages)
        return state, (Summarise(step=f"{state.turn}/summary", upto=upto),)
    return _next_turn(state)


def _model_failed(state: RunState, event: ModelFailed) -> Step:
    state = spend(state, event.usage, event.cost_usd)
    if event.error == ContextTooLong.__name__:
        return _compact(state, event.message)
    return fail(state, ModelCallFailed, event.message)


def _compact(state: RunState, complaint: str) -> Step:
    """Shorten the context because the provider says it is too long.

    Not twice in a row: nothing was said since, so there is nothing more to leave out.
    """
    upto = summary_cut(state.messages)
    done = state.summary.upto if state.summary else 0
    if upto <= done:
        return fail(state, ModelCallFailed, complaint)
    return replace(state, overflow=complaint), (Summarise(step=f"{state.turn}/summary", upto=upto),)


def _summarised(state: RunState, event: ContextSummarised) -> Step:
    state = spend(state, event.usage, event.cost_usd)
    if event.summary is not None:
        summary = Summary(text=event.summary, upto=event.upto)
        return _next_turn(replace(state, summary=summary, overflow=None))
    if state.overflow is not None:
        return fail(state, ModelCallFailed, state.overflow)
    return _next_turn(state)


def model_request(state: RunState) -> ModelRequest:
    """The request of the current turn: a pure function of the journal, built when it is sent."""
    definition = state.definition
    return ModelRequest(
        system=definition.system_prompt,
        messages=fit(definition, state.tools, state.messages, state.summary),
        tools=state.tools,
        max_tokens=definition.max_tokens,
        tool_choice=_tool_choice(state),
        reasoning_effort=definition.reasoning_effort,
        model=definition.model,
    )


def _tool_choice(state: RunState) -> ToolChoice | None:
    """Force the structured answer when nothing else is left to do: otherwise the model is free."""
    if state.definition.response_schema is None:
        return None
    last = state.turn >= state.definition.max_turns
    if last or state.must_respond or len(state.tools) == 1:
        return ToolChoice(type="tool", name=RESPOND)
    return None
