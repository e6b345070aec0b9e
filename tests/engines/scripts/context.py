"""What of a long conversation is sent: the window, summaries, pruning, and too much of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from heartbit.core.agent import AgentDefinition, ContextStrategy, SessionPrune
from heartbit.core.events import ContextSummarised, ModelFailed, ToolReturned
from tests.support.model_server import Raw, Reply, json_answer
from tests.support.parity import (
    Answer,
    Asked,
    Outcome,
    Script,
    both,
    calls,
    failed_with,
    make_tool,
)

PAGE = make_tool("page", lambda number: f"page {number} " + "x" * 400, {"number": {}})
AGENT = AgentDefinition(name="solo", system_prompt="You read.", tools=(PAGE.spec,))
HEADER = "[Previous conversation summary]"
TASK = "Read everything."


def _windowed(max_tokens: int) -> AgentDefinition:
    strategy = ContextStrategy(type="sliding_window", max_tokens=max_tokens)
    return replace(AGENT, context_strategy=strategy)


SUMMARISING = replace(
    AGENT, context_strategy=ContextStrategy(type="summarize", threshold=550), max_turns=20
)


def _is_summary(asked: Asked) -> bool:
    return asked.system.startswith("You summarise")


def _numbered(asked: Asked) -> int:
    """The turn, also when the conversation is cut: pages are read one per turn, in order."""
    return int(asked.last.split()[1]) + 1 if asked.results else 1


def _reading(pages: int) -> Callable[[Asked], Reply]:
    """Read so many pages, one per turn."""

    def answer(asked: Asked) -> Reply:
        number = _numbered(asked)
        if number > pages:
            return Reply(text="All read.")
        return calls(("page", {"number": number}))

    return answer


def _summarising(pages: int, *summaries: str) -> Callable[[Asked], Answer]:
    """Read pages; each summary is the next text of `summaries`."""

    def answer(asked: Asked) -> Answer:
        if not _is_summary(asked):
            return _reading(pages)(asked)
        known = [text in asked.prompt for text in summaries]
        following = known.index(True) + 1 if any(known) else 0
        return Reply(text=summaries[following], input_tokens=1000, output_tokens=100)

    return answer


def _results_of(asked: Asked) -> list[str]:
    """The tool results in a request."""
    blocks = [b for m in asked.body["messages"] if m["role"] == "user" for b in _blocks(m)]
    return [b["content"] for b in blocks if b["type"] == "tool_result"]


def _pages_of(asked: Asked) -> list[str]:
    """The starts of the tool results in a request."""
    return [content[:6] for content in _results_of(asked)]


def _blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message["content"]
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def _pairs_are_whole(got: Outcome) -> None:
    for asked in got.asked:
        made = [
            block["id"]
            for message in asked.body["messages"]
            for block in _blocks(message)
            if block["type"] == "tool_use"
        ]
        answered = [
            block["tool_use_id"]
            for message in asked.body["messages"]
            for block in _blocks(message)
            if block["type"] == "tool_result"
        ]
        assert made == answered


def _window_expect(got: Outcome) -> None:
    assert "All read." == got.output.result
    assert {TASK} == {asked.prompt for asked in got.asked}
    assert ["page 4", "page 5"] == _pages_of(got.asked[-1])
    assert [f"page {n}" for n in range(1, 6)] == [e.content[:6] for e in got.events(ToolReturned)]


def _narrow_expect(got: Outcome) -> None:
    assert [f"page {n}" for n in (1, 2, 3)] == [p for a in got.asked for p in _pages_of(a)]


def _kept_everything(got: Outcome) -> None:
    assert [f"page {n}" for n in range(1, 6)] == _pages_of(got.asked[-1])


def _conversation(got: Outcome) -> list[Asked]:
    return [asked for asked in got.asked if not _is_summary(asked)]


def _summaries_expect(got: Outcome) -> None:
    summaries = got.events(ContextSummarised)
    assert ["FIRST", "SECOND"] == [event.summary for event in summaries]
    last = _conversation(got)[-1]
    assert f"{TASK}\n\n{HEADER}\nSECOND" == last.prompt
    assert 1 == str(last.body).count(HEADER)
    assert "FIRST" not in str(last.body)
    requests = [asked for asked in got.asked if _is_summary(asked)]
    assert f"{HEADER}\nFIRST" in requests[1].prompt
    assert "page 1" not in requests[1].prompt
    assert "All read." == got.output.result


def _summaries_cost(got: Outcome) -> None:
    turns = len(_conversation(got))
    assert 2 * 1000 + 10 * turns == got.output.usage.input_tokens
    assert turns == got.output.turns
    summary = next(asked for asked in got.asked if _is_summary(asked))
    assert [] == summary.tools


def _bad_request(message: str) -> Raw:
    error = {"type": "invalid_request_error", "message": message}
    return json_answer({"type": "error", "error": error}, 400)


def _failing_summary(asked: Asked) -> Answer:
    return _bad_request("no summaries here") if _is_summary(asked) else _reading(5)(asked)


def _failed_summary_expect(got: Outcome) -> None:
    assert ("succeeded", "All read.") == (got.output.status, got.output.result)
    failed = got.events(ContextSummarised)
    assert failed
    for event in failed:
        assert (None, True) == (event.summary, "no summaries here" in event.reason)
    assert [f"page {n}" for n in range(1, 6)] == _pages_of(_conversation(got)[-1])


def _cut_summary(asked: Asked) -> Answer:
    return Reply(text="Half a", stop="max_tokens") if _is_summary(asked) else _reading(5)(asked)


def _cut_summary_expect(got: Outcome) -> None:
    assert {None} == {event.summary for event in got.events(ContextSummarised)}
    assert "Half a" not in str(_conversation(got)[-1].body)
    assert "All read." == got.output.result


TOO_LONG = "prompt is too long: 250000 tokens > 200000 maximum"


def _overflowing(*turns: int, summary: Answer = "SHORT") -> Callable[[Asked], Answer]:
    """The model has no room for the requests after these pages, until they are summarised."""

    def answer(asked: Asked) -> Answer:
        if _is_summary(asked):
            return summary
        number = _numbered(asked)
        full = number in turns and (HEADER not in asked.prompt or "again" in asked.prompt)
        return _bad_request(TOO_LONG) if full else _reading(4)(asked)

    return answer


def _compacted(got: Outcome) -> None:
    assert ("succeeded", "All read.") == (got.output.status, got.output.result)
    [failed] = got.events(ModelFailed)
    [summary] = got.events(ContextSummarised)
    assert ("4/model", "4/summary", "SHORT") == (failed.step, summary.step, summary.summary)
    assert f"{TASK}\n\n{HEADER}\nSHORT" == _conversation(got)[-1].prompt
    assert 6 == got.output.turns


def _gave_up(got: Outcome) -> None:
    assert 2 == len(got.events(ModelFailed))
    assert 1 == len(got.events(ContextSummarised))


def _never_compacted(got: Outcome) -> None:
    assert [] == got.events(ContextSummarised)
    assert 1 == len(got.asked)


PRUNED = replace(
    AGENT, session_prune=SessionPrune(keep_recent_n=1, pruned_tool_result_max_bytes=60)
)


def _pruned_expect(got: Outcome) -> None:
    for event in got.events(ToolReturned):
        assert 407 == len(event.content)
    results = [
        block["content"]
        for message in got.asked[-1].body["messages"]
        for block in _blocks(message)
        if block["type"] == "tool_result"
    ]
    assert [60, 60, 60, 407] == [len(result) for result in results]
    assert results[0].startswith("page 1 xxx")
    assert "bytes omitted]" in results[0]
    assert TASK == got.asked[-1].prompt


ADA = AgentDefinition(name="ada", system_prompt="I am ada.")
CHIEF = AgentDefinition(
    name="orchestrator",
    system_prompt="I am the chief.",
    delegates=(ADA,),
    context_strategy=ContextStrategy(type="summarize", threshold=1600),
)


def _delegated(asked: Asked) -> list[str]:
    """The tasks whose results the chief is sent, in order."""
    return [page.split("ada ===")[1].split()[0] for page in _results_of(asked)]


def _delegating(asked: Asked) -> Answer:
    """Three tasks for ada, one after the other, each with a long result."""
    if _is_summary(asked):
        return "Task1 is done."
    if asked.system == ADA.system_prompt:
        return f"{asked.prompt} is done: " + "y" * 2000
    done = int(_delegated(asked)[-1].removeprefix("Task")) if asked.results else 0
    if done == 3:
        return "All done."
    return calls(("delegate_task", {"tasks": [{"agent": "ada", "task": f"Task{done + 1}"}]}))


def _chief_expect(got: Outcome) -> None:
    assert "All done." == got.output.result
    assert 1 == len(got.events(ContextSummarised))
    chief = [asked for asked in _conversation(got) if asked.system != ADA.system_prompt]
    assert [[], ["Task1"], ["Task1", "Task2"], ["Task2", "Task3"]] == [*map(_delegated, chief)]
    assert f"{TASK}\n\n{HEADER}\nTask1 is done." == chief[-1].prompt


SCRIPTS = [
    Script(
        name="a sliding window sends the task and the newest whole pairs",
        agent=_windowed(340),
        answer=_reading(5),
        expect=both(_window_expect, _pairs_are_whole),
        tools=[PAGE],
        prompt=TASK,
    ),
    Script(
        name="a window too narrow for the newest results sends them all the same",
        agent=_windowed(50),
        answer=_reading(3),
        expect=both(_narrow_expect, _pairs_are_whole),
        tools=[PAGE],
        prompt=TASK,
    ),
    Script(
        name="without a strategy everything is sent",
        agent=AGENT,
        answer=_reading(5),
        expect=both(_kept_everything, _pairs_are_whole),
        tools=[PAGE],
        prompt=TASK,
    ),
    Script(
        name="a summary takes the place of the middle, and of the summary before it",
        agent=SUMMARISING,
        answer=_summarising(8, "FIRST", "SECOND", "THIRD"),
        expect=both(_summaries_expect, _summaries_cost, _pairs_are_whole),
        tools=[PAGE],
        prompt=TASK,
    ),
    Script(
        name="an orchestrator is sent a summary in the place of what its sub-agents said first",
        agent=CHIEF,
        answer=_delegating,
        expect=both(_chief_expect, _pairs_are_whole),
        prompt=TASK,
    ),
    Script(
        name="a summary that fails does not end the run",
        agent=SUMMARISING,
        answer=_failing_summary,
        expect=both(_failed_summary_expect, _pairs_are_whole),
        tools=[PAGE],
        prompt=TASK,
    ),
    Script(
        name="a summary cut at max_tokens is not used",
        agent=SUMMARISING,
        answer=_cut_summary,
        expect=_cut_summary_expect,
        tools=[PAGE],
        prompt=TASK,
    ),
    Script(
        name="a context that the provider finds too long is summarised and sent again",
        agent=AGENT,
        answer=_overflowing(4),
        expect=both(_compacted, _pairs_are_whole),
        tools=[PAGE],
        prompt=TASK,
    ),
    Script(
        name="a context that is still too long after its summary fails the run",
        agent=AGENT,
        answer=_overflowing(4, summary="again"),
        expect=both(failed_with("model_call_failed", "prompt is too long"), _gave_up),
        tools=[PAGE],
        prompt=TASK,
    ),
    Script(
        name="a context too long to be shortened fails the run with the provider's words",
        agent=AGENT,
        answer=_overflowing(1),
        expect=both(failed_with("model_call_failed", "prompt is too long"), _never_compacted),
        tools=[PAGE],
        prompt=TASK,
    ),
    Script(
        name="old tool results are cut in requests and whole in the journal",
        agent=PRUNED,
        answer=_reading(4),
        expect=both(_pruned_expect, _pairs_are_whole),
        tools=[PAGE],
        prompt=TASK,
    ),
]
