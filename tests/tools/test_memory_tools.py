"""The tools with which agents remember: what a model is told, and whose memories it reaches."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any

import pytest

from heartbit.core.memory import MemoryQuery, Namespace
from heartbit.core.tools import ToolOutput
from heartbit.errors import NetworkFailure
from heartbit.providers.embedder import TextKind
from heartbit.stores.memories.in_memory import InMemoryMemories
from heartbit.testing import HashEmbedder
from heartbit.tools.base import ToolContext
from heartbit.tools.memory import SHOWN_CHARACTERS, Memories, memory_tools

ME = ToolContext(agent="writer", tenant_id="t", user_id="u")
MINE = Namespace(agent="writer", tenant_id="t", user_id="u")
FRENCH = "The customer prefers French."


class Agents:
    """Agents with the memory tools; what they were told last is `content`."""

    def __init__(self, **options: Any) -> None:
        self.store = InMemoryMemories()
        self.memories = Memories(store=self.store, **options)
        self.tools = {tool.spec.name: tool for tool in memory_tools(self.memories)}

    def call(self, name: str, /, context: ToolContext = ME, **arguments: Any) -> ToolOutput:
        """Call a tool."""
        return asyncio.run(self.tools[name].call(arguments, context))

    def told(self, name: str, /, context: ToolContext = ME, **arguments: Any) -> str:
        """The text of a call that is no error."""
        output = self.call(name, context, **arguments)
        assert not output.is_error, output.content
        return output.content

    def stored(self, content: str, **arguments: Any) -> str:
        """The id of a memory that is stored."""
        return self.told("memory_store", content=content, **arguments).split()[2].strip(".")


def test_what_is_stored_is_recalled_with_what_is_known_of_it() -> None:
    """The most useful first, one line each, without anything that depends on the clock."""
    agents = Agents()
    first = agents.stored(FRENCH, category="preference", importance=8, tags=["language"])
    agents.stored("The office of the customer is in Lyon.", confidentiality="internal")
    expected = [
        f"1. [{first}] {FRENCH} (preference; importance 8; tags language)",
        "2. [m8fe3a8d8d6a1] The office of the customer is in Lyon. (fact; importance 5; internal)",
    ]
    got = agents.told("memory_recall", query="What does the customer prefer?").splitlines()
    assert expected[0] == got[0]
    assert expected[1].partition("] ")[2] == got[1].partition("] ")[2]
    assert [expected[0]] == agents.told("memory_recall", query="", limit=1).splitlines()


def test_nothing_found_is_said_in_words() -> None:
    """Not an error: the model asked a fair question."""
    assert "No memories found." == Agents().told("memory_recall", query="anything")


def test_the_same_fact_twice_is_one_memory() -> None:
    """A call that is done again after a crash, or a forgetful model, doubles nothing."""
    agents = Agents()
    first, second = agents.stored(FRENCH, importance=2), agents.stored(FRENCH, importance=9)
    assert first == second
    assert [9] == [each.importance for each in agents.store.get(MINE, [first])]


def test_storing_a_fact_again_makes_nothing_public_and_loses_nothing() -> None:
    """What is not said again stays: keywords, summary, tags; its links stay in any case."""
    agents = Agents()
    friend = agents.stored("The shop is in Lyon.", keywords=["Lyon"])
    details = {"keywords": ["lyon"], "summary": "A secret.", "tags": ["place"], "importance": 9}
    id_ = agents.stored(FRENCH, confidentiality="restricted", **details)
    [before] = agents.store.get(MINE, [id_])
    assert (friend,) == before.related_ids
    assert id_ == agents.stored(FRENCH)
    assert [before] == agents.store.get(MINE, [id_])
    agents.told("shared_memory_write", content=FRENCH, summary="Another.", keywords=[])
    [after] = agents.store.get(MINE, [id_])
    assert ("restricted", (friend,), "Another.", ()) == (
        after.confidentiality,
        after.related_ids,
        after.summary,
        after.keywords,
    )
    assert "No memories found." == agents.told("shared_memory_read", query="French")


def test_a_fact_that_is_stored_again_can_become_more_confidential() -> None:
    """The stricter of both levels counts, whichever came first."""
    agents = Agents()
    id_ = agents.stored(FRENCH)
    agents.stored(FRENCH, confidentiality="confidential")
    assert ["confidential"] == [each.confidentiality for each in agents.store.get(MINE, [id_])]


def test_what_memories_are_put_together_into_may_be_what_one_of_them_says() -> None:
    """It takes the place of the others, and is not deleted with them."""
    agents = Agents()
    one, two = agents.stored("One."), agents.stored("Two.", confidentiality="internal")
    agents.told("memory_consolidate", source_ids=[one, two], content="One.")
    [left] = agents.store.export(tenant_id="t", user_id="u")
    assert (one, "One.", "semantic", "internal") == (
        left.id,
        left.content,
        left.memory_type,
        left.confidentiality,
    )


def test_a_fact_whose_memory_says_something_else_by_now_gets_another_id() -> None:
    """What was changed is not overwritten."""
    agents = Agents()
    first = agents.stored(FRENCH)
    agents.told("memory_update", id=first, content="The customer prefers Spanish.")
    assert first != agents.stored(FRENCH)
    assert 2 == len(agents.told("memory_recall", query="prefers").splitlines())


def test_an_updated_memory_is_no_longer_found_by_what_it_said_before() -> None:
    """Neither by its old words nor by keywords and a summary that were made of them."""
    agents = Agents()
    lyon = {"keywords": ["lyon", "parcels"], "summary": "Parcels go to Lyon."}
    id_ = agents.stored("The office is in Lyon.", **lyon)
    agents.told("memory_update", id=id_, content="The office moved to Berlin.")
    assert "No memories found." == agents.told("memory_recall", query="lyon parcels")
    agents.told("memory_update", id=id_, content="It is there.", keywords=["berlin"], summary="Ok.")
    for word in ("berlin", "ok"):
        assert id_ in agents.told("memory_recall", query=word)


def test_memories_with_keywords_in_common_are_linked_and_looking_them_up_strengthens_none() -> None:
    """Storing is no recall: nobody's access count changes."""
    agents = Agents()
    first = agents.stored("One.", keywords=["Lyon", "office"])
    second = agents.stored("Two.", keywords=["lyon", "office", "rent"])
    agents.stored("Three.", keywords=["rent", "a", "b", "c", "d"])
    one, two = agents.store.get(MINE, [first, second])
    assert ((second,), (first,)) == (one.related_ids, two.related_ids)
    everything = agents.store.recall(
        MemoryQuery(tenant_id="t", user_id="u", agent="writer"), reinforce=False
    )
    assert {0} == {each.memory.access_count for each in everything}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("memory_update", {"id": "m1", "content": "x"}), ("memory_forget", {"id": "m1"})],
)
def test_an_unknown_id_is_an_error_that_says_where_ids_come_from(
    name: str, arguments: dict[str, Any]
) -> None:
    """The model can mend it."""
    output = Agents().call(name, **arguments)
    assert output.is_error
    assert "There is no memory 'm1'; memory_recall tells the ids." == output.content


def test_a_forgotten_memory_is_gone() -> None:
    """For good."""
    agents = Agents()
    assert agents.told("memory_forget", id=agents.stored(FRENCH)).startswith("Forgot memory m")
    assert "No memories found." == agents.told("memory_recall", query="French")


@pytest.mark.parametrize("content", ["", " \n"])
def test_nothing_is_not_remembered(content: str) -> None:
    """An empty memory would be recalled for ever."""
    assert Agents().call("memory_store", content=content).is_error


def test_a_megabyte_is_remembered_and_shown_by_its_beginning() -> None:
    """In characters, not in bytes."""
    agents = Agents()
    id_ = agents.stored("é\0\ud800 " * 250_000)
    shown = agents.told("memory_recall", query="é")
    assert 1_000_000 == len(agents.store.get(MINE, [id_])[0].content)
    assert "... (1,000,000 characters)" in shown
    assert len(shown) < SHOWN_CHARACTERS + 100


def test_consolidating_puts_one_semantic_memory_in_the_place_of_its_sources() -> None:
    """With their tags and keywords, as confidential as the strictest; what is missing is told."""
    agents = Agents()
    one = agents.stored("One.", tags=["a"], keywords=["k"], confidentiality="confidential")
    two = agents.stored("Two.", tags=["b"])
    text = agents.told("memory_consolidate", source_ids=[one, two, "m0"], content="Both.", tags=[])
    assert "There is no 'm0'." in text
    [left] = agents.store.export(tenant_id="t", user_id="u")
    assert ("Both.", "semantic", "confidential") == (
        left.content,
        left.memory_type,
        left.confidentiality,
    )
    assert ((one, two), ("a", "b"), ("k",)) == (left.source_ids, left.tags, left.keywords)


def test_consolidating_fewer_than_two_changes_nothing() -> None:
    """And says which ones there are not."""
    agents = Agents()
    one = agents.stored("One.")
    output = agents.call("memory_consolidate", source_ids=[one, "m0"], content="Both.")
    assert output.is_error
    assert "there is no 'm0'" in output.content
    assert [one] == [each.id for each in agents.store.export(tenant_id="t", user_id="u")]


@pytest.mark.parametrize("other", [{"agent": "write"}, {"user_id": "u2"}, {"tenant_id": "t2"}])
def test_nobody_reaches_the_memories_of_others(other: dict[str, str]) -> None:
    """Of another agent, user or tenant: not to read, not to change, not to delete."""
    agents = Agents()
    id_ = agents.stored(FRENCH)
    stranger = replace(ME, **other)  # type: ignore[arg-type]
    assert "No memories found." == agents.told("memory_recall", stranger, query="French")
    assert agents.call("memory_forget", stranger, id=id_).is_error
    assert agents.call("memory_update", stranger, id=id_, content="x").is_error


def test_agents_of_one_user_share_what_is_not_confidential() -> None:
    """Who has written it is said; another user's agents see none of it."""
    agents = Agents()
    agents.told("shared_memory_write", content=FRENCH)
    agents.stored("The customer pays late.", confidentiality="confidential")
    reader = replace(ME, agent="reader")
    shown = agents.told("shared_memory_read", reader, query="the customer")
    assert 1 == len(shown.splitlines())
    assert f"] writer: {FRENCH} (fact; importance 5; tags shared)" in shown
    assert "No memories found." == agents.told(
        "shared_memory_read", reader, query="customer", agent="reader"
    )
    assert "No memories found." == agents.told(
        "shared_memory_read", replace(reader, user_id="u2"), query="customer"
    )


def test_an_agent_is_told_when_it_is_time_to_reflect() -> None:
    """Until it has made something of what it remembered."""
    agents = Agents(reflection_threshold=10)
    assert "reflected" not in agents.told("memory_store", content="One.", importance=9)
    assert "reflected" in agents.told("memory_store", content="Two.", importance=1)
    ids = [each.id for each in agents.store.export(tenant_id="t", user_id="u")]
    agents.told("memory_consolidate", source_ids=ids, content="Both.")
    assert "reflected" not in agents.told("memory_store", content="Three.")


def test_a_recall_finds_what_means_the_same() -> None:
    """With an embedder, and without a word in common."""

    class Same(HashEmbedder):
        def vector(self, text: str) -> tuple[float, ...]:
            return (1.0, 0.0)

    agents = Agents(embedder=Same())
    agents.stored(FRENCH)
    assert FRENCH in agents.told("memory_recall", query="langue")


def test_memories_are_stored_and_found_by_words_while_the_embedder_is_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A line in the log for the person, nothing for the model."""

    class Away(HashEmbedder):
        async def embed(self, texts: Any, kind: TextKind = "document") -> Any:
            raise NetworkFailure("There is no network.")

    agents = Agents(embedder=Away())
    with caplog.at_level(logging.WARNING):
        agents.stored(FRENCH)
    assert "There is no network." in caplog.text
    assert FRENCH in agents.told("memory_recall", query="French")
