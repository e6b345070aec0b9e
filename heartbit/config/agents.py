"""The tables that say who does the work: orchestrator, agents, their tools and permissions.

The text below a field is its entry in the reference.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, PlainValidator, ValidationInfo, model_validator

from heartbit.config.fields import (
    Amount,
    AnyCase,
    Count,
    Expanded,
    Many,
    Repeats,
    Seconds,
    Secret,
    Table,
    Text,
    WebUrl,
    broken_rule,
)
from heartbit.config.provider import ProviderTable
from heartbit.core.agent import Action, DispatchMode, ReasoningEffort, ToolProfile
from heartbit.core.tools import RESERVED, Effect, OnDoubt

Routing = Literal["auto", "always_orchestrate", "single_agent"]
ORCHESTRATOR = "orchestrator"
"""What the orchestrator is called in events; no agent of the file may be called so."""


def _agent_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
        raise ValueError("must be 1 to 64 letters, digits, '_', '-' or '.'")
    if name == ORCHESTRATOR:
        raise ValueError(f"must not be {name!r}, which is the orchestrator's own name")
    return name


def _tool_name(name: str) -> str:
    if name in RESERVED:
        raise ValueError(f"must not be {name!r}, which heartbit itself uses")
    return name


def _listed_tool(reference: str) -> str:
    if ":" in reference:
        return reference
    from heartbit.tools.registry import instead_of, own_tools

    known = own_tools()
    if reference not in known:
        raise ValueError(f"is no built-in tool: {reference!r}{instead_of(reference, known)}")
    return reference


def _json_schema(schema: dict[str, Any]) -> dict[str, Any]:
    from jsonschema import Draft202012Validator, SchemaError

    try:
        json.dumps(schema, allow_nan=False)
        Draft202012Validator.check_schema(schema)
    except (TypeError, ValueError):
        raise ValueError("has a value that JSON can't hold (a date, a time, inf or nan)") from None
    except SchemaError as error:
        at = "/".join(str(step) for step in error.absolute_path)
        where = f": look at {at!r}" if at else ""
        raise ValueError(f"is not a valid JSON schema{where}") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    return schema


AgentName = Annotated[str, AfterValidator(_agent_name)]
ToolReference = Annotated[Text, AfterValidator(_tool_name)]
JsonSchema = Annotated[dict[str, Any], AfterValidator(_json_schema)]


class ContextStrategyTable(Table):
    """How a long conversation is fitted into a request."""

    type: Literal["unlimited", "sliding_window", "summarize"] = "unlimited"
    """Send everything, the newest part, or a summary of the middle."""
    max_tokens: Count | None = None
    """Tokens kept by `sliding_window`."""
    threshold: Count | None = None
    """Tokens from which `summarize` sums up."""

    @model_validator(mode="after")
    def _has_its_number(self) -> Self:
        needs = {"sliding_window": "max_tokens", "summarize": "threshold"}.get(self.type)
        for key in ("max_tokens", "threshold"):
            given = getattr(self, key) is not None
            if key == needs and not given:
                raise ValueError(f"needs {key!r} for type {self.type!r}")
            if given and key != needs:
                raise broken_rule(f"has no meaning for type {self.type!r}", key)
        return self


class SessionPruneTable(Table):
    """Old tool results are cut in what is sent to the model."""

    keep_recent_n: Amount = 2
    """Newest pairs of messages that stay whole."""
    pruned_tool_result_max_bytes: Amount = 200
    """Bytes that stay of an older tool result."""
    preserve_task: bool = True
    """Whether the first message stays whole."""


class LimitsTable(Table):
    """What the orchestrator and every agent can be limited by."""

    max_total_tokens: Count | None = None
    """Tokens the run may use, in and out; above it the run fails."""
    run_timeout_seconds: Seconds | None = None
    """Seconds the run may take."""
    tool_timeout_seconds: Seconds | None = None
    """Seconds a tool call may take; its failure goes to the model."""
    approval_timeout_seconds: Seconds | None = None
    """Seconds a human has to answer; then the calls are denied, and the model is told why."""
    max_tool_output_bytes: Count | None = None
    """Bytes of a tool's output that the model gets; the rest is cut."""
    max_identical_tool_calls: Repeats | None = None
    """In so many turns in a row the same tool calls: they are not run again, and the model is told
    to try another way."""
    context_strategy: ContextStrategyTable | None = None
    """How a long conversation is fitted into a request."""
    summarize_threshold: Count | None = None
    """Short for a context_strategy of type `summarize` with this threshold."""
    reasoning_effort: Annotated[ReasoningEffort, AnyCase] | None = None
    """How long the model thinks before it answers."""
    tool_profile: Annotated[ToolProfile, AnyCase] | None = None
    """Which of its tools the model is shown; all when not given."""

    @model_validator(mode="after")
    def _one_way_to_summarize(self) -> Self:
        strategy = self.context_strategy.type if self.context_strategy else "unlimited"
        if self.summarize_threshold is not None and strategy != "unlimited":
            raise broken_rule(
                f"and context_strategy {strategy!r} exclude each other; keep one of them",
                "summarize_threshold",
            )
        return self


class OrchestratorTable(LimitsTable):
    """The agent that hands work to the others."""

    max_turns: Count = 10
    """Model replies in one run."""
    max_tokens: Count = 4096
    """Tokens in one model reply."""
    routing: Routing = "auto"
    """Who starts: `auto` decides by prompt and agents, `single_agent` is the first agent."""
    dispatch_mode: DispatchMode = "parallel"
    """Whether sub-agents work at the same time or one after the other."""
    enable_squads: bool | None = None
    """Whether agents can be asked as a squad; by default if there are two or more."""


class McpHttpTable(Table):
    """An MCP server that is reached over HTTP; a plain `"url"` is short for it."""

    url: WebUrl
    """Its address."""
    auth_header: Secret | None = None
    """The Authorization header, as it is sent: `"Bearer $TOKEN"`."""
    mode: Literal["auto", "legacy"] = "auto"
    """How the protocol is agreed on; `legacy` spares older servers the first question."""


class McpStdioTable(Table):
    """An MCP server that is started as a command and spoken to over its pipes."""

    command: Text
    """The program."""
    args: Many[str] = ()
    """Its arguments."""
    env: dict[str, Expanded] = {}
    """Its environment, besides the few variables every program needs."""


def _mcp_server(value: object, info: ValidationInfo) -> McpHttpTable | McpStdioTable:
    if isinstance(value, str):
        value = {"url": value}
    if isinstance(value, dict) and {"url", "command"} <= value.keys():
        raise ValueError("has both a url and a command; keep one of them")
    if isinstance(value, dict) and "command" in value:
        return McpStdioTable.model_validate(value, context=info.context)
    return McpHttpTable.model_validate(value, context=info.context)


McpServerTable = Annotated[McpHttpTable | McpStdioTable, PlainValidator(_mcp_server)]


class AgentTable(LimitsTable):
    """One agent that does the work."""

    name: AgentName
    """Unique name: letters, digits, `_`, `-` and `.`, at most 64."""
    description: str
    """What it is good at; the orchestrator chooses by this."""
    system_prompt: str
    """What it is told."""
    tools: Many[Annotated[ToolReference, AfterValidator(_listed_tool)]] = ()
    """The only local tools it may use: a built-in (`"read"`), a Python function
    (`"package.module:function"`) or, in durable runs, a Celery task (`"celery:task.name"`)."""
    mcp_servers: Many[McpServerTable] = ()
    """Servers whose tools it may use: `"url"`, `{url, auth_header}` or `{command, args, env}`."""
    provider: ProviderTable | None = None
    """A provider of its own."""
    max_turns: Count | None = None
    """As in `[orchestrator]`, and its value when not given."""
    max_tokens: Count | None = None
    """As in `[orchestrator]`, and its value when not given."""
    session_prune: SessionPruneTable | None = None
    """Old tool results are cut; an empty table cuts by its defaults."""
    response_schema: JsonSchema | None = None
    """A JSON schema: the agent answers with an object that fits it."""


class ToolTable(Table):
    """Options of one tool, whoever serves it."""

    name: ToolReference
    """The tool: as an agent's `tools` names it, or as its MCP server does."""
    queue: Text | None = None
    """The Celery queue its calls go to."""
    timeout_seconds: Seconds | None = None
    """Seconds a call may take, in place of the agent's limit."""
    effect: Effect | None = None
    """What a repeated call would do; decides what happens when a worker dies in one."""
    on_doubt: OnDoubt | None = None
    """Who decides about a call that may have happened: the model, or a person."""
    input_schema: JsonSchema | None = None
    """The JSON schema of its arguments, where heartbit can't find out."""
    description: Text | None = None
    """What the model is told about it, in place of its own description."""


class PermissionTable(Table):
    """What may happen to a tool call. The first rule that fits decides."""

    tool: Text
    """The tool's name; `*` is every tool."""
    pattern: str = "*"
    """A pattern that some argument must fit."""
    action: Action
    """Run it, refuse it, or ask a person first."""
