"""Agents that remember, as a person configures them: the same conversation in every store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heartbit.config import Config, load
from heartbit.errors import ConfigError
from heartbit.stores.database import Database
from heartbit.stores.memories.postgres import PostgresMemories
from heartbit.wiring import open_orchestrator
from tests.support.model_server import Call, ModelServer, Recorded, Reply
from tests.support.parity import Asked

AGENT = """
[provider]
name = "anthropic"
model = "m"
api_key = "k"
[[agents]]
name = "writer"
description = "Writes."
system_prompt = "You write."
[memory]
"""
FACTS = (
    ("The customer prefers French.", ["customer", "language"], 8),
    ("The customer's office is in Lyon.", ["customer", "office"], 5),
    ("Invoices are sent on Fridays.", ["invoice"], 3),
)


def model(request: Recorded) -> Reply:
    """Remembers, recalls, and answers with nothing but what was recalled."""
    asked = Asked(request.json)
    if asked.turn == 1 and "Remember" in str(request.json["messages"][0]):
        return Reply(
            calls=tuple(
                Call(
                    id=f"c{number}",
                    name="memory_store",
                    arguments={"content": content, "keywords": words, "importance": importance},
                )
                for number, (content, words, importance) in enumerate(FACTS)
            )
        )
    if asked.turn == 1:
        query = {"query": "What do we know about the customer?"}
        return Reply(calls=(Call(id="r", name="memory_recall", arguments=query),))
    return Reply(text=asked.last)


def conversation(
    memory: str,
    folder: Path,
    embeddings: str = "",
    answer: Callable[[Recorded], Reply] = model,
) -> tuple[list[Any], list[str]]:
    """Two runs on a configuration: the bodies of all requests, and the answers."""

    async def talk(url: str) -> list[str]:
        text = AGENT.replace('api_key = "k"', f'api_key = "k"\nbase_url = "{url}"')
        config = load(folder / "x.toml", {}, text=f"{text}{memory}\n{embeddings}").config
        async with open_orchestrator(config) as orchestrator:
            outputs = [await orchestrator.run(p) for p in ("Remember this.", "Who is it?")]
        return [each.result or "" for each in outputs]

    with ModelServer(answer) as server:
        answers = asyncio.run(talk(server.url))
    return [request.json for request in server.requests], answers


def test_one_table_switches_the_store_and_nothing_else(postgres: str, tmp_path: Path) -> None:
    """Identical recall lists, and identical bodies of all requests."""
    here, said_here = conversation("type = 'in_memory'", tmp_path)
    there, said_there = conversation(f"type = 'postgres'\ndatabase_url = '{postgres}'", tmp_path)
    assert said_here == said_there
    assert here == there
    lines = said_here[1].splitlines()
    assert [FACTS[0][0], FACTS[1][0]] == [line.split("] ")[1].split(" (")[0] for line in lines]


FITS = "Lease."
MATTERS = "Whoever works at a step has a lease, which ends by itself when nobody extends it."
BY_RELEVANCE = "[memory.weights]\nrecency = 0\nimportance = 0\nrelevance = 1\nstrength = 0"


def weigher(request: Recorded) -> Reply:
    """Remembers what fits a question best and what matters most, and asks for the best of both."""
    asked = Asked(request.json)
    if asked.turn > 1:
        return Reply(text=asked.last)
    if "Remember" not in str(request.json["messages"][0]):
        return Reply(calls=(Call(name="memory_recall", arguments={"query": "lease", "limit": 1}),))
    facts = ({"content": FITS, "importance": 1}, {"content": MATTERS, "importance": 10})
    return Reply(calls=tuple(Call(name="memory_store", arguments=fact) for fact in facts))


@pytest.mark.parametrize(
    ("weights", "first"), [("", MATTERS), (BY_RELEVANCE, FITS)], ids=["default", "relevance"]
)
@pytest.mark.parametrize("store", ["in_memory", "postgres"])
def test_the_configured_weights_decide_what_is_recalled_first(
    postgres: str, tmp_path: Path, store: str, weights: str, first: str
) -> None:
    """What fits, or what matters, for the tool of an agent."""
    where = f"type = '{store}'\ndatabase_url = '{postgres}'\n"
    _, said = conversation(where + weights, tmp_path, answer=weigher)
    assert said[1].split("] ")[1].startswith(first)


def test_memories_in_postgres_outlive_the_process_and_belong_to_the_agent(
    postgres: str, tmp_path: Path
) -> None:
    """Another orchestrator finds them; they are in the namespace of the agent."""
    memory = f"type = 'postgres'\ndatabase_url = '{postgres}'"
    conversation(memory, tmp_path)
    store = PostgresMemories(Database(postgres, pool_size=1))
    kept = list(store.export(agent="writer"))
    store.close()
    assert {fact[0] for fact in FACTS} == {each.content for each in kept}


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("type = 'postgres'", "Memories of type postgres need a database"),
        (
            "type = 'postgres'\ndatabase_url = 'postgresql://a/b'\n[database]\n"
            "url = 'postgresql://c/d'",
            "another database than url in",
        ),
        (
            "type = 'in_memory'\n[memory.embedding]\nprovider = 'openai'\n"
            "api_key_env = 'NOT_SET_ANYWHERE'",
            "set $NOT_SET_ANYWHERE",
        ),
    ],
)
def test_a_memory_that_cannot_be_had_is_one_sentence(
    table: str, sentence: str, tmp_path: Path
) -> None:
    """Before anything is asked of a model."""

    async def open_() -> None:
        config = load(tmp_path / "x.toml", {}, text=f"{AGENT}{table}").config
        async with open_orchestrator(config):
            pass

    with pytest.raises(ConfigError, match=sentence.replace("$", r"\$")):
        asyncio.run(open_())


def test_a_fleet_cannot_remember_in_one_of_its_processes(tmp_path: Path) -> None:
    """A worker says so when it starts, and whoever submits a run before anything is written."""

    async def open_(config: Config) -> None:
        async with open_orchestrator(config, durable=True):
            pass

    config = load(tmp_path / "x.toml", {}, text=f"{AGENT}type = 'in_memory'").config
    with pytest.raises(ConfigError, match="set type to postgres in"):
        asyncio.run(open_(config))


def test_vectors_come_from_the_configured_server(postgres: str, tmp_path: Path) -> None:
    """Queries and memories are embedded there, and found by meaning."""
    asked: list[str] = []

    def vectors(request: Recorded) -> Any:
        return _embeddings(request, asked.append)

    with ModelServer(vectors) as server:
        table = f"[memory.embedding]\nprovider = 'openai'\nbase_url = '{server.url}'"
        _, answers = conversation(
            f"type = 'postgres'\ndatabase_url = '{postgres}'", tmp_path, table
        )
    assert [*sorted(fact[0] for fact in FACTS), "What do we know about the customer?"] == [
        *sorted(asked[:3]),
        *asked[3:],
    ]
    assert 3 == len(answers[1].splitlines())


def _embeddings(request: Recorded, heard: Callable[[str], None]) -> Any:
    import json

    from tests.support.model_server import Raw

    texts = request.json["input"]
    for text in texts:
        heard(text)
    data = [{"index": n, "embedding": [1.0, 0.5]} for n in range(len(texts))]
    return Raw(body=json.dumps({"data": data}).encode())
