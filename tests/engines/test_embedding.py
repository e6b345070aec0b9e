"""Memories that get the vectors which they lack, batch by batch."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from heartbit.core.memory import Embedding, MemoryQuery
from heartbit.engines import embedding
from heartbit.engines.embedding import Embedded, embed_missing
from heartbit.errors import InvalidRequest, Overloaded, ProviderError
from heartbit.providers.embedder import TextKind
from heartbit.stores.memories.base import MemoryStore
from heartbit.stores.memories.in_memory import InMemoryMemories
from heartbit.stores.memories.postgres import PostgresMemories
from tests.support.memories import ME, new, vector_of


@pytest.fixture(params=["in_memory", "postgres"])
def store(request: pytest.FixtureRequest) -> Iterator[MemoryStore]:
    """An empty store of each kind."""
    if request.param == "in_memory":
        yield InMemoryMemories()
        return
    made = PostgresMemories.at(request.getfixturevalue("postgres"))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "BATCH", 3)


@dataclass
class Model:
    """An embedder whose batches are noted, and may be refused."""

    model: str = "better"
    refuse: Callable[[str], ProviderError | None] = lambda text: None
    batches: list[int] = field(default_factory=list)

    async def embed(self, texts: Sequence[str], kind: TextKind = "document") -> list[Embedding]:
        """Vectors of another length than the store has."""
        self.batches.append(len(texts))
        for error in filter(None, map(self.refuse, texts)):
            raise error
        return [vector_of(text, model=self.model, dimension=48) for text in texts]


def fill(store: MemoryStore, count: int = 8) -> None:
    """Memories with vectors of the model that was."""
    for number in range(count):
        store.store(new(f"m{number}", f"lease {number}"), vector_of("lease"))


def test_switching_the_model_embeds_everything_again(store: MemoryStore) -> None:
    """In batches; then meaning finds it again."""
    fill(store)
    model, seen = Model(), []  # type: ignore[var-annotated]
    found = asyncio.run(embed_missing(store, model, on_progress=lambda *at: seen.append(at)))
    assert Embedded(done=8, left=0) == found
    assert [3, 3, 2] == model.batches
    assert [(3, 8), (6, 8), (8, 8)] == seen
    asked = MemoryQuery(tenant_id=ME.tenant_id, user_id=ME.user_id, agent=ME.agent, text="nothing")
    vector = vector_of("lease 3", model="better", dimension=48)
    assert "m3" == store.recall(asked, embedding=vector)[0].memory.id


def test_a_second_time_there_is_nothing_to_do(store: MemoryStore) -> None:
    """The model is not even asked."""
    fill(store)
    asyncio.run(embed_missing(store, Model()))
    again = Model()
    assert Embedded(done=0, left=0) == asyncio.run(embed_missing(store, again))
    assert [] == again.batches


def test_a_text_that_the_model_refuses_keeps_no_other_from_its_vector(
    store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in its batch nor behind it; the log names the memory and not what it says."""
    fill(store)

    def refuse(text: str) -> ProviderError | None:
        return InvalidRequest("Too long.") if text in ("lease 1", "lease 4") else None

    with caplog.at_level(logging.WARNING):
        found = asyncio.run(embed_missing(store, Model(refuse=refuse)))
    assert Embedded(done=6, left=2) == found
    assert [f"Memory m{n} cannot be embedded: Too long." for n in (1, 4)] == caplog.messages


def test_what_was_done_is_kept_when_the_model_goes_away(store: MemoryStore) -> None:
    """The next time begins behind it."""
    fill(store)

    def refuse(text: str) -> ProviderError | None:
        return Overloaded("Away.") if text == "lease 4" else None

    with pytest.raises(Overloaded):
        asyncio.run(embed_missing(store, Model(refuse=refuse)))
    assert 5 == store.unembedded("better")
    again = Model()
    asyncio.run(embed_missing(store, again))
    assert [3, 2] == again.batches


def test_it_ends_between_two_batches_when_it_is_to(store: MemoryStore) -> None:
    """A worker that leaves, or a time that is over."""
    fill(store)
    answers = iter([True, False])
    found = asyncio.run(embed_missing(store, Model(), go_on=lambda: next(answers)))
    assert Embedded(done=3, left=5) == found


def test_what_changes_meanwhile_is_left_for_the_next_time(store: MemoryStore) -> None:
    """Its vector would be that of another text."""
    fill(store, 2)

    def change(text: str) -> None:
        store.update(ME, "m1", "changed")

    assert Embedded(done=1, left=1) == asyncio.run(embed_missing(store, Model(refuse=change)))
