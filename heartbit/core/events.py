"""What happened in a run: stored for ever, in order, one journal per run.

An event with a `step` is the outcome of that step, and a journal holds at most one per step.
Events without a step are facts about the run itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from heartbit.core.agent import AgentDefinition
from heartbit.core.messages import Completion, Json, ToolCall, Usage

RULES_VERSION = 1
Verdict = Literal["approve", "deny", "edit"]
RunStatus = Literal["queued", "running", "waiting", "succeeded", "failed", "cancelled"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """The run that a fork comes from, and the turn that is asked anew."""

    run_id: str
    turn: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RunStarted:
    """The run was opened on `prompt` with a definition that no later deploy can change.

    `blackboard` is the scope of its shared keys: the root run's id, or a squad's own. The journal
    of a fork goes on with events of the run that it comes from; no rule asks where that was.
    """

    prompt: str
    definition: AgentDefinition
    blackboard: str = ""
    forked_from: Origin | None = None
    rules_version: int = RULES_VERSION
    step: Literal["start"] = "start"
    type: Literal["run_started"] = "run_started"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRouted:
    """Which agent the task was given to, and why."""

    decision: Literal["single_agent", "orchestrate"]
    selected_agent: str
    reason: str
    step: None = None
    type: Literal["run_routed"] = "run_routed"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelReplied:
    """A model turn gave a reply."""

    step: str
    completion: Completion
    type: Literal["model_replied"] = "model_replied"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFailed:
    """A model turn failed for good: retries, if any, are used up."""

    step: str
    error: str
    message: str
    usage: Usage = Usage()
    cost_usd: float | None = 0.0
    type: Literal["model_failed"] = "model_failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolReturned:
    """A tool call has its result, also when it was refused or failed: that is a result as well."""

    step: str
    content: str
    is_error: bool = False
    type: Literal["tool_returned"] = "tool_returned"


@dataclass(frozen=True, kw_only=True, slots=True)
class SubRunFinished:
    """A sub-agent's run has ended."""

    step: str
    sub_run_id: str
    sub_agent: str
    status: RunStatus
    result: str | None = None
    error: str | None = None
    usage: Usage = Usage()
    tool_calls_made: int = 0
    cost_usd: float | None = None
    type: Literal["sub_run_finished"] = "sub_run_finished"


@dataclass(frozen=True, kw_only=True, slots=True)
class ApprovalRequested:
    """A human was asked about exactly these calls (`positions` are theirs within the turn)."""

    step: str
    calls: tuple[ToolCall, ...]
    positions: tuple[int, ...]
    type: Literal["approval_requested"] = "approval_requested"


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What the human said about the call at `position`.

    `edit` runs the call with `arguments` in place of the model's. `always` lets later calls of the
    same tool in this run pass (or be denied) without asking.
    """

    position: int
    verdict: Verdict
    reason: str | None = None
    arguments: Json | None = None
    always: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ApprovalResolved:
    """Every call of an approval has its decision."""

    step: str
    decisions: tuple[Decision, ...]
    decided_by: str | None = None
    type: Literal["approval_resolved"] = "approval_resolved"


@dataclass(frozen=True, kw_only=True, slots=True)
class ContextSummarised:
    """The conversation before message `upto` has a summary, or (None) the attempt failed."""

    step: str
    summary: str | None
    upto: int
    reason: str | None = None
    usage: Usage = Usage()
    cost_usd: float | None = None
    type: Literal["context_summarised"] = "context_summarised"


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoriesConsolidated:
    """At the end of its run an agent's memories were put together: `replaced` ones became `ids`.

    `reason` says why some of them, or all, were left as they are.
    """

    step: str
    ids: tuple[str, ...] = ()
    replaced: int = 0
    reason: str | None = None
    usage: Usage = Usage()
    cost_usd: float | None = 0.0
    type: Literal["memories_consolidated"] = "memories_consolidated"


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadlinePassed:
    """run_timeout_seconds are over."""

    step: None = None
    type: Literal["deadline_passed"] = "deadline_passed"


@dataclass(frozen=True, kw_only=True, slots=True)
class LateResult:
    """An outcome came after its step had got another one: kept for the record and its usage."""

    late_step: str
    outcome: Json
    step: None = None
    type: Literal["late_result"] = "late_result"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFinished:
    """The run has its result."""

    result: str
    structured: Any = None
    usage: Usage = Usage()
    step: Literal["end"] = "end"
    type: Literal["run_finished"] = "run_finished"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFailed:
    """The run ended without a result; `text` is what the model had said last."""

    code: str
    message: str
    text: str = ""
    usage: Usage = Usage()
    step: Literal["end"] = "end"
    type: Literal["run_failed"] = "run_failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunCancelled:
    """Somebody cancelled the run."""

    reason: str = ""
    usage: Usage = Usage()
    step: Literal["end"] = "end"
    type: Literal["run_cancelled"] = "run_cancelled"


Event = (
    RunStarted
    | RunRouted
    | ModelReplied
    | ModelFailed
    | ToolReturned
    | SubRunFinished
    | ApprovalRequested
    | ApprovalResolved
    | ContextSummarised
    | MemoriesConsolidated
    | DeadlinePassed
    | LateResult
    | RunFinished
    | RunFailed
    | RunCancelled
)
