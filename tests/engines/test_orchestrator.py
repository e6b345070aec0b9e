"""The library: what a person hands over as objects becomes runs that do as told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

import heartbit
from heartbit import (
    Agent,
    AnthropicProvider,
    ConfigError,
    Decision,
    Limits,
    McpServer,
    Orchestrator,
    PendingApproval,
    PermissionRule,
    RunError,
    RunOutput,
    ScriptedProvider,
)
from heartbit.core.agent import ContextStrategy
from heartbit.core.messages import Json
from heartbit.core.request import ModelRequest
from heartbit.core.routing import RoutingMode
from heartbit.errors import BudgetExceeded, InvalidRequest, MaxTurnsExceeded, ModelCallFailed
from heartbit.providers.scripted import Reply as Said
from heartbit.providers.scripted import call
from heartbit.testing import ToolResult
from heartbit.toolbox import find_tools, put_in
from heartbit.tools.base import Tool
from heartbit.tools.registry import ToolOptions
from tests.support.engines import run_clean
from tests.support.mcp_servers import http_server
from tests.support.model_server import ModelServer, Recorded, Reply
from tests.support.parity import Asked, calls

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def results(request: ModelRequest) -> list[str]:
    """The tool results at the end of a request."""
    parts = request.messages[-1].parts
    return [part.content for part in parts if isinstance(part, ToolResult)]


def saying(*replies: Said) -> ScriptedProvider:
    """A model with these replies."""
    return ScriptedProvider(list(replies))


def run(orchestrator: Orchestrator, prompt: Any = "Go.") -> RunOutput:
    """One run from start to end."""
    return run_clean(orchestrator.run(prompt))


@heartbit.tool(effect="idempotent")
async def book_room(day: date, seats: int) -> str:
    """Book a room."""
    return f"Booked {seats} seats on {day:%A}."


def example_answer(request: Recorded) -> Reply:
    """The model behind the example: hands over, uses both tools, answers."""
    asked = Asked(request.json)
    if asked.system == "You write.":
        return Reply(text="Written.")
    if asked.system != "You research.":
        tasks = [{"agent": "researcher", "task": "r"}, {"agent": "writer", "task": "w"}]
        first = calls(("delegate_task", {"tasks": tasks}))
        return first if asked.turn == 1 else Reply(text=asked.last)
    if asked.turn == 1:
        return calls(("book_room", {"day": "2025-03-03", "seats": 4}), ("read", {"text": "ferris"}))
    return Reply(text=asked.last)


def test_the_program_that_introduces_the_library_works(capsys: pytest.CaptureFixture[str]) -> None:
    """Sub-agents, an MCP server, a function and streamed text, over real connections."""

    async def main() -> RunOutput:
        orchestrator = Orchestrator(
            provider=AnthropicProvider(
                model="claude-sonnet-4-20250514", api_key="key", base_url=server.url
            ),
            agents=[
                Agent(
                    name="researcher",
                    description="Research specialist",
                    system_prompt="You research.",
                    tools=[McpServer(mcp.url), book_room],
                ),
                Agent(name="writer", description="Writing specialist", system_prompt="You write."),
            ],
            on_text=lambda text: print(text, end=""),
        )
        return await orchestrator.run("Research the Rust ecosystem")

    with http_server() as mcp, ModelServer(example_answer) as server:
        output = asyncio.run(main())
    assert "Booked 4 seats on Monday.\nferris" in str(output.result)
    assert "=== Agent: writer ===\nWritten." in str(output.result)
    assert output.result == capsys.readouterr().out
    assert (50, 25) == (output.usage.input_tokens, output.usage.output_tokens)
    catalogue = server.requests[0].json["tools"][0]["description"]
    assert "- researcher: Research specialist\n- writer: Writing specialist" in catalogue


AGENTS = (Agent(name="ada", system_prompt="I am ada."), Agent(name="bob", system_prompt="I bob."))


@pytest.mark.parametrize(
    ("routing", "agents", "decision", "selected"),
    [
        ("auto", AGENTS[:1], "single_agent", "ada"),
        ("auto", AGENTS, "orchestrate", "orchestrator"),
        ("auto", (), "orchestrate", "orchestrator"),
        ("single_agent", AGENTS, "single_agent", "ada"),
        ("always_orchestrate", AGENTS[:1], "orchestrate", "orchestrator"),
    ],
)
def test_who_gets_the_prompt_is_decided_and_said(
    routing: RoutingMode, agents: Sequence[Agent], decision: str, selected: str
) -> None:
    """The second event of the root names the decision, the agent, and the reason."""
    entries: list[Json] = []
    provider = saying("Done.")
    run(Orchestrator(provider=provider, agents=agents, routing=routing, on_event=entries.append))
    routed = entries[1]
    assert ("run_routed", 2, decision, selected) == (
        routed["type"],
        routed["seq"],
        routed["decision"],
        routed["selected_agent"],
    )
    assert routed["reason"]
    assert selected == entries[0]["agent"]
    offered = [tool.name for tool in provider.requests[0].tools]
    assert ("delegate_task" in offered) == (decision == "orchestrate" and bool(agents))


SHARED = Limits(
    max_turns=3,
    max_tokens=77,
    max_total_tokens=10_000,
    run_timeout_seconds=60,
    max_tool_output_bytes=5,
    context_strategy=ContextStrategy(type="sliding_window", max_tokens=999),
)


def test_a_single_agent_inherits_what_the_orchestrator_is_limited_to() -> None:
    """What it says itself goes first; what it leaves open is taken over, whole runs included."""
    agent = Agent(name="ada", max_turns=2)
    orchestrator = Orchestrator(provider=saying("Done."), agents=[agent], limits=SHARED)

    async def main() -> Any:
        async with orchestrator:
            return (await orchestrator.resolve()).definition

    definition = run_clean(main())
    assert ("ada", 2, 77, 10_000, 60) == (
        definition.name,
        definition.max_turns,
        definition.max_tokens,
        definition.max_total_tokens,
        definition.run_timeout_seconds,
    )
    assert SHARED.context_strategy == definition.context_strategy


def test_a_sub_agent_does_not_inherit_the_limits_of_the_whole_run() -> None:
    """The time and the tokens of the tree are the root's to watch."""
    orchestrator = Orchestrator(provider=saying("Done."), agents=AGENTS, limits=SHARED)

    async def main() -> Any:
        async with orchestrator:
            return (await orchestrator.resolve()).definition

    definition = run_clean(main())
    assert (3, 10_000, 60) == (
        definition.max_turns,
        definition.max_total_tokens,
        definition.run_timeout_seconds,
    )
    for sub in definition.delegates:
        assert (3, 77, None, None, 5) == (
            sub.max_turns,
            sub.max_tokens,
            sub.max_total_tokens,
            sub.run_timeout_seconds,
            sub.max_tool_output_bytes,
        )


def test_an_agent_with_a_provider_of_its_own_is_served_by_it() -> None:
    """And by no other; who has none is served by the orchestrator's."""

    def chief(request: ModelRequest) -> Said:
        if request.system == "I bob.":
            return "Bob."
        if len(request.messages) == 1:
            tasks = [{"agent": "ada", "task": "a"}, {"agent": "bob", "task": "b"}]
            return call("delegate_task", tasks=tasks)
        return "|".join(results(request))

    shared, own = ScriptedProvider(chief), saying("Ada.")
    agents = [replace(AGENTS[0], provider=own), AGENTS[1]]
    output = run(Orchestrator(provider=shared, agents=agents))
    assert "=== Agent: ada ===\nAda.\n\n=== Agent: bob ===\nBob." == output.result
    assert (1, 3) == (len(own.requests), len(shared.requests))


@pytest.mark.parametrize("name", ["", "two words", "a" * 65, "ü", "a\n"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    """Names are keys of the blackboard and words of a model."""
    with pytest.raises(ConfigError, match="a name has 1 to 64"):
        Agent(name=name)


@pytest.mark.parametrize("name", ["orchestrator", "default"])
def test_a_name_that_heartbit_uses_itself_is_refused(name: str) -> None:
    """Nobody can pass for the orchestrator."""
    with pytest.raises(ConfigError, match="uses that name itself"):
        Orchestrator(provider=saying(), agents=[Agent(name=name)])


def test_two_agents_of_one_name_are_refused() -> None:
    """Nobody could say which of them a task is for."""
    with pytest.raises(ConfigError, match="Two agents are called 'ada'"):
        Orchestrator(provider=saying(), agents=[AGENTS[0], AGENTS[0]])


@pytest.mark.parametrize("limit", ["max_turns", "max_tokens", "run_timeout_seconds"])
def test_a_limit_that_allows_nothing_is_refused(limit: str) -> None:
    """Zero turns is no agent."""
    zero: dict[str, Any] = {limit: 0}
    with pytest.raises(ConfigError, match=f"{limit} must be greater than 0, not 0"):
        Limits(**zero)
    with pytest.raises(ConfigError, match=f"{limit} must be greater than 0, not 0"):
        Agent(name="ada", **zero)


def test_one_identical_call_would_be_none_at_all() -> None:
    """The number is that of the turn in a row which is not run any more."""
    with pytest.raises(ConfigError, match="must be 2 or more"):
        Limits(max_identical_tool_calls=1)
    assert 2 == Limits(max_identical_tool_calls=2).max_identical_tool_calls


@pytest.mark.parametrize("routing", ["single_agent", "always_orchestrate"])
def test_a_response_schema_of_the_run_holds_on_every_route(routing: RoutingMode) -> None:
    """Whoever answers the prompt answers in its structure."""
    agent = Agent(name="ada", response_schema={"type": "object", "required": ["other"]})
    output = run(
        Orchestrator(
            provider=saying(call("__respond__", n="x"), call("__respond__", n=7)),
            agents=[agent],
            routing=routing,
            response_schema=SCHEMA,
        )
    )
    assert ({"n": 7}, '{\n  "n": 7\n}', 2) == (output.structured, output.result, output.turns)


def test_an_agents_own_response_schema_holds_when_the_run_has_none() -> None:
    """The agent alone, or its part of the work, is answered in its structure."""
    agent = Agent(name="ada", response_schema=SCHEMA)
    replies = [call("__respond__", n="x"), call("__respond__", n=7)]
    alone = run(Orchestrator(provider=saying(*replies), agents=[agent]))
    assert {"n": 7} == alone.structured
    work = call("delegate_task", tasks=[{"agent": "ada", "task": "t"}])
    provider = saying(work, *replies, "Seven.")
    output = run(Orchestrator(provider=provider, agents=[agent], routing="always_orchestrate"))
    assert (None, "Seven.") == (output.structured, output.result)
    assert ['=== Agent: ada ===\n{\n  "n": 7\n}'] == results(provider.requests[-1])


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "objekt"}, "'objekt'"),
        ({"type": "array"}, 'its type must be "object"'),
        ({}, 'its type must be "object"'),
        ({"type": "object", "properties": {"n": {"$ref": "#/$defs/no"}}}, "leads nowhere"),
    ],
)
def test_a_broken_response_schema_is_refused(schema: Json, problem: str) -> None:
    """It would accept every answer, or be refused by the provider."""
    for make in (
        lambda: Agent(name="ada", response_schema=schema),
        lambda: Orchestrator(provider=saying(), response_schema=schema),
    ):
        with pytest.raises(ConfigError, match="response_schema") as raised:
            make()
        assert problem in raised.value.message


@pytest.mark.parametrize(
    ("replies", "limits", "error", "message"),
    [
        ([call("no")], Limits(max_turns=1), MaxTurnsExceeded, r"Max turns \(1\) exceeded"),
        (["Hi."], Limits(max_total_tokens=1), BudgetExceeded, "limit 1"),
        ([InvalidRequest("No.")], Limits(), ModelCallFailed, "No."),
    ],
)
def test_a_run_that_fails_raises_its_error_with_what_was_used(
    replies: Sequence[Said], limits: Limits, error: type[RunError], message: str
) -> None:
    """The output is on the exception: usage is never lost."""
    orchestrator = Orchestrator(provider=saying(*replies), agents=AGENTS[:1], limits=limits)
    with pytest.raises(error, match=message) as raised:
        run(orchestrator)
    output = raised.value.output
    assert isinstance(output, RunOutput)
    assert ("failed", error.code, raised.value.message) == (
        output.status,
        output.error_code,
        output.error,
    )
    assert (output.usage.input_tokens > 0) == (error is not ModelCallFailed)


def test_a_run_that_needs_a_human_comes_back_waiting() -> None:
    """Without an approver nothing is allowed, and the question is in the output."""
    agent = Agent(name="ada", tools=[book_room])
    asked = call("book_room", day="2025-03-03", seats=4)
    rules = [PermissionRule(tool="book_room", action="ask")]
    output = run(Orchestrator(provider=saying(asked), agents=[agent], permissions=rules))
    assert ("waiting", None) == (output.status, output.result)
    [pending] = output.pending
    assert ("ada", {"day": "2025-03-03", "seats": 4}) == (pending.agent, pending.calls[0].arguments)
    assert pending.run_id == output.run_id == output.as_json()["pending"][0]["run_id"]


def test_an_approver_is_asked_for_every_agent() -> None:
    """Plain or async: what it says is done."""
    agent = Agent(name="ada", tools=[book_room])
    asked = call("book_room", day="2025-03-03", seats=4)
    questions: list[PendingApproval] = []

    def approver(question: PendingApproval) -> list[Decision]:
        questions.append(question)
        return [Decision(position=position, verdict="approve") for position in question.positions]

    work = call("delegate_task", tasks=[{"agent": "ada", "task": "t"}])
    output = run(
        Orchestrator(
            provider=saying(work, asked, "Booked.", "All done."),
            agents=[agent],
            routing="always_orchestrate",
            approve=True,
            approver=approver,
        )
    )
    assert "All done." == output.result
    assert [("orchestrator", "delegate_task"), ("ada", "book_room")] == [
        (question.agent, question.calls[0].name) for question in questions
    ]


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("plain", "plain"),
        ({"ticket": 4711, "text": "ü"}, '{"ticket": 4711, "text": "ü"}'),
        (["a", 1], '["a", 1]'),
        (None, "null"),
    ],
)
def test_a_prompt_that_is_no_text_is_told_as_json(prompt: Any, told: str) -> None:
    """Whatever came out of the step before can be worked on."""
    provider = saying("Done.")
    run(Orchestrator(provider=provider), prompt)
    assert told == provider.requests[0].messages[0].text


def counter(start: int) -> Callable[[], int]:
    """A factory: all its functions have one qualified name."""

    def count() -> int:
        return start

    return count


def test_tools_of_one_qualified_name_stay_apart() -> None:
    """Each agent calls the function it was given, also when a factory made both."""

    def reply(request: ModelRequest) -> Said:
        if request.system in ("I am ada.", "I bob."):
            return results(request)[0] if results(request) else call("count")
        if len(request.messages) == 1:
            tasks = [{"agent": "ada", "task": "a"}, {"agent": "bob", "task": "b"}]
            return call("delegate_task", tasks=tasks)
        return results(request)[0]

    agents = [
        replace(agent, tools=[counter(start)])
        for agent, start in zip(AGENTS, (1, 1000), strict=True)
    ]
    output = run(Orchestrator(provider=ScriptedProvider(reply), agents=agents))
    assert "=== Agent: ada ===\n1\n\n=== Agent: bob ===\n1000" == output.result


class Nowhere:
    """No MCP server at all."""

    async def tools(self, server: McpServer) -> Sequence[Tool]:
        raise AssertionError(server)


def test_a_tool_that_several_agents_list_is_one_tool() -> None:
    """Its reference is the same everywhere; one with other options has another."""
    patient = {"book_room": ToolOptions(name="book_room", timeout_seconds=9)}

    async def specs(options: dict[str, ToolOptions]) -> Any:
        found = await find_tools([book_room], Nowhere(), options)
        return put_in(found.tools, executables)

    executables: dict[str, Tool] = {}
    [first], [again] = run_clean(specs({})), run_clean(specs({}))
    [other] = run_clean(specs(patient))
    assert first == again
    assert (9, f"{first.ref}#2") == (other.timeout_seconds, other.ref)
    assert {first.ref, other.ref} == executables.keys()


def test_an_agent_gets_only_the_tools_it_lists_and_the_blackboard_of_its_team() -> None:
    """Nothing is on unless it was asked for."""
    provider = saying("Done.")
    run(Orchestrator(provider=provider, agents=[Agent(name="ada", tools=["read"])]))
    assert ["read"] == [tool.name for tool in provider.requests[0].tools]
    board = ["blackboard_read", "blackboard_write", "blackboard_list"]

    async def resolved() -> Any:
        agents = [Agent(name="ada", tools=["read", "blackboard_list"]), Agent(name="bob")]
        async with Orchestrator(provider=provider, agents=agents) as orchestrator:
            return (await orchestrator.resolve()).definition

    ada, bob = run_clean(resolved()).delegates
    assert ["read", "blackboard_list", *board[:2]] == [tool.name for tool in ada.tools]
    assert board == [tool.name for tool in bob.tools]


def test_a_tool_that_does_not_exist_is_an_error_before_any_model_call() -> None:
    """A typo costs nothing."""
    provider = saying()
    orchestrator = Orchestrator(provider=provider, agents=[Agent(name="ada", tools=["raed"])])
    with pytest.raises(ConfigError, match=r"Unknown tool 'raed'; did you mean 'read'\?"):
        run(orchestrator)
    assert [] == provider.requests


def test_what_a_person_should_know_goes_to_the_log_or_to_on_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A server that cannot be reached is no reason not to run."""
    agent = Agent(name="ada", tools=[McpServer("http://127.0.0.1:9/mcp")])
    with caplog.at_level(logging.WARNING, "heartbit"):
        asyncio.run(Orchestrator(provider=saying("Done."), agents=[agent]).run("Go."))
    assert "127.0.0.1:9" in caplog.text
    heard: list[str] = []
    told = Orchestrator(provider=saying("Done."), agents=[agent], on_warning=heard.append)
    assert "Done." == asyncio.run(told.run("Go.")).result
    assert ["127.0.0.1:9" in warning for warning in heard] == [True]


def test_a_warning_is_told_once_while_the_connections_stay_open() -> None:
    """A chat does not repeat it at every line."""
    heard: list[str] = []
    agent = Agent(name="ada", tools=[McpServer("http://127.0.0.1:9/mcp")])

    async def two_lines() -> None:
        provider = saying("Done.", "Again.")
        orchestrator = Orchestrator(provider=provider, agents=[agent], on_warning=heard.append)
        async with orchestrator:
            await orchestrator.run("Go.")
            await orchestrator.run("Go on.")

    asyncio.run(two_lines())
    assert 1 == len(heard)


def test_fifty_runs_at_once_do_not_mix() -> None:
    """One orchestrator serves them all, each with its own journal, tools and result."""
    entries: list[Json] = []

    @heartbit.tool(effect="pure")
    async def double(n: int) -> int:
        await asyncio.sleep(0)
        return 2 * n

    def reply(request: ModelRequest) -> Said:
        number = int(request.messages[0].text)
        found = results(request)
        if request.system == "I am ada.":
            return f"{number}:{found[0]}" if found else call("double", n=number)
        if not found:
            return call("delegate_task", tasks=[{"agent": "ada", "task": str(number)}])
        return found[0]

    async def main() -> list[RunOutput]:
        agents = [Agent(name="ada", system_prompt="I am ada.", tools=[double])]
        orchestrator = Orchestrator(
            provider=ScriptedProvider(reply),
            agents=agents,
            routing="always_orchestrate",
            on_event=entries.append,
        )
        async with orchestrator:
            return await asyncio.gather(*(orchestrator.run(str(n)) for n in range(50)))

    outputs = run_clean(main(), seconds=30)
    assert [f"=== Agent: ada ===\n{n}:{2 * n}" for n in range(50)] == [o.result for o in outputs]
    assert 50 == len({output.run_id for output in outputs})
    assert {2} == {output.tool_calls_made for output in outputs}
    for n, output in enumerate(outputs):
        own = [e for e in entries if e["root_run_id"] == output.run_id]
        assert {str(n)} == {e["prompt"] for e in own if e["type"] == "run_started"}
        for run_id in {e["run_id"] for e in own}:
            seqs = [e["seq"] for e in own if e["run_id"] == run_id and "seq" in e]
            assert list(range(1, len(seqs) + 1)) == seqs
