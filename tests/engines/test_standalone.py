"""The in-process engine: what runs side by side, what is heard, and how a run can be stopped."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import pytest

from heartbit.core.agent import AgentDefinition
from heartbit.core.events import (
    ApprovalResolved,
    Decision,
    Event,
    RunCancelled,
    RunFinished,
    RunRouted,
    RunStarted,
    SubRunFinished,
    ToolReturned,
)
from heartbit.core.messages import Json
from heartbit.core.request import ModelRequest
from heartbit.core.result import PendingApproval
from heartbit.core.retry import RetryPolicy
from heartbit.core.stream import event_entry
from heartbit.core.tools import ToolOutput
from heartbit.engines.standalone import StandaloneRun, World
from heartbit.errors import TruncatedStream
from heartbit.providers.anthropic import AnthropicProvider
from heartbit.providers.base import Provider
from heartbit.providers.retry import RetryingProvider
from heartbit.providers.scripted import Reply as Said
from heartbit.providers.scripted import ScriptedProvider, call
from heartbit.tools.base import BoundTool, Tool, ToolContext
from heartbit.tools.function import tool
from tests.support.engines import run_clean
from tests.support.model_server import Gate, ModelServer, Raw, Recorded, Reply
from tests.support.parity import ADD, Asked, calls, make_tool

SUBS = tuple(AgentDefinition(name=name, system_prompt=f"I am {name}.") for name in ("ada", "bob"))
CHIEF = AgentDefinition(name="chief", system_prompt="I am the chief.", delegates=SUBS)
TASKS = [{"agent": "ada", "task": "a"}, {"agent": "bob", "task": "b"}]


def opened(
    provider: Provider,
    agent: AgentDefinition = CHIEF,
    tools: Sequence[Tool] = (),
    prompt: str = "Go.",
    routed: RunRouted | None = None,
    **hearing: Any,
) -> StandaloneRun:
    """A run that is ready to be driven."""
    world = World(
        providers={"default": provider}, tools={each.spec.ref: each for each in tools}, **hearing
    )
    started = RunStarted(prompt=prompt, definition=agent)
    return StandaloneRun(world, started, routed=routed)


def using(*tools: Tool, **limits: Any) -> AgentDefinition:
    """An agent with these tools."""
    return AgentDefinition(name="solo", tools=tuple(each.spec for each in tools), **limits)


def adapter(server: ModelServer) -> AnthropicProvider:
    """The real adapter, at the scripted server."""
    return AnthropicProvider(model="m", api_key="k", base_url=server.url)


def chief_hands_over(request: ModelRequest) -> Said:
    """A chief with two tasks, and agents that say who they are."""
    if "chief" not in request.system:
        return request.system
    if len(request.messages) == 1:
        return call("delegate_task", tasks=TASKS)
    return "The end."


def test_both_sub_runs_start_before_either_finishes() -> None:
    """Each of the two answers comes only when both were asked for."""
    both, came = Gate(), []

    async def answer(request: Recorded) -> Reply:
        asked = Asked(request.json)
        if "chief" in asked.system:
            first = calls(("delegate_task", {"tasks": TASKS}))
            return first if asked.turn == 1 else Reply(text="Both.")
        came.append(asked.system)
        if len(came) == 2:
            both.open()
        await both.passed()
        return Reply(text=asked.system)

    async def main() -> StandaloneRun:
        provider = adapter(server)
        run = opened(provider)
        await run.drive()
        await provider.aclose()
        return run

    with ModelServer(answer) as server:
        run = run_clean(main())
    assert ("succeeded", "Both.") == (run.output.status, run.output.result)
    assert {"I am ada.", "I am bob."} == set(came)


def test_text_is_heard_from_the_root_only_and_events_from_everybody() -> None:
    """Two agents that speak at once would be unreadable; a program can tell them apart."""
    texts: list[str] = []
    entries: list[Json] = []

    async def main() -> StandaloneRun:
        run = opened(
            ScriptedProvider(chief_hands_over), on_text=texts.append, on_event=entries.append
        )
        await run.drive()
        return run

    run_clean(main())
    assert "The end." == "".join(texts)
    spoken = defaultdict(str)
    for entry in entries:
        if entry["type"] == "text_delta":
            spoken[entry["agent"]] += entry["text"]
    assert {"chief": "The end.", "ada": "I am ada.", "bob": "I am bob."} == spoken


def test_every_entry_is_json_and_names_its_run_and_its_place() -> None:
    """A reader can put the tree together, and each journal, from the entries alone."""
    entries: list[Json] = []
    routed = RunRouted(decision="orchestrate", selected_agent="chief", reason="Because.")

    async def main() -> StandaloneRun:
        run = opened(ScriptedProvider(chief_hands_over), on_event=entries.append, routed=routed)
        await run.drive()
        return run

    run = run_clean(main())
    assert entries == [json.loads(json.dumps(entry)) for entry in entries]
    journals = defaultdict(list)
    for entry in entries:
        assert run.identity.run_id == entry["root_run_id"]
        if entry["type"] == "text_delta":
            assert {"step", "attempt", "text"} <= entry.keys()
        else:
            journals[entry["run_id"]].append(entry)
    everyone = {run.identity.run_id: run} | {c.identity.run_id: c for c in run.children.values()}
    assert everyone.keys() == journals.keys()
    for run_id, each in everyone.items():
        numbered = enumerate(each.events, 1)
        assert [event_entry(each.identity, seq, event) for seq, event in numbered] == (
            journals[run_id]
        )
        assert each.identity.parent_run_id == journals[run_id][0]["parent_run_id"]
    assert ["run_started", "run_routed"] == [e.type for e in run.events[:2]]


def test_a_definition_is_named_in_its_entry_and_not_repeated() -> None:
    """A reader wants to know who works, not every schema."""
    entries: list[Json] = []

    async def main() -> None:
        await opened(ScriptedProvider(chief_hands_over), on_event=entries.append).drive()

    run_clean(main())
    assert {
        "type": "run_started",
        "seq": 1,
        "step": "start",
        "prompt": "Go.",
        "model": "",
        "max_turns": 10,
        "tools": [],
        "delegates": ["ada", "bob"],
        "agent": "chief",
        "parent_run_id": None,
    } == {k: v for k, v in entries[0].items() if k not in ("run_id", "root_run_id")}


def test_a_turn_that_is_retried_takes_back_what_was_heard() -> None:
    """The text of the first attempt is void from `turn_restarted` on."""
    entries: list[Json] = []

    async def no_pause(seconds: float) -> None:
        pass

    async def main() -> None:
        broken = ScriptedProvider([["Hel", TruncatedStream()], "Hello there"])
        provider = RetryingProvider(broken, RetryPolicy(), sleep=no_pause)
        await opened(provider, using(), on_event=entries.append).drive()

    run_clean(main())
    heard = [(e["type"], e.get("attempt"), e.get("text")) for e in entries if "attempt" in e]
    assert [
        ("text_delta", 1, "Hel"),
        ("turn_restarted", 2, None),
        ("text_delta", 2, "Hello "),
        ("text_delta", 2, "there"),
    ] == heard
    assert {"1/model"} == {entry["step"] for entry in entries if "attempt" in entry}


def test_nothing_is_streamed_when_nobody_listens() -> None:
    """A plain answer is cheaper for everybody."""

    async def main(**hearing: Any) -> None:
        provider = adapter(server)
        await opened(provider, using(), **hearing).drive()
        await provider.aclose()

    with ModelServer(lambda request: "Hi.") as server:
        run_clean(main())
        run_clean(main(on_text=lambda text: None))
    assert [None, True] == [request.json.get("stream") for request in server.requests]


Phase = Callable[[StandaloneRun], Awaitable[None]]


def cancelled(run: StandaloneRun, ready: Callable[[], Awaitable[object]]) -> Coroutine:
    """Drive `run`, cancel it once it is `ready`, and let it end."""

    async def main() -> None:
        driving = asyncio.ensure_future(run.drive())
        await ready()
        driving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await driving

    return main()


def assert_cancelled(run: StandaloneRun) -> None:
    """The journal ends with the cancellation, and the output says so."""
    output = run.output
    assert ("cancelled", "run_cancelled") == (output.status, output.error_code)
    assert isinstance(run.events[-1], RunCancelled)
    assert output.usage == run.events[-1].usage
    assert () == output.pending


def test_cancelling_a_run_while_the_model_speaks_closes_its_connection() -> None:
    """The provider is not left speaking to nobody."""
    usage = {"input_tokens": 10, "output_tokens": 1}
    message = {"id": "m", "role": "assistant", "model": "m", "content": [], "usage": usage}
    start = json.dumps({"type": "message_start", "message": message})
    stream = Raw(
        headers={"content-type": "text/event-stream"},
        chunks=(f"event: message_start\ndata: {start}\n\n".encode(),),
        ending="hang",
    )

    async def main() -> StandaloneRun:
        provider = adapter(server)
        run = opened(provider, using(ADD), [ADD], on_text=lambda text: None)
        await cancelled(run, lambda: asyncio.to_thread(server.wait_for_requests, 2))
        assert await asyncio.to_thread(server.requests[1].abandoned.wait, 5)
        await provider.aclose()
        return run

    with ModelServer([calls(("add", {"a": 1, "b": 2})), stream]) as server:
        run = run_clean(main())
    assert_cancelled(run)
    assert (10, 5) == (run.output.usage.input_tokens, run.output.usage.output_tokens)
    assert (1, 2) == (run.output.tool_calls_made, run.output.turns)
    assert ["1/model", "1/tool/0"] == [event.step for event in run.events[1:-1]]


def test_cancelling_a_run_while_its_sub_runs_are_at_work_ends_them_too() -> None:
    """Every journal of the tree has its end, and what the sub-runs had used is counted."""
    hang = Raw(ending="hang")

    async def answer(request: Recorded) -> Reply | Raw:
        asked = Asked(request.json)
        if "chief" in asked.system:
            return calls(("delegate_task", {"tasks": TASKS}))
        return calls(("add", {"a": 1, "b": 2})) if asked.turn == 1 else hang

    async def main() -> StandaloneRun:
        provider = adapter(server)
        subs = tuple(
            AgentDefinition(name=s.name, system_prompt=s.system_prompt, tools=(ADD.spec,))
            for s in SUBS
        )
        chief = AgentDefinition(name="chief", system_prompt="I am the chief.", delegates=subs)
        run = opened(provider, chief, [ADD])
        await cancelled(run, lambda: asyncio.to_thread(server.wait_for_requests, 5))
        hanging = [each for each in server.requests if Asked(each.json).turn == 2]
        assert 2 == len(hanging)
        for request in hanging:
            assert await asyncio.to_thread(request.abandoned.wait, 5)
        await provider.aclose()
        return run

    with ModelServer(answer) as server:
        run = run_clean(main())
    assert_cancelled(run)
    for child in run.children.values():
        assert_cancelled(child)
        assert 10 == child.output.usage.input_tokens
    assert 30 == run.output.usage.input_tokens
    assert 3 == run.output.tool_calls_made
    assert {"1/sub/0", "1/sub/1"} == {
        event.step for event in run.events if isinstance(event, SubRunFinished)
    }


def test_cancelling_a_run_cancels_its_tools() -> None:
    """All tools of the turn are stopped and may tidy up before the run is over."""
    running, tidied = asyncio.Event(), []

    async def wait(arguments: Json, context: ToolContext) -> ToolOutput:
        if context.step.endswith("1"):
            running.set()
        try:
            return await asyncio.get_running_loop().create_future()
        finally:
            tidied.append(context.step)

    patient = BoundTool(spec=make_tool("wait", lambda: "").spec, run=wait)
    provider = ScriptedProvider([[call("wait"), call("wait")]])
    run = opened(provider, using(patient), [patient])
    run_clean(cancelled(run, running.wait))
    assert_cancelled(run)
    assert ["1/tool/0", "1/tool/1"] == sorted(tidied)
    assert [] == [event for event in run.events if isinstance(event, ToolReturned)]


def test_cancelling_a_run_that_waits_for_its_approver_withdraws_the_question() -> None:
    """The human need not answer any more, and nothing is run."""
    asked, withdrawn = asyncio.Event(), []

    async def ponder(question: PendingApproval) -> None:
        asked.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            withdrawn.append(question.step)

    provider = ScriptedProvider([call("add", a=1, b=2)])
    run = opened(provider, using(ADD, approve=True), [ADD], approver=ponder)
    run_clean(cancelled(run, asked.wait))
    assert_cancelled(run)
    assert ["1/approval"] == withdrawn


async def _never_answers(question: PendingApproval) -> None:
    await asyncio.get_running_loop().create_future()


def test_a_question_that_nobody_answers_in_time_is_denied_as_in_a_durable_run() -> None:
    """The model reads why, and goes on."""
    agent = using(ADD, approve=True, approval_timeout_seconds=0.01)
    provider = ScriptedProvider([call("add", a=1, b=2), "Then not."])
    run = opened(provider, agent, [ADD], approver=_never_answers)
    run_clean(run.drive())
    [resolved] = [event for event in run.events if isinstance(event, ApprovalResolved)]
    denial = Decision(position=0, verdict="deny", reason="nobody answered in time")
    assert ((denial,), None) == (resolved.decisions, resolved.decided_by)
    [returned] = [event for event in run.events if isinstance(event, ToolReturned)]
    assert "Denied by a human reviewer: nobody answered in time" == returned.content
    assert ("succeeded", ()) == (run.output.status, run.output.pending)


def test_a_timeout_of_the_approver_itself_is_no_answer_that_came_too_late() -> None:
    """What it raises comes out of the run, as ever."""

    async def broken(question: PendingApproval) -> None:
        raise TimeoutError("The desk is closed.")

    agent = using(ADD, approve=True, approval_timeout_seconds=60.0)
    run = opened(ScriptedProvider([call("add", a=1, b=2)]), agent, [ADD], approver=broken)
    with pytest.raises(TimeoutError, match="The desk is closed"):
        run_clean(run.drive())


def test_a_second_cancellation_does_not_cost_the_run_its_end() -> None:
    """Someone in a hurry presses Ctrl-C twice."""
    running, tidying = asyncio.Event(), asyncio.Event()

    async def slow_to_tidy(arguments: Json, context: ToolContext) -> ToolOutput:
        try:
            running.set()
            return await asyncio.get_running_loop().create_future()
        finally:
            tidying.set()
            await asyncio.get_running_loop().create_future()

    slow = BoundTool(spec=make_tool("slow", lambda: "").spec, run=slow_to_tidy)
    provider = ScriptedProvider([[call("slow"), call("slow")]])
    run = opened(provider, using(slow), [slow])

    async def main() -> None:
        driving = asyncio.ensure_future(run.drive())
        await running.wait()
        driving.cancel()
        await tidying.wait()
        driving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await driving

    run_clean(main())
    assert_cancelled(run)


def test_a_run_whose_task_is_cancelled_in_its_model_call_leaves_other_runs_alone() -> None:
    """Runs of one world share providers and tools, and nothing else."""
    asked = asyncio.Event()

    async def reply(request: ModelRequest) -> Said:
        if "first" in request.messages[0].text:
            asked.set()
            await asyncio.get_running_loop().create_future()
        return "Done."

    async def main() -> None:
        world = World(providers={"default": ScriptedProvider(reply)})
        first, second = (
            StandaloneRun(world, RunStarted(prompt=prompt, definition=using()))
            for prompt in ("first", "second")
        )
        await cancelled(first, asked.wait)
        await second.drive()
        assert ("cancelled", "succeeded") == (first.output.status, second.output.status)

    run_clean(main())


def leave() -> str:
    raise SystemExit(3)


ODD_TOOLS = [
    (tool(name="odd", effect="pure")(lambda: leave()), "SystemExit: 3"),
    (tool(name="odd", effect="pure")(lambda: b"\xff\xfe"), "[binary data, 2 bytes]"),
    (tool(name="odd", effect="pure")(lambda: "half \ud800 and \x00"), "half"),
    (tool(name="odd", effect="pure")(lambda: "x" * 2_000_000), "[truncated: 1999000 bytes"),
    (tool(name="odd", effect="pure")(lambda: object()), "cannot be written as JSON"),
]


@pytest.mark.parametrize(("odd", "told"), ODD_TOOLS, ids=[told[:9] for _, told in ODD_TOOLS])
def test_the_model_is_told_whatever_a_tool_did(odd: Tool, told: str) -> None:
    """Over a real connection: nothing a tool returns breaks the next request."""

    async def main() -> StandaloneRun:
        provider = adapter(server)
        run = opened(provider, using(odd, max_tool_output_bytes=1000), [odd])
        await run.drive()
        await provider.aclose()
        return run

    with ModelServer([calls(("odd", {})), "Done."]) as server:
        run = run_clean(main())
    assert ("succeeded", "Done.") == (run.output.status, run.output.result)
    assert told in Asked(server.requests[1].json).last


def test_a_tool_that_blocks_does_not_hold_up_the_others() -> None:
    """A plain function runs in a thread, and the loop goes on."""
    released = threading.Event()

    @tool(effect="pure")
    def block() -> str:
        return "free" if released.wait(5) else "held up"

    @tool(effect="pure")
    async def release() -> str:
        released.set()
        return "released"

    provider = ScriptedProvider([[call("block"), call("release")], "Done."])
    run = opened(provider, using(block, release), [block, release])
    run_clean(run.drive())
    results = {e.step: e.content for e in run.events if isinstance(e, ToolReturned)}
    assert {"1/tool/0": "free", "1/tool/1": "released"} == results


def test_results_that_are_ready_together_are_taken_in_the_order_of_the_calls() -> None:
    """Even the order within the journal does not depend on chance."""
    tools = [make_tool(f"t{n}", lambda n=n: str(n)) for n in range(20)]
    provider = ScriptedProvider([[call(f"t{n}") for n in range(20)], "Done."])
    run = opened(provider, using(*tools), tools)
    run_clean(run.drive())
    steps = [event.step for event in run.events if isinstance(event, ToolReturned)]
    assert [f"1/tool/{n}" for n in range(20)] == steps


class ListenerError(Exception):
    """What a listener of these tests raises."""


def hearing_badly(kind: str, error: Exception, when: Callable[[Json], bool]) -> dict[str, Any]:
    """A listener that raises at some point."""

    def on_event(entry: Json) -> None:
        if when(entry):
            raise error

    def on_text(text: str) -> None:
        raise error

    return {"on_event": on_event} if kind == "on_event" else {"on_text": on_text}


@pytest.mark.parametrize(
    ("kind", "when"),
    [
        ("on_event", lambda entry: entry["type"] == "run_started"),
        ("on_event", lambda entry: entry["type"] == "model_replied" and entry["agent"] == "ada"),
        ("on_event", lambda entry: entry["type"] == "text_delta" and entry["agent"] == "bob"),
        ("on_event", lambda entry: entry["type"] == "sub_run_finished"),
        ("on_event", lambda entry: entry["type"] == "run_finished" and entry["agent"] == "chief"),
        ("on_text", None),
    ],
    ids=["start", "reply of a sub-run", "text of a sub-run", "sub-run", "end", "on_text"],
)
@pytest.mark.parametrize("error", [ListenerError("deaf"), TimeoutError(), BrokenPipeError()])
def test_what_a_listener_raises_stops_the_tree_and_comes_out(
    kind: str, when: Callable[[Json], bool], error: Exception
) -> None:
    """A closed pipe or a defect in a program is not a provider's failure, and not the deadline."""
    provider = RetryingProvider(ScriptedProvider(chief_hands_over), RetryPolicy())
    run = opened(provider, **hearing_badly(kind, error, when))

    async def main() -> None:
        with pytest.raises(type(error)) as raised:
            await run.drive()
        assert error is raised.value

    run_clean(main())


def test_a_listener_that_raises_while_a_run_is_cancelled_is_heard_of_too() -> None:
    """Nothing of the tree goes on, whoever raised."""
    entered = asyncio.Event()

    async def reply(request: ModelRequest) -> Said:
        entered.set()
        return await asyncio.get_running_loop().create_future()

    def on_event(entry: Json) -> None:
        if entry["type"] == "run_cancelled":
            raise ListenerError("deaf")

    run = opened(ScriptedProvider(reply), using(), on_event=on_event)

    async def main() -> None:
        driving = asyncio.ensure_future(run.drive())
        await entered.wait()
        driving.cancel()
        with pytest.raises(ListenerError):
            await driving

    run_clean(main())


@pytest.mark.parametrize("error", [ListenerError("gone"), TimeoutError("no answer")])
def test_what_an_approver_raises_stops_the_tree_and_comes_out(error: Exception) -> None:
    """An approver that gives up is not a run that took too long."""

    async def approver(question: PendingApproval) -> None:
        raise error

    started = []

    async def wait(arguments: Json, context: ToolContext) -> ToolOutput:
        started.append(context.step)
        return await asyncio.get_running_loop().create_future()

    patient = BoundTool(spec=make_tool("wait", lambda: "").spec, run=wait)
    subs = (using(patient, description="waits"), using(ADD, approve=True))
    named = tuple(
        AgentDefinition(name=name, tools=sub.tools, approve=sub.approve, system_prompt=name)
        for name, sub in zip(("ada", "bob"), subs, strict=True)
    )
    chief = AgentDefinition(name="chief", system_prompt="I am the chief.", delegates=named)

    def reply(request: ModelRequest) -> Said:
        if "chief" in request.system:
            return call("delegate_task", tasks=TASKS)
        return call("wait") if request.system == "ada" else call("add", a=1, b=2)

    async def main() -> None:
        run = opened(ScriptedProvider(reply), chief, [patient, ADD], approver=approver)
        with pytest.raises(type(error)) as raised:
            await run.drive()
        assert error is raised.value

    run_clean(main())
    assert ["1/tool/0"] == started


def test_questions_are_put_one_at_a_time() -> None:
    """Two agents that ask at once do not talk into each other's question."""
    asking, most = 0, 0

    async def approver(question: PendingApproval) -> None:
        nonlocal asking, most
        asking += 1
        most = max(most, asking)
        for _ in range(5):
            await asyncio.sleep(0)
        asking -= 1

    subs = tuple(
        AgentDefinition(name=name, system_prompt=name, tools=(ADD.spec,), approve=True)
        for name in ("ada", "bob")
    )
    chief = AgentDefinition(name="chief", system_prompt="I am the chief.", delegates=subs)

    def reply(request: ModelRequest) -> Said:
        if "chief" in request.system:
            return call("delegate_task", tasks=TASKS)
        return call("add", a=1, b=2)

    run = opened(ScriptedProvider(reply), chief, [ADD], approver=approver)
    run_clean(run.drive())
    assert 1 == most
    assert ("waiting", {"ada", "bob"}) == (run.output.status, {p.agent for p in run.output.pending})


def adder_team(*hanging: Tool) -> tuple[AgentDefinition, ScriptedProvider]:
    """A chief; ada, who must ask before she adds; and bob, who may."""
    tools = (ADD.spec, *(each.spec for each in hanging))
    ada = AgentDefinition(name="ada", system_prompt="ada", tools=tools, approve=True)
    bob = AgentDefinition(name="bob", system_prompt="bob", tools=tools)

    def reply(request: ModelRequest) -> Said:
        if "chief" in request.system:
            return call("delegate_task", tasks=TASKS)
        if request.system == "ada":
            return call("add", a=1, b=2)
        return call("hang") if hanging else "Done."

    chief = AgentDefinition(name="chief", system_prompt="I am the chief.", delegates=(ada, bob))
    return chief, ScriptedProvider(reply)


def test_the_output_of_a_waiting_run_counts_what_its_waiting_sub_runs_have_used() -> None:
    """The tokens are spent, whether the human answers or not."""
    chief, provider = adder_team()
    run = opened(provider, chief, [ADD])
    run_clean(run.drive())
    ada, bob = run.children.values()
    own = run.events[1].completion.usage  # type: ignore[union-attr]
    assert "waiting" == run.output.status
    assert own + ada.output.usage + bob.output.usage == run.output.usage
    assert 1 + 1 + 0 == run.output.tool_calls_made


def test_cancelling_a_run_ends_its_waiting_sub_runs_too() -> None:
    """One that waits for a human is under way like any other."""
    running = asyncio.Event()

    async def wait(arguments: Json, context: ToolContext) -> ToolOutput:
        running.set()
        return await asyncio.get_running_loop().create_future()

    hang = BoundTool(spec=make_tool("hang", lambda: "").spec, run=wait)
    chief, provider = adder_team(hang)
    run = opened(provider, chief, [ADD, hang])
    run_clean(cancelled(run, running.wait))
    assert_cancelled(run)
    for child in run.children.values():
        assert_cancelled(child)
    own = run.events[1].completion.usage  # type: ignore[union-attr]
    spent = [child.output.usage for child in run.children.values()]
    assert sum(spent, own) == run.output.usage


def test_a_run_id_and_those_of_its_sub_runs_can_be_foreseen() -> None:
    """The id of a sub-run follows from its parent's and its step, on every attempt."""

    async def ids(run_id: str) -> list[str]:
        world = World(providers={"default": ScriptedProvider(chief_hands_over)})
        run = StandaloneRun(world, RunStarted(prompt="Go.", definition=CHIEF), run_id=run_id)
        await run.drive()
        return [run.identity.run_id, *(c.identity.run_id for c in run.children.values())]

    for run_id in ("5f0f2b0e-7e1c-4a53-9a0e-6a8a2d2b5c11", "ticket-4711"):
        first, again = run_clean(ids(run_id)), run_clean(ids(run_id))
        assert first == again
        assert (run_id, 3) == (first[0], len(set(first)))


def test_the_last_event_is_the_end_of_a_run_that_succeeds() -> None:
    """Its result and its whole usage are in it."""
    run = opened(ScriptedProvider(chief_hands_over))
    run_clean(run.drive())
    end: Event = run.events[-1]
    assert isinstance(end, RunFinished)
    assert (run.output.result, run.output.usage) == (end.result, end.usage)
