"""Orchestrators: dispatch, joining, failures of sub-agents, squads, the blackboard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from heartbit.core.agent import AgentDefinition
from heartbit.core.events import ModelReplied, RunStarted, SubRunFinished, ToolReturned
from heartbit.core.messages import Usage
from heartbit.tools.blackboard import BLACKBOARD_TOOLS
from tests.support.model_server import Reply
from tests.support.parity import ADD, Answer, Asked, Outcome, Script, calls, once

BOARD = tuple(tool.spec for tool in BLACKBOARD_TOOLS)


def _sub(name: str, **limits: int) -> AgentDefinition:
    tools = (ADD.spec, *BOARD)
    return AgentDefinition(name=name, system_prompt=f"I am {name}.", tools=tools, **limits)  # type: ignore[arg-type]


SUBS = (_sub("ada"), _sub("bob"), _sub("cyd"))
TOOLS = [ADD, *BLACKBOARD_TOOLS]


def _chief(subs: Sequence[AgentDefinition] = SUBS, **options: object) -> AgentDefinition:
    return AgentDefinition(
        name="orchestrator",
        system_prompt="I am the chief.",
        delegates=tuple(subs),
        **options,  # type: ignore[arg-type]
    )


def _delegating(*tasks: tuple[str, str], tool: str = "delegate_task") -> Reply:
    return calls((tool, {"tasks": [{"agent": agent, "task": task} for agent, task in tasks]}))


def _echoing(first: Reply, asked: Asked) -> Reply | None:
    """The chief: `first`, then whatever came back. None for a sub-agent."""
    if "chief" not in asked.system:
        return None
    if asked.turn == 1:
        return first
    return Reply(text="\n".join(block["content"] for block in asked.results))


def _parallel(asked: Asked) -> Reply:
    chief = _echoing(_delegating(("bob", "two"), ("ada", "one")), asked)
    late = 0.05 if "bob" in asked.system else 0  # asked first, done last
    text = f"{asked.system} {asked.prompt}"
    return chief or Reply(text=text, input_tokens=100, delay_seconds=late)


def _parallel_expect(got: Outcome) -> None:
    expected = "=== Agent: bob ===\nI am bob. two\n\n=== Agent: ada ===\nI am ada. one"
    assert expected == got.output.result
    assert {"1/sub/0", "1/sub/1"} == {e.step for e in got.events(SubRunFinished)}
    assert ("bob", "two") == _who(got, "1/sub/0")
    assert ("ada", "one") == _who(got, "1/sub/1")
    assert Usage(input_tokens=220, output_tokens=20) == got.output.usage


def _who(got: Outcome, place: str) -> tuple[str, str]:
    [started] = got.events(RunStarted, place)
    return started.definition.name, started.prompt


def _board_expect(got: Outcome) -> None:
    board = got.blackboard
    assert ("I am ada. a1", "I am ada. a2") == (board["agent:ada:1"], board["agent:ada:2"])
    assert "I am ada. a2" == board["agent:ada"]
    assert "I am bob. b1" == board["agent:bob"]


def _same_agent(asked: Asked) -> Reply:
    chief = _echoing(_delegating(("ada", "a1"), ("bob", "b1"), ("ada", "a2")), asked)
    # The first task ends last, and the last one is still the latest.
    late = 0.1 if asked.prompt == "a1" else 0
    return chief or Reply(text=f"{asked.system} {asked.prompt}", delay_seconds=late)


def _unknown(asked: Asked) -> Reply:
    chief = _echoing(_delegating(("adda", "x"), ("bob", "y")), asked)
    return chief or Reply(text="fine")


def _unknown_expect(got: Outcome) -> None:
    assert "unknown agent 'adda'; did you mean 'ada'" in str(got.output.result)
    assert "=== Agent: bob ===\nfine" in str(got.output.result)
    assert ["1/sub/1"] == [e.step for e in got.events(SubRunFinished)]


def _failing(asked: Asked) -> Reply:
    chief = _echoing(_delegating(("ada", "x"), ("bob", "y")), asked)
    if chief or "bob" in asked.system:
        return chief or Reply(text="fine")
    return Reply(calls=calls(("add", {"a": 1, "b": 2})).calls, input_tokens=1000)


def _failing_expect(got: Outcome) -> None:
    assert "=== Agent: ada ===\nError: Max turns (1) exceeded; raise" in str(got.output.result)
    assert "=== Agent: bob ===\nfine" in str(got.output.result)
    assert 1000 + 3 * 10 == got.output.usage.input_tokens
    told = "Error: Max turns (1) exceeded; raise max_turns or give it less to do."
    assert told == got.blackboard["agent:ada"]
    assert 2 == got.output.tool_calls_made
    assert not got.asked[-1].results[0].get("is_error")


def _all_failing(asked: Asked) -> Reply:
    chief = _echoing(_delegating(("ada", "x")), asked)
    return chief or calls(("add", {"a": 1, "b": 2}))


def _all_failing_expect(got: Outcome) -> None:
    assert got.asked[-1].results[0]["is_error"]


def _two_delegations(asked: Asked) -> Answer:
    first = calls(
        ("delegate_task", {"tasks": [{"agent": "ada", "task": "first"}]}),
        ("delegate_task", {"tasks": [{"agent": "bob", "task": "second"}]}),
    )
    work = calls(("add", {"a": 1, "b": 2}))
    # Side by side, bob would begin while ada's first reply is still to come.
    slow = replace(work, delay_seconds=0.1 if "ada" in asked.system else 0)
    return _echoing(first, asked) or once(slow)(asked)


def _sequential_expect(got: Outcome) -> None:
    order = [asked.system.split()[-1].rstrip(".") for asked in got.asked]
    assert ["chief", "ada", "ada", "bob", "bob", "chief"] == order
    steps = [step for step, _ in got.steps()]
    assert steps.index("1/sub/0") < steps.index("1/sub/1")
    assert "form_squad" not in got.asked[0].tools


def _too_many_at_once(asked: Asked) -> Reply:
    chief = _echoing(_delegating(("ada", "x"), ("bob", "y")), asked)
    return chief or Reply(text="fine")


def _too_many_expect(got: Outcome) -> None:
    assert "Input validation failed" in str(got.output.result)
    assert [""] == list(got.journals)


def _flat(asked: Asked) -> Reply:
    chief = _echoing(_delegating(("ada", "x")), asked)
    if chief:
        return chief
    if asked.turn == 1:
        return _delegating(("bob", "y"))
    return Reply(text=asked.results[0]["content"])


def _flat_expect(got: Outcome) -> None:
    assert "delegate_task" in got.asked[0].tools
    assert "delegate_task" not in got.asked[1].tools
    [refused] = got.events(ToolReturned, "1/sub/0")
    assert refused.is_error
    assert "Tool not found" in refused.content


def _empty(asked: Asked) -> Reply:
    return _echoing(_delegating(), asked) or Reply(text="never")


def _empty_expect(got: Outcome) -> None:
    assert "Input validation failed" in str(got.output.result)
    assert [""] == list(got.journals)


def _squad(asked: Asked) -> Reply:
    chief = _echoing(_delegating(("ada", "x"), ("bob", "y"), tool="form_squad"), asked)
    if chief:
        return chief
    if asked.turn == 1:
        return calls(("blackboard_write", {"key": asked.prompt, "value": asked.system}))
    return Reply(text="done")


def _squad_expect(got: Outcome) -> None:
    joined = "=== Agent: ada ===\ndone\n\n=== Agent: bob ===\ndone"
    assert {"squad:ada+bob": joined} == got.blackboard
    scopes = {got.events(RunStarted, place)[0].blackboard for place in ("1/sub/0", "1/sub/1")}
    assert 1 == len(scopes)
    assert got.events(RunStarted)[0].blackboard not in scopes


def _bad_squad(asked: Asked) -> Reply:
    squad = (("ada", "x"), ("ada", "y"))
    unknown = (("ada", "x"), ("zoe", "y"))
    alone = (("ada", "x"),)
    first = Reply(
        calls=tuple(
            call
            for s in (squad, unknown, alone)
            for call in _delegating(*s, tool="form_squad").calls
        )
    )
    return _echoing(first, asked) or Reply(text="never")


def _bad_squad_expect(got: Outcome) -> None:
    refusals = [event.content for event in got.events(ToolReturned)]
    assert "must be a different agent" in refusals[0]
    assert "unknown agent 'zoe'. Available: ada, bob, cyd" in refusals[1]
    assert "Input validation failed" in refusals[2]
    assert [""] == list(got.journals)


def _shared(asked: Asked) -> Reply:
    if "chief" in asked.system:
        steps = [_delegating(("ada", "write")), _delegating(("bob", "read"))]
        return steps[asked.turn - 1] if asked.turn < 3 else Reply(text=asked.last)
    if asked.turn == 1 and "ada" in asked.system:
        return calls(("blackboard_write", {"key": "k", "value": {"n": 1}, "expected_version": 0}))
    if asked.turn == 1:
        return calls(
            ("blackboard_read", {"key": "k"}),
            ("blackboard_write", {"key": "k", "value": 2, "expected_version": 0}),
            ("blackboard_list", {}),
        )
    return Reply(text="\n".join(block["content"] for block in asked.results))


def _shared_expect(got: Outcome) -> None:
    arrived = got.events(ToolReturned, "2/sub/0")
    read, conflict, listed = sorted(arrived, key=lambda event: event.step)
    assert ('"n": 1' in read.content, read.is_error) == (True, False)
    assert conflict.is_error
    assert "version 1" in conflict.content
    assert "agent:ada" in listed.content
    assert {"n": 1} == got.blackboard["k"]


def _structured_sub(asked: Asked) -> Reply:
    chief = _echoing(_delegating(("ada", "x")), asked)
    return chief or calls(("__respond__", {"n": 7}))


def _structured_sub_expect(got: Outcome) -> None:
    assert '=== Agent: ada ===\n{\n  "n": 7\n}' == got.output.result
    assert 1 == len(got.events(ModelReplied, "1/sub/0"))


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def _models_answer(asked: Asked) -> Reply:
    chief = _echoing(_delegating(("ada", "a"), ("bob", "b"), ("cyd", "c")), asked)
    return chief or Reply(text=asked.body["model"])


def _models_expect(got: Outcome) -> None:
    blocks = str(got.output.result).split("\n\n")
    assert ["small", "large", "test-model"] == [block.splitlines()[1] for block in blocks]
    assert {"chiefs-own"} == {a.body["model"] for a in got.asked if "chief" in a.system}


SCRIPTS = [
    Script(
        name="tasks of one call run as sub-runs and are joined in the order of the request",
        agent=_chief(),
        answer=_parallel,
        expect=_parallel_expect,
        tools=TOOLS,
    ),
    Script(
        name="agents on one provider are each asked as the model that their definition names",
        agent=_chief(
            (replace(SUBS[0], model="small"), replace(SUBS[1], model="large"), SUBS[2]),
            model="chiefs-own",
        ),
        answer=_models_answer,
        expect=_models_expect,
        tools=TOOLS,
    ),
    Script(
        name="two tasks for one agent each keep their result on the blackboard",
        agent=_chief(),
        answer=_same_agent,
        expect=_board_expect,
        tools=TOOLS,
    ),
    Script(
        name="an unknown agent is an error of its task and the others run",
        agent=_chief(),
        answer=_unknown,
        expect=_unknown_expect,
        tools=TOOLS,
    ),
    Script(
        name="a failed sub-agent is told to the orchestrator and its usage counts",
        agent=_chief((_sub("ada", max_turns=1), _sub("bob"))),
        answer=_failing,
        expect=_failing_expect,
        tools=TOOLS,
    ),
    Script(
        name="a delegation whose every task failed is an error result",
        agent=_chief((_sub("ada", max_turns=1),)),
        answer=_all_failing,
        expect=_all_failing_expect,
        tools=TOOLS,
    ),
    Script(
        name="sequential dispatch runs one sub-agent at a time across all calls of a turn",
        agent=_chief(dispatch_mode="sequential"),
        answer=_two_delegations,
        expect=_sequential_expect,
        tools=TOOLS,
    ),
    Script(
        name="sequential dispatch refuses two tasks in one call",
        agent=_chief(dispatch_mode="sequential"),
        answer=_too_many_at_once,
        expect=_too_many_expect,
        tools=TOOLS,
    ),
    Script(
        name="a sub-agent can delegate nothing, whatever its definition says",
        agent=_chief([replace(sub, delegates=SUBS) for sub in SUBS]),
        answer=_flat,
        expect=_flat_expect,
        tools=TOOLS,
    ),
    Script(
        name="a delegation without tasks is refused",
        agent=_chief(),
        answer=_empty,
        expect=_empty_expect,
        tools=TOOLS,
    ),
    Script(
        name="a squad shares a private blackboard and leaves its result on the outer one",
        agent=_chief(),
        answer=_squad,
        expect=_squad_expect,
        tools=TOOLS,
    ),
    Script(
        name="a squad that cannot be formed is refused before anyone starts",
        agent=_chief(),
        answer=_bad_squad,
        expect=_bad_squad_expect,
        tools=TOOLS,
    ),
    Script(
        name="sub-agents share a blackboard with compare-and-set",
        agent=_chief(),
        answer=_shared,
        expect=_shared_expect,
        tools=TOOLS,
    ),
    Script(
        name="a structured result of a sub-agent reaches the orchestrator as JSON",
        agent=_chief(
            (AgentDefinition(name="ada", system_prompt="I am ada.", response_schema=SCHEMA),)
        ),
        answer=_structured_sub,
        expect=_structured_sub_expect,
        tools=TOOLS,
    ),
]
