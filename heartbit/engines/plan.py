"""What goes into the journal with an outcome: a pure function of what the rules say.

An engine that works through a journal hands this plan to it in one piece: the event, the events
that follow from it without touching the world, the steps whose outcomes are now missing, sub-runs
to be opened, writes to blackboards, and what becomes of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from heartbit.core.calls import blackboard_writes, may_be_begun_again
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
from heartbit.core.delegation import BlackboardWrite
from heartbit.core.events import ApprovalRequested, ApprovalResolved, Event, RunStarted, RunStatus
from heartbit.core.result import run_output
from heartbit.core.run import Progress, follow
from heartbit.core.state import RunState
from heartbit.core.tools import ToolSpec
from heartbit.engines.ids import sub_run_id
from heartbit.engines.perform import settle
from heartbit.stores.journal import Append, Change, NewApproval, NewRun, NewStep
from heartbit.stores.records import RunRow, StepState

START_QUEUE = "heartbit.start"
MODEL_QUEUE = "heartbit.llm"
TOOL_QUEUE = "heartbit.tools"
CONTROL_QUEUE = "heartbit.control"

# A chord normally wakes the parent of sub-runs at once; the sweep looks after this many seconds.
WAKE_DELAY_SECONDS = 2.0

# The timer of a call in doubt that a human wants run again, and how soon the sweep looks after it.
AGAIN = "again"
AGAIN_SECONDS = 2.0

# The timer of a call of somebody else's Celery task, and how long one that sets no limit may take:
# without any, a lost message would keep its run waiting for ever.
ANSWER = "answer"
ANSWER_SECONDS = 3600.0
CELERY_TASK = "celery:"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlace:
    """Which run, in which tree, for whom."""

    run_id: str
    root_run_id: str
    parent_run_id: str | None = None
    step_in_parent: str | None = None
    tenant_id: str | None = None
    user_id: str | None = None


def place_of(row: RunRow) -> RunPlace:
    """Where a stored run belongs, which never changes."""
    return RunPlace(
        run_id=row.run_id,
        root_run_id=row.root_run_id,
        parent_run_id=row.parent_run_id,
        step_in_parent=row.step_in_parent,
        tenant_id=row.tenant_id,
        user_id=row.user_id,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Keeper:
    """A process that begins the steps which an outcome brings about, under leases of its own.

    Unless it does `every` step, that is only calls of inline tools.
    """

    owner: str
    lease_seconds: float
    every: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a step came to, in the attempt that holds it."""

    event: Event
    step: str
    attempt: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """An append, and how far the journal is folded once it has succeeded."""

    append: Append
    after: Progress


def plan_outcome(
    place: RunPlace,
    before: Progress,
    event: Event,
    *,
    step: str | None = None,
    attempt: int | None = None,
    verdict: bool = False,
    board: Sequence[BlackboardWrite] = (),
    keeper: Keeper | None = None,
    again_seconds: float | None = None,
    beside: Sequence[Outcome] = (),
) -> Plan:
    """What `event`, the outcome of `step`, brings about; `board` is what the step itself wrote.

    A `verdict` is somebody else's decision about a step whose lease has expired. If the event asks
    a human, the step gets no outcome yet, but is parked. A `keeper` begins the next steps itself.
    What it does not keep is to be sent after the commit; the sweep does so `again_seconds` later.
    The outcomes `beside` this one are those of other steps, to be appended with it.
    """
    events: list[Event] = []
    writes = list(board)
    after = before
    queue: list[Event] = [event, *(each.event for each in beside)]
    steps = [step, *(each.step for each in beside)]
    while queue:
        each = queue.pop(0)
        writes += blackboard_writes(after.state, each)
        after = follow(after, [each])
        events.append(each)
        queue += _settled(after, queue)
    opened = [c for s, c in after.commands.items() if s not in before.commands]
    return Plan(
        append=Append(
            run_id=place.run_id,
            expected=before.seq + 1,
            events=events,
            step=step,
            attempt=attempt,
            beside=[(each.step, each.attempt) for each in beside],
            verdict=verdict,
            park=step is not None and isinstance(event, ApprovalRequested),
            steps=[
                _sent(each, again_seconds)
                for each in _steps(opened, keeper, from_sub_run=event.type == "sub_run_finished")
            ],
            board=writes,
            approval=_approval(events, after.state),
            timers=_timers(event, after.state) | _answers(opened, after.state),
            clear=[what for each in steps for what in _done_with(before, each)],
            runs=[open_sub_run(place, c) for c in opened if isinstance(c, StartSubRun)],
            change=_change(place, after.state),
        ),
        after=after,
    )


def _settled(after: Progress, queued: Sequence[Event]) -> list[Event]:
    """The events of commands that need nothing from the world and are not queued yet.

    The end waits for the sub-runs under way: it tells what they have used.
    """
    waiting = {event.step for event in queued}
    kinds = RefuseCall | AskApproval if has_sub_runs(after) else RefuseCall | AskApproval | Finish
    return [
        settle(command, after.state)
        for step, command in after.commands.items()
        if isinstance(command, kinds) and step not in waiting
    ]


def has_sub_runs(progress: Progress) -> bool:
    """Whether sub-runs are under way."""
    return any(isinstance(command, StartSubRun) for command in progress.commands.values())


def _approval(events: Sequence[Event], state: RunState) -> NewApproval | None:
    """The question that these events ask; a turn asks one at most."""
    asked = next((event for event in events if isinstance(event, ApprovalRequested)), None)
    if asked is None:
        return None
    return NewApproval(
        step=asked.step,
        agent=state.definition.name,
        calls=asked.calls,
        expires_seconds=state.definition.approval_timeout_seconds,
    )


def _timers(event: Event, state: RunState) -> dict[str, float]:
    """A call that may be begun again, though it was in doubt, must not be forgotten."""
    if not isinstance(event, ApprovalResolved):
        return {}
    tools = [f"{state.turn}/tool/{decision.position}" for decision in event.decisions]
    return {f"{AGAIN}/{s}": AGAIN_SECONDS for s in tools if may_be_begun_again(state, s)}


def _answers(opened: Sequence[Command], state: RunState) -> dict[str, float]:
    """Whoever is called out there may never answer."""
    return {
        answer_timer(command.step): answer_seconds(command.spec, state)
        for command in opened
        if isinstance(command, CallTool) and external_task(command.spec)
    }


def answer_timer(step: str) -> str:
    """The timer that ends the wait for the answer to an external call."""
    return f"{ANSWER}/{step}"


def answer_seconds(spec: ToolSpec, state: RunState) -> float:
    """How long an external call may take, the time in its queue included."""
    return spec.timeout_seconds or state.definition.tool_timeout_seconds or ANSWER_SECONDS


def external_task(spec: ToolSpec) -> str | None:
    """The Celery task of another code base that a tool stands for."""
    return spec.ref.removeprefix(CELERY_TASK) if spec.ref.startswith(CELERY_TASK) else None


def _done_with(before: Progress, step: str | None) -> tuple[str, ...]:
    command = before.commands.get(step or "")
    if not isinstance(command, CallTool):
        return ()
    again = (f"{AGAIN}/{step}",) if may_be_begun_again(before.state, command.step) else ()
    return again + ((answer_timer(command.step),) if external_task(command.spec) else ())


def _steps(
    commands: Sequence[Command], keeper: Keeper | None = None, *, from_sub_run: bool = False
) -> list[NewStep]:
    delay = WAKE_DELAY_SECONDS if from_sub_run else 0.0
    steps = [(c, step) for c in commands if (step := _step(c, delay)) is not None]
    if keeper is None:
        return [step for _, step in steps]
    return [_kept(step, keeper) if _can_be_kept(c, keeper) else step for c, step in steps]


def _can_be_kept(command: Command, keeper: Keeper) -> bool:
    """Whether this process can do it: what has a queue of its own, or is a run, must be sent."""
    if isinstance(command, CallTool):
        spec = command.spec
        kept = keeper.every or spec.inline
        return kept and spec.queue is None and external_task(spec) is None
    return keeper.every and isinstance(command, CallModel | Summarise | Consolidate)


def _kept(step: NewStep, keeper: Keeper) -> NewStep:
    return replace(step, state="running", owner=keeper.owner, lease_seconds=keeper.lease_seconds)


def _step(command: Command, delay: float) -> NewStep | None:
    match command:
        case CallModel():
            queue = START_QUEUE if command.turn == 1 else MODEL_QUEUE
            return NewStep(step=command.step, kind="model", queue=queue, delay=delay)
        case Summarise():
            return NewStep(step=command.step, kind="summary", queue=MODEL_QUEUE, delay=delay)
        case Consolidate():
            return NewStep(step=command.step, kind="memories", queue=MODEL_QUEUE, delay=delay)
        case CallTool():
            external = external_task(command.spec) is not None
            return NewStep(
                step=command.step,
                kind="tool",
                queue=command.spec.queue or ("" if external else TOOL_QUEUE),
                repeatable=is_repeatable(command.spec),
                state="external" if external else "pending",
            )
        case StartSubRun():
            return NewStep(step=command.step, kind="sub_run", queue=CONTROL_QUEUE, state="external")
        case _:
            return None


def _sent(step: NewStep, again_seconds: float | None) -> NewStep:
    """A step that is sent after the commit; one with a delay is somebody else's to send.

    A message to somebody else's worker may have to be sent once at most: that it is sent is written
    down apart, so that one that was not sent at all is known.
    """
    return replace(step, again_seconds=again_seconds) if is_due(step, "pending") else step


def is_due(step: NewStep, state: StepState) -> bool:
    """Whether a step in this state is to be sent at once.

    With a delay that is somebody else's to do: the body of a chord's, and then the sweep's.
    """
    return step.state == state and is_sent(step) and not step.delay


def is_sent(step: NewStep) -> bool:
    """Whether a step begins with a message, be it to a worker of ours or of somebody else's."""
    return step.state == "pending" or (step.state == "external" and step.kind == "tool")


def is_repeatable(spec: ToolSpec) -> bool:
    """Whether a call may be run again when nobody knows what became of it."""
    return spec.effect != "at_most_once"


def first_steps(progress: Progress) -> list[NewStep]:
    """The steps that a run begins with."""
    return _steps(list(progress.commands.values()))


def root_run(
    place: RunPlace,
    start: RunStarted,
    *,
    task_id: str,
    priority: int = 0,
    kept: Sequence[Event] = (),
    held: bool = False,
) -> NewRun:
    """A run that somebody outside of any run asks for; one that is `held` waits to be admitted.

    A fork begins with the `kept` events of the run that its start names, too.
    """
    steps = first_steps(follow(None, [start, *kept]))
    return NewRun(
        run_id=place.run_id,
        task_id=task_id,
        root_run_id=place.root_run_id,
        start=start,
        steps=[replace(step, state="held") for step in steps] if held else steps,
        tenant_id=place.tenant_id,
        user_id=place.user_id,
        priority=priority,
        kept=kept,
    )


def open_sub_run(place: RunPlace, command: StartSubRun) -> NewRun:
    """The run that a step starts: its id is the same for every attempt."""
    run_id = sub_run_id(place.run_id, command.step)
    start = RunStarted(
        prompt=command.prompt, definition=command.definition, blackboard=command.blackboard
    )
    return NewRun(
        run_id=run_id,
        task_id=run_id,
        root_run_id=place.root_run_id,
        start=start,
        steps=first_steps(follow(None, [start])),
        parent_run_id=place.run_id,
        step_in_parent=command.step,
        tenant_id=place.tenant_id,
        user_id=place.user_id,
    )


def _change(place: RunPlace, state: RunState) -> Change:
    if state.ended:
        output = run_output(place.run_id, state, state.status).as_json()
        return Change(status=state.status, output=output)
    return Change(status=status_of(state))


def status_of(state: RunState) -> RunStatus:
    """`waiting` when only a human can let this run go on: all other calls have their results."""
    if state.ended:
        return state.status
    unanswered = [call for call in state.calls if call.result is None]
    asked = bool(unanswered) and all(call.fate == "ask" for call in unanswered)
    return "waiting" if asked else "running"
