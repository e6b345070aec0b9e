"""Scripts that every engine must turn into the same journal, and what is compared of it.

A script is a run against a scripted model server on a real socket, with real tools. What an engine
must reproduce is the multiset of (step, type, payload) of every journal of the run tree, with ids
masked, and the exact sequence of request bodies of every agent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from heartbit.core.agent import AgentDefinition, as_json
from heartbit.core.events import Decision, Event, RunFailed, ToolReturned
from heartbit.core.memory import Memory
from heartbit.core.result import PendingApproval, RunOutput
from heartbit.core.tools import ToolOutput, ToolSpec
from heartbit.tools.base import BoundTool, Tool, ToolContext
from heartbit.tools.memory import Memories, memory_tools
from tests.support.model_server import Call, Raw, Recorded, Reply

Answer = Reply | Raw | str


@dataclass(frozen=True)
class Asked:
    """A request as a script reads it: the Anthropic wire, without its clutter."""

    body: dict[str, Any]

    @property
    def system(self) -> str:
        """The system prompt: it tells a script which agent is asking."""
        system = self.body.get("system", "")
        return system if isinstance(system, str) else system[0]["text"]

    @property
    def turn(self) -> int:
        """Which turn of the conversation this is, counted from 1."""
        return 1 + sum(message["role"] == "assistant" for message in self.body["messages"])

    @property
    def prompt(self) -> str:
        """The first user text."""
        return self._text(self.body["messages"][0])

    @property
    def last(self) -> str:
        """The text of the last message, tool results included."""
        return self._text(self.body["messages"][-1])

    @property
    def results(self) -> list[dict[str, Any]]:
        """The tool results of the last message, in order."""
        content = self.body["messages"][-1]["content"]
        return [b for b in content if isinstance(b, dict) and b["type"] == "tool_result"]

    @property
    def tools(self) -> list[str]:
        """The names of the offered tools."""
        return [tool["name"] for tool in self.body.get("tools", [])]

    @staticmethod
    def _text(message: dict[str, Any]) -> str:
        content = message["content"]
        if isinstance(content, str):
            return content
        return "\n".join(str(b.get("text") or b.get("content") or "") for b in content)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an engine made of a script.

    `journals` has the events of each run by its place in the tree: "" is the root, "1/sub/0" the
    sub-run of that step. `remembered` are the memories there are in the end, by their ids.
    """

    output: RunOutput
    journals: Mapping[str, Sequence[Event]]
    asked: Sequence[Asked]
    blackboard: Mapping[str, Any]
    remembered: Sequence[Memory] = ()

    def steps(self, place: str = "") -> list[tuple[str | None, str]]:
        """(step, type) of every event of one journal, in order."""
        return [(event.step, event.type) for event in self.journals[place]]

    def events(self, kind: type, place: str = "") -> list[Any]:
        """The events of one type of one journal."""
        return [event for event in self.journals[place] if isinstance(event, kind)]


@dataclass(frozen=True, kw_only=True)
class Script:
    """One behaviour of a run: `expect` fails when the code for it is taken away.

    One that `remembers` has memories, and the tools for them.
    """

    name: str
    agent: AgentDefinition
    answer: Callable[[Asked], Answer]
    expect: Callable[[Outcome], None]
    prompt: str = "Go."
    tools: Sequence[Tool] = ()
    decide: Callable[[PendingApproval], Sequence[Decision]] | None = None
    remembers: bool = False

    def executables(self, memories: Memories | None) -> dict[str, Tool]:
        """What an engine calls, by ref."""
        of_memory = memory_tools(memories) if memories else ()
        return {tool.spec.ref: tool for tool in (*self.tools, *of_memory)}


def answers(script: Script) -> Callable[[Recorded], Answer]:
    """The model server's side of a script."""
    return lambda request: script.answer(Asked(request.json))


def make_tool(
    name: str,
    run: Callable[..., str],
    properties: Mapping[str, Any] | None = None,
    **options: Any,
) -> BoundTool:
    """A tool around a function of its arguments; all properties are required."""
    schema = {
        "type": "object",
        "properties": dict(properties or {}),
        "required": sorted(properties or {}),
        "additionalProperties": False,
    }
    spec = ToolSpec(
        name=name,
        description=f"The tool {name}.",
        input_schema=schema,
        ref=f"test:{name}",
        **{"effect": "pure", **options},
    )

    async def call(arguments: dict[str, Any], context: ToolContext) -> ToolOutput:
        return ToolOutput(content=run(**arguments))

    return BoundTool(spec=spec, run=call)


INTEGERS = {"a": {"type": "integer"}, "b": {"type": "integer"}}
ADD = make_tool("add", lambda a, b: str(a + b), INTEGERS)


def calls(*pairs: tuple[str, dict[str, Any]], text: str = "") -> Reply:
    """A reply that calls tools: (name, arguments) each."""
    return Reply(text=text, calls=tuple(Call(name=n, arguments=a) for n, a in pairs))


def canonical(events: Sequence[Event]) -> list[str]:
    """What must be the same on every engine: sorted (step, type, payload), ids masked."""
    return sorted(json.dumps(_masked(as_json(event)), sort_keys=True) for event in events)


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: "*" if k in MASKED else _masked(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_masked(item) for item in value]
    return value


MASKED = frozenset({"sub_run_id", "blackboard", "id", "call_id", "tool_use_id"})


def canonical_memories(memories: Sequence[Memory]) -> list[str]:
    """What must be remembered alike: everything but when it was."""
    start = datetime.min.replace(tzinfo=UTC)
    alike = (replace(m, created_at=start, last_accessed=start, strength=0) for m in memories)
    return sorted(map(repr, alike))


def canonical_requests(asked: Sequence[Asked]) -> list[str]:
    """The request bodies that must be the same on every engine.

    A body holds its whole conversation so far, so the order within each agent is part of it.
    """
    bodies = (json.dumps(_masked(each.body), sort_keys=True) for each in asked)
    return sorted(bodies)


def once(reply: Answer) -> Callable[[Asked], Answer]:
    """Answer the first turn with `reply`, every later one with what the tools said."""

    def answer(asked: Asked) -> Answer:
        return reply if asked.turn == 1 else Reply(text=told(asked))

    return answer


def told(asked: Asked) -> str:
    """All results of the last message, in order."""
    return "|".join(block["content"] for block in asked.results)


def result_says(*words: str, error: bool = True) -> Callable[[Outcome], None]:
    """The only tool result has these words, reached the model, and was not the end of the run."""

    def expect(got: Outcome) -> None:
        [returned] = got.events(ToolReturned)
        assert error == returned.is_error
        for word in words:
            assert word in returned.content
        assert "succeeded" == got.output.status
        assert returned.content == got.output.result

    return expect


def failed_with(code: str, *words: str) -> Callable[[Outcome], None]:
    """The run failed with this code, and its message has these words."""

    def expect(got: Outcome) -> None:
        [failed] = got.events(RunFailed)
        assert code == failed.code
        for word in words:
            assert word in failed.message
        assert ("failed", code) == (got.output.status, got.output.error_code)

    return expect


def both(*checks: Callable[[Outcome], None]) -> Callable[[Outcome], None]:
    """All of the checks."""

    def expect(got: Outcome) -> None:
        for check in checks:
            check(got)

    return expect
