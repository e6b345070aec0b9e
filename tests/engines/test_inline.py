"""Calls that only touch heartbit's own stores: done by whoever has the reply that asks for them."""

from __future__ import annotations

from dataclasses import replace

import heartbit
from heartbit.core.events import ToolReturned
from heartbit.knowledge.base import Knowledge
from heartbit.providers.scripted import call
from heartbit.stores.knowledge.postgres import PostgresKnowledge
from heartbit.stores.memories.postgres import PostgresMemories
from heartbit.tools.base import Tool
from heartbit.tools.blackboard import BLACKBOARD_TOOLS
from heartbit.tools.builtin import BUILTIN
from heartbit.tools.knowledge import SPEC as KNOWLEDGE_SPEC
from heartbit.tools.knowledge import knowledge_tool
from heartbit.tools.memory import Memories, memory_tools
from heartbit.tools.memory_specs import MEMORY_SPECS
from heartbit.tools.registry import with_spec
from tests.support.bench import RUN, SOLO, Bench, Died, calling
from tests.support.journals import spec
from tests.support.knowledge import document
from tests.support.workshop import Workshop, workshop

READ, WRITE, LIST = BLACKBOARD_TOOLS


@heartbit.tool(effect="pure")
def look() -> str:
    """Look around."""
    return "a lake"


def steps(shop: Workshop) -> list[str]:
    """The steps whose messages lie there."""
    return [message[2] for message in shop.outbox.messages if message[0] == "step"]


def returned(shop: Workshop) -> int:
    """How many calls have their results."""
    return sum(isinstance(event, ToolReturned) for event in shop.events)


def test_blackboard_calls_have_no_messages_of_their_own(postgres: str) -> None:
    """One message for the turn; when it is done, the next turn is sent."""
    calls = [call("blackboard_write", key="a", value=1), call("blackboard_list")]
    with workshop(postgres, BLACKBOARD_TOOLS, *calls) as shop:
        assert ["1/model"] == steps(shop)
        shop.deliver()
        assert ["2/model"] == steps(shop)
        assert 2 == returned(shop)
        assert (1, 1) == shop.journal.board_read(shop.run_id, "a")
        shop.deliver_all()
        assert "succeeded" == shop.engine.output(shop.run_id).status


def test_memory_calls_have_no_messages_of_their_own(postgres: str) -> None:
    """What is remembered is there with the turn that says so."""
    memories = Memories(store=PostgresMemories.at(postgres))
    calls = [call("memory_store", content="Late acks."), call("memory_recall", query="acks")]
    with workshop(postgres, memory_tools(memories), *calls, memories=memories) as shop:
        shop.deliver()
        assert ["2/model"] == steps(shop)
        assert 2 == returned(shop)
        assert ["Late acks."] == [each.content for each in memories.store.export()]
    memories.store.close()


def test_a_search_for_documents_has_no_message_of_its_own(postgres: str) -> None:
    """Indexing has: a search only reads what is there."""
    store = PostgresKnowledge.at(postgres)
    store.replace_documents([document("docs/acks.md", "Late acks.")])
    tool = knowledge_tool(Knowledge(store))
    with workshop(postgres, [tool], call("knowledge_search", query="acks")) as shop:
        shop.deliver()
        assert ["2/model"] == steps(shop)
        assert "docs/acks.md" in shop.result().content
    store.close()


def test_the_todo_list_of_a_run_is_there_whoever_does_its_next_turn(postgres: str) -> None:
    """It is kept with the call that wrote it, and no other run sees it."""
    todo = {"content": "Book.", "status": "pending", "priority": "low"}
    tools = [BUILTIN["todowrite"], BUILTIN["todoread"]]
    with workshop(postgres, tools, call("todowrite", todos=[todo])) as shop:
        shop.deliver()
        scope = f"{shop.run_id}/notes/{shop.run_id}"
        assert ([todo], 1) == shop.journal.board_read(scope, "todos")
        assert () == shop.journal.board_keys(shop.run_id)


def test_other_tools_of_the_turn_are_sent_at_once(postgres: str) -> None:
    """They do not wait for the inline ones, and the last of all hands over."""
    calls = [call("look"), call("blackboard_list")]
    with workshop(postgres, [*BLACKBOARD_TOOLS, look], *calls) as shop:
        shop.deliver()
        assert ["1/tool/0"] == steps(shop)
        assert 1 == returned(shop)
        shop.deliver_all()
        assert "a lake | The blackboard is empty." == shop.engine.output(shop.run_id).result


def test_a_tool_with_a_queue_of_its_own_is_sent_there(postgres: str) -> None:
    """Whoever names a queue wants it used."""
    tool: Tool = with_spec(LIST, replace(LIST.spec, queue="boards"))
    with workshop(postgres, [tool], call("blackboard_list")) as shop:
        shop.deliver()
        assert ["1/tool/0"] == steps(shop)
        assert "boards" == shop.outbox.queues["step", shop.run_id, "1/tool/0"]


def test_an_inline_call_whose_worker_dies_is_sent_by_the_sweep() -> None:
    """It had a lease like any other step."""
    note = spec("note", effect="transactional", inline=True)
    bench = Bench(calling("note"), replace(SOLO, tools=(note,)))
    bench.die_in("1/tool/0")
    try:
        bench.start()
    except Died:
        bench.live()
    bench.outbox.messages.clear()
    assert "succeeded" == bench.until_it_ends()
    assert 2 == bench.begun[RUN, "1/tool/0"]


def test_the_tools_of_our_own_stores_are_inline_and_no_others() -> None:
    """A tool that reads a file must not run where models are called."""
    specs = [tool.spec for tool in (*BLACKBOARD_TOOLS, *BUILTIN.values())]
    specs += [*MEMORY_SPECS.values(), KNOWLEDGE_SPEC]
    boards = {"blackboard_read", "blackboard_write", "blackboard_list"}
    stores = {"todowrite", "todoread", "knowledge_search", *MEMORY_SPECS}
    assert boards | stores == {spec.name for spec in specs if spec.inline}
    assert not look.spec.inline
