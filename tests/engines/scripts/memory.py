"""What agents remember: with their tools, when a conversation is cut, and at the end of a run."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from heartbit.core.agent import AgentDefinition, ContextStrategy, MemoryPolicy
from heartbit.core.consolidation import SYSTEM_PROMPT
from heartbit.core.events import ContextSummarised, MemoriesConsolidated, ToolReturned
from heartbit.core.memory import Memory
from heartbit.core.tools import DELEGATE
from heartbit.tools.memory_specs import MEMORY_SPECS
from tests.support.model_server import Call, Reply
from tests.support.parity import Answer, Asked, Outcome, Script, calls, make_tool, once

AGENT = AgentDefinition(
    name="solo",
    system_prompt="You remember.",
    tools=tuple(MEMORY_SPECS.values()),
    memory=MemoryPolicy(),
)
TIDY = replace(AGENT, memory=MemoryPolicy(consolidate_on_exit=True))
FACTS = (
    {"content": "The customer speaks French.", "keywords": ["customer"], "importance": 8},
    {
        "content": "The customer's office is in Lyon.",
        "keywords": ["customer"],
        "confidentiality": "confidential",
        "tags": ["place"],
    },
    {"content": "Invoices leave on Fridays.", "keywords": ["invoice"]},
)
SHORT = "A customer in Lyon who speaks French."


def _contents(got: Outcome) -> list[str]:
    return sorted(each.content for each in got.remembered)


def _asks_to_condense(asked: Asked) -> bool:
    return asked.system == SYSTEM_PROMPT


def _storing(asked: Asked, *then: Answer) -> Answer:
    """One fact a turn, and then what else there is to say, a turn each."""
    replies: Sequence[Answer] = [*(calls(("memory_store", fact)) for fact in FACTS), *then]
    return replies[asked.turn - 1] if asked.turn <= len(replies) else Reply(text=asked.last)


def _recalls(asked: Asked) -> Answer:
    return _storing(asked, calls(("memory_recall", {"query": "Where is the customer?"})))


def _recalled(got: Outcome) -> None:
    lines = (got.output.result or "").splitlines()
    assert ["Lyon", "French"] == [
        word for line in lines for word in ("Lyon", "French") if word in line
    ]
    assert 3 == len(got.remembered)
    counts = {each.content: each.access_count for each in got.remembered}
    assert [0, 1, 1] == sorted(counts.values())


def _by_hand(asked: Asked) -> Answer:
    """Everything that the tools can do, with ids out of what they say."""
    known = list(dict.fromkeys(re.findall(r"\bm[0-9a-f]{12}\b", str(asked.body["messages"]))))
    turns: list[Callable[[], Answer]] = [
        *(partial(calls, ("memory_store", fact)) for fact in FACTS),
        lambda: calls(("memory_update", {"id": known[2], "content": "Invoices leave today."})),
        lambda: calls(
            ("memory_consolidate", {"source_ids": known[:2], "content": SHORT}),
            ("memory_forget", {"id": "nobody"}),
        ),
        lambda: calls(("shared_memory_write", {"content": "The shop closes at noon."})),
        lambda: calls(("shared_memory_read", {"query": "shop"})),
    ]
    return turns[asked.turn - 1]() if asked.turn <= len(turns) else Reply(text=asked.last)


def _kept_by_hand(got: Outcome) -> None:
    assert [SHORT, "Invoices leave today.", "The shop closes at noon."] == _contents(got)
    assert "The shop closes at noon." in (got.output.result or "")
    assert ["nobody"] == [
        each.content.split("'")[1] for each in got.events(ToolReturned) if each.is_error
    ]


def _condensed(reply: Answer) -> Callable[[Asked], Answer]:
    def answer(asked: Asked) -> Answer:
        return reply if _asks_to_condense(asked) else _storing(asked)

    return answer


def _put_together(got: Outcome) -> None:
    assert [SHORT, "Invoices leave on Fridays."] == _contents(got)
    [new] = [each for each in got.remembered if each.content == SHORT]
    assert ("semantic", "confidential", 8, ("place",), ("customer",)) == (
        new.memory_type,
        new.confidentiality,
        new.importance,
        new.tags,
        new.keywords,
    )
    assert 2 == len(new.source_ids)
    [event] = got.events(MemoriesConsolidated)
    assert ((new.id,), 2, None, "4/memories") == (
        event.ids,
        event.replaced,
        event.reason,
        event.step,
    )
    assert event.usage.input_tokens > 0
    assert 4 * 10 + event.usage.input_tokens == got.output.usage.input_tokens
    assert ("end", "run_finished") == got.steps()[-1]
    assert 4 == got.output.turns


def _left_alone(word: str) -> Callable[[Outcome], None]:
    def expect(got: Outcome) -> None:
        assert "succeeded" == got.output.status
        assert "Stored memory" in (got.output.result or "")
        assert sorted(str(fact["content"]) for fact in FACTS) == _contents(got)
        [event] = got.events(MemoriesConsolidated)
        assert ((), 0) == (event.ids, event.replaced)
        assert word in event.reason

    return expect


def _nothing_to_do(got: Outcome) -> None:
    [event] = got.events(MemoriesConsolidated)
    assert ((), 0, None) == (event.ids, event.replaced, event.reason)
    assert 1 == len(got.asked)


SECRET = "hunter2hunter2"
PAGE = make_tool(
    "page",
    lambda number: f"page {number}: password={SECRET} " + "x" * 600,
    {"number": {"type": "integer"}},
)
READER = replace(
    AGENT,
    tools=(*AGENT.tools, PAGE.spec),
    context_strategy=ContextStrategy(type="summarize", threshold=900),
    max_turns=12,
)


def _reading(asked: Asked) -> Answer:
    if asked.system.startswith("You summarise"):
        return Reply(text="Some pages were read.")
    number = int(asked.last.split()[1].strip(":")) + 1 if asked.results else 1
    return calls(("page", {"number": number})) if number <= 5 else Reply(text="All read.")


def _flushed(got: Outcome) -> None:
    kept = [event for event in got.events(ContextSummarised) if event.summary]
    assert kept
    pages = (kept[-1].upto - 1) // 2
    assert pages == len(got.remembered)
    assert SECRET not in str(got.remembered)
    for each in got.remembered:
        assert _as_flushed(each)


def _as_flushed(memory: Memory) -> bool:
    expected = ("fact", ("auto-flush",), 3, "internal")
    told = (memory.category, memory.tags, memory.importance, memory.confidentiality)
    return expected == told and 503 == len(memory.content) and memory.content.endswith("...")


def _nothing_kept(got: Outcome) -> None:
    assert [event for event in got.events(ContextSummarised) if event.summary]
    assert () == tuple(got.remembered)


WRITER = replace(TIDY, name="writer", system_prompt="I write.")
CHIEF = AgentDefinition(name="chief", system_prompt="I am the chief.", delegates=(WRITER,))


def _delegating(asked: Asked) -> Answer:
    if _asks_to_condense(asked):
        return Reply(text=SHORT)
    if DELEGATE not in asked.tools:
        return _storing(asked)
    tasks: dict[str, Any] = {"tasks": [{"agent": "writer", "task": "Remember."}]}
    return once(Reply(calls=(Call(name=DELEGATE, arguments=tasks),)))(asked)


def _put_together_below(got: Outcome) -> None:
    assert [SHORT, "Invoices leave on Fridays."] == _contents(got)
    assert {"writer"} == {each.namespace.agent for each in got.remembered}
    assert [] == got.events(MemoriesConsolidated)
    assert 1 == len(got.events(MemoriesConsolidated, "1/sub/0"))
    assert 7 == len(got.asked)
    assert got.output.usage.input_tokens >= 7 * 10


SCRIPTS = [
    Script(
        name="what was stored is recalled",
        agent=AGENT,
        answer=_recalls,
        expect=_recalled,
        remembers=True,
    ),
    Script(
        name="memories are changed, put together and forgotten by their agent",
        agent=AGENT,
        answer=_by_hand,
        expect=_kept_by_hand,
        remembers=True,
    ),
    Script(
        name="at its end a run puts one memory in the place of several",
        agent=TIDY,
        answer=_condensed(Reply(text=SHORT)),
        expect=_put_together,
        remembers=True,
    ),
    Script(
        name="a summary of memories that is cut replaces nothing",
        agent=TIDY,
        answer=_condensed(Reply(text="A cust", stop="max_tokens")),
        expect=_left_alone("cut"),
        remembers=True,
    ),
    Script(
        name="a run without memories that belong together ends at once",
        agent=TIDY,
        answer=lambda asked: Reply(text="Nothing to remember."),
        expect=_nothing_to_do,
        remembers=True,
    ),
    Script(
        name="a sub agent puts its memories together at the end of its own run",
        agent=CHIEF,
        answer=_delegating,
        expect=_put_together_below,
        remembers=True,
    ),
    Script(
        name="what tools gave is remembered without secrets before it is summarised",
        agent=READER,
        answer=_reading,
        expect=_flushed,
        tools=(PAGE,),
        remembers=True,
    ),
    Script(
        name="without memory nothing of a summarised conversation is kept",
        agent=replace(READER, memory=None),
        answer=_reading,
        expect=_nothing_kept,
        tools=(PAGE,),
        remembers=True,
    ),
]
