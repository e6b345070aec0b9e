"""What becomes of the tool calls of a turn: run, refused, handed to a sub-agent, or asked about.

Every call ends in exactly one result, in the order of the calls, whatever happens to it. A call is
only ever executed under the name and the arguments that were checked here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from heartbit.core.agent import Action, PermissionRule
from heartbit.core.commands import AskApproval, CallTool, Command, RefuseCall
from heartbit.core.delegation import (
    BlackboardWrite,
    SubTask,
    joined,
    result_writes,
    split,
    squad_problem,
    squad_writes,
    start_command,
    startable,
)
from heartbit.core.events import (
    ApprovalRequested,
    ApprovalResolved,
    Decision,
    Event,
    SubRunFinished,
    ToolReturned,
)
from heartbit.core.messages import Completion, Message, ToolCall, ToolResult
from heartbit.core.permissions import decide
from heartbit.core.schema import nearest, violations
from heartbit.core.state import Fate, OpenCall, RunState
from heartbit.core.tools import DELEGATE, RESPOND, SQUAD, ToolSpec
from heartbit.core.values import replace

OUTCOME_UNKNOWN = (
    "The outcome of this call is unknown: the process that ran it was lost on the way, and it was "
    "not repeated because that could do its work twice. It may still take effect. Check whether it "
    "did what it should before you call it again."
)
DENIED = "Denied by a human reviewer"
NOT_AGAIN = (
    "The outcome of this call is unknown: the process that ran it was lost on the way. It may have "
    "taken effect, or may still do so. A human reviewer decided not to run it again"
)


def fingerprint(calls: Sequence[ToolCall]) -> str:
    """A name for a set of calls: equal for the same tools and arguments in any order."""
    texts = sorted(json.dumps([c.name, c.arguments, c.malformed], sort_keys=True) for c in calls)
    return hashlib.sha256("\n".join(texts).encode(errors="surrogatepass")).hexdigest()


def open_calls(state: RunState, completion: Completion) -> tuple[OpenCall, ...]:
    """The calls of a reply with their fates. `state` has counted this turn's repetition already."""
    calls = completion.message.tool_calls
    if completion.stop_reason == "max_tokens":
        return _refuse_all(
            calls, "Not executed: the reply was cut at max_tokens. Send a shorter call."
        )
    if _is_stuck(state):
        return _refuse_all(
            calls,
            f"Not executed: the same calls were made {state.repeats} turns in a row. "
            "Their results will not change; try something else.",
        )
    return tuple(_open(state, position, call) for position, call in enumerate(calls))


def refuse_beside_respond(calls: Sequence[ToolCall], problem: str) -> tuple[OpenCall, ...]:
    """A structured answer that is not valid: it is told why, and no other call of the turn runs."""
    respond = next(i for i, call in enumerate(calls) if call.name == RESPOND)
    return tuple(
        OpenCall(
            position=position,
            call=call,
            fate="refuse",
            reason=problem if position == respond else f"Not executed: {RESPOND} must come alone.",
        )
        for position, call in enumerate(calls)
    )


def _is_stuck(state: RunState) -> bool:
    limit = state.definition.max_identical_tool_calls
    return limit is not None and state.repeats >= limit


def _refuse_all(calls: Sequence[ToolCall], reason: str) -> tuple[OpenCall, ...]:
    return tuple(
        OpenCall(position=position, call=call, fate="refuse", reason=reason)
        for position, call in enumerate(calls)
    )


def _open(state: RunState, position: int, call: ToolCall) -> OpenCall:
    spec = find(state.tools, call.name)
    reason = _problem(state, spec, call)
    if spec is None or reason:
        return OpenCall(position=position, call=call, fate="refuse", reason=reason)
    match _permission(state, call):
        case "deny":
            return OpenCall(position=position, call=call, fate="refuse", reason=_denial(call))
        case "ask":
            return OpenCall(position=position, call=call, fate="ask")
        case _:
            return OpenCall(position=position, call=call, fate=_work(call))


def _problem(state: RunState, spec: ToolSpec | None, call: ToolCall) -> str:
    if spec is None:
        guess = nearest(call.name, [tool.name for tool in state.tools])
        hint = f" Did you mean {guess!r}?" if guess else ""
        return f"Tool not found: {call.name!r}.{hint}"
    if call.malformed is not None:
        return "Not executed: the arguments are no valid JSON object. Send the call again."
    if found := violations(spec, call.arguments):
        return "Input validation failed: " + "; ".join(found)
    if spec.name == SQUAD:
        return squad_problem(call, state.definition.delegates) or ""
    return ""


def find(tools: Sequence[ToolSpec], name: str) -> ToolSpec | None:
    """The tool with exactly this name: a guess is never executed."""
    return next((tool for tool in tools if tool.name == name), None)


def _permission(state: RunState, call: ToolCall) -> Action:
    ruled = decide(state.definition.permissions, call.name, call.arguments)
    if ruled == "deny":
        return ruled
    if learned := decide(state.learned, call.name, call.arguments):
        return learned
    return "ask" if state.definition.approve else ruled or "allow"


def _denial(call: ToolCall) -> str:
    return f"Permission denied for tool {call.name!r}: a rule forbids this call."


def _work(call: ToolCall) -> Fate:
    match call.name:
        case name if name == DELEGATE:
            return "delegate"
        case name if name == SQUAD:
            return "squad"
        case _:
            return "run"


def begin(state: RunState) -> tuple[RunState, tuple[Command, ...]]:
    """Start what may start of a turn's calls; asked calls wait for their approval together."""
    state, commands = start(state, [call.position for call in state.calls if call.fate != "ask"])
    asked = [call for call in state.calls if call.fate == "ask"]
    if asked:
        step = f"{state.turn}/approval"
        calls = tuple(replace(c, asked=step) if c.fate == "ask" else c for c in state.calls)
        state = replace(state, calls=calls)
        commands += (
            AskApproval(
                step=step,
                calls=tuple(call.call for call in asked),
                positions=tuple(call.position for call in asked),
            ),
        )
    return state, commands


def start(state: RunState, positions: Sequence[int]) -> tuple[RunState, tuple[Command, ...]]:
    """Hand out the calls at `positions`, whose fates are decided."""
    commands: list[Command] = []
    for position in positions:
        opened = state.calls[position]
        if opened.fate in ("delegate", "squad"):
            state = _with_subtasks(state, opened)
        else:
            commands.append(_command(state, opened))
    state, subs = start_subtasks(state)
    return state, (*commands, *subs)


def _command(state: RunState, opened: OpenCall) -> Command:
    step = f"{state.turn}/tool/{opened.position}"
    spec = find(state.tools, opened.call.name)
    if opened.fate == "refuse" or spec is None:
        return RefuseCall(step=step, call=opened.call, reason=opened.reason)
    return CallTool(step=step, call=opened.call, spec=spec)


def _with_subtasks(state: RunState, opened: OpenCall) -> RunState:
    first = sum(len(call.subtasks) for call in state.calls)
    subtasks = split(opened.call, state.definition, first, state.delegations)
    counts = dict(state.delegations) | {sub.agent: sub.number for sub in subtasks}
    state = with_call(replace(state, delegations=counts), replace(opened, subtasks=subtasks))
    return settle_delegation(state, opened.position)


def start_subtasks(state: RunState) -> tuple[RunState, tuple[Command, ...]]:
    """Start the sub-runs whose turn it is, over all delegation calls of the turn."""
    every = [sub for call in state.calls for sub in call.subtasks]
    commands: list[Command] = []
    for sub in startable(every, state.definition.dispatch_mode):
        opened = owner(state, sub.position)
        commands.append(start_command(state.turn, sub, state.definition, scope_of(state, opened)))
        state = with_subtask(state, replace(sub, started=True))
    return state, tuple(commands)


def scope_of(state: RunState, opened: OpenCall) -> str:
    """The blackboard of the agents that a call starts: the run's, or a squad's own."""
    if opened.fate == "squad":
        return f"{state.blackboard}/{state.turn}/tool/{opened.position}"
    return state.blackboard


def owner(state: RunState, sub_position: int) -> OpenCall:
    """The call that a sub-task belongs to."""
    return next(
        call for call in state.calls if any(s.position == sub_position for s in call.subtasks)
    )


def with_call(state: RunState, opened: OpenCall) -> RunState:
    """The state with one of its open calls exchanged."""
    calls = tuple(opened if c.position == opened.position else c for c in state.calls)
    return replace(state, calls=calls)


def with_subtask(state: RunState, sub: SubTask) -> RunState:
    """The state with one of its sub-tasks exchanged."""
    opened = owner(state, sub.position)
    subtasks = tuple(sub if s.position == sub.position else s for s in opened.subtasks)
    return with_call(state, replace(opened, subtasks=subtasks))


def settle_delegation(state: RunState, position: int) -> RunState:
    """Give a delegation call its result, if all its sub-tasks are settled."""
    opened = state.calls[position]
    if not all(sub.settled for sub in opened.subtasks):
        return state
    output = joined(opened.subtasks)
    return answer(state, position, output.content, is_error=output.is_error)


def answer(state: RunState, position: int, content: str, *, is_error: bool) -> RunState:
    """Put the result of the call at `position` down."""
    opened = state.calls[position]
    result = ToolResult(call_id=opened.call.id, content=opened.note + content, is_error=is_error)
    return with_call(state, replace(opened, result=result))


def results(calls: Sequence[OpenCall]) -> Message | None:
    """One message with all results in the order of the calls; None while one is missing."""
    parts = tuple(call.result for call in calls if call.result is not None)
    return Message(role="user", parts=parts) if len(parts) == len(calls) else None


def doubt(
    state: RunState, command: CallTool, told: str = OUTCOME_UNKNOWN
) -> ToolReturned | ApprovalRequested:
    """What becomes of a call that must not be repeated blindly, when its worker was lost in it.

    A model that is to decide is `told` so.
    """
    if command.spec.on_doubt == "tell_model":
        return ToolReturned(step=command.step, content=told, is_error=True)
    position = position_of(command.step)
    step = _next_question(state, position)
    return ApprovalRequested(step=step, calls=(command.call,), positions=(position,))


def _next_question(state: RunState, position: int) -> str:
    """A call that a human had run again may be lost again: that is another question."""
    first, times = f"{state.turn}/doubt/{position}", times_in_doubt(state, position)
    return f"{first}/{times + 1}" if times else first


def times_in_doubt(state: RunState, position: int) -> int:
    """How often a human was asked about a call because nobody knows what became of it."""
    first, asked = f"{state.turn}/doubt/{position}", state.calls[position].asked
    if asked != first and not asked.startswith(f"{first}/"):
        return 0
    return int(asked.removeprefix(first).removeprefix("/") or 1)


def park(state: RunState, event: ApprovalRequested) -> RunState:
    """A question about calls in doubt: they wait for its answer. Others were asked from the start.

    (`begin` has noted those, together with the command that asks.)
    """
    for position in event.positions:
        opened = state.calls[position]
        if opened.asked != event.step:
            parked = replace(opened, fate="ask", asked=event.step, doubt=True)
            state = with_call(state, parked)
    return state


def may_be_begun_again(state: RunState, step: str) -> bool:
    """Whether a human, told that nobody knows what became of this call, wants it run again."""
    opened = next((c for c in state.calls if f"{state.turn}/tool/{c.position}" == step), None)
    return opened is not None and opened.doubt and opened.fate == "run"


def apply_decisions(
    state: RunState, event: ApprovalResolved
) -> tuple[RunState, tuple[Command, ...]]:
    """Carry out what the human decided about the asked calls; one without a decision is denied."""
    by_position = {decision.position: decision for decision in event.decisions}
    question = event.step.removesuffix("/decision")
    asked = [call for call in state.calls if call.fate == "ask" and call.asked == question]
    for opened in asked:
        decision = by_position.get(opened.position) or Decision(
            position=opened.position, verdict="deny"
        )
        state = with_call(state, _decided(state, opened, decision))
        state = replace(state, learned=state.learned + _lesson(opened, decision))
    return start(state, [call.position for call in asked])


def _decided(state: RunState, opened: OpenCall, decision: Decision) -> OpenCall:
    match decision.verdict:
        case "approve":
            return replace(opened, fate=_work(opened.call))
        case "edit":
            return _edited(state, opened, decision)
        case "deny":
            words = NOT_AGAIN if opened.doubt else DENIED
            reason = f"{words}: {decision.reason}" if decision.reason else f"{words}."
            return replace(opened, fate="refuse", reason=reason)


def _edited(state: RunState, opened: OpenCall, decision: Decision) -> OpenCall:
    call = replace(opened.call, arguments=decision.arguments or {}, malformed=None)
    if problem := edit_problem(state, call):
        return replace(opened, fate="refuse", reason=f"The reviewer's edit was not run: {problem}")
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    note = f"[A human reviewer changed the arguments to {arguments}]\n"
    return replace(opened, call=call, fate=_work(call), note=note)


def edit_problem(state: RunState, call: ToolCall) -> str:
    """Why a call that a reviewer has edited cannot be run; empty if it can."""
    problem = _problem(state, find(state.tools, call.name), call)
    if not problem and decide(state.definition.permissions, call.name, call.arguments) == "deny":
        return _denial(call)
    return problem


def _lesson(opened: OpenCall, decision: Decision) -> tuple[PermissionRule, ...]:
    if not decision.always:
        return ()
    action: Action = "deny" if decision.verdict == "deny" else "allow"
    return (PermissionRule(tool=opened.call.name, action=action),)


def position_of(step: str) -> int:
    """Where the call or the sub-run of a step stands in its turn."""
    return int(step.rsplit("/", 1)[1])


def blackboard_writes(state: RunState, event: Event) -> tuple[BlackboardWrite, ...]:
    """What `event` leaves on blackboards, given the state before it.

    Engines store these writes together with the event.
    """
    if not isinstance(event, SubRunFinished) or state.ending or state.ended:
        return ()
    position = position_of(event.step)
    opened = owner(state, position)
    every = [sub for call in state.calls for sub in call.subtasks]
    siblings = [replace(s, outcome=event) if s.position == position else s for s in every]
    sub = next(s for s in siblings if s.position == position)
    writes = result_writes(sub, siblings, scope_of(state, opened))
    if opened.fate == "squad":
        team = {s.position for s in opened.subtasks}
        writes += squad_writes([s for s in siblings if s.position in team], state.blackboard)
    return writes
