"""How well documents are found: by words, by meaning, and by both, in both stores.

Weights are chosen on one half of the questions; what is shown is the other half. Ends with a
failure if search by both is worse than search by words by more than is promised.

    python -m benchmarks.retrieval      # shows the table, and writes it into the reference
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import report
from benchmarks.docstrings import Collection, Question, collection
from benchmarks.fleet import ROOT
from benchmarks.peers import python_of
from benchmarks.searching import (
    Quality,
    Rankings,
    Vectors,
    answered,
    by_meaning,
    by_words,
    embed,
    fill,
    hybrid,
    quality,
    vectors_of,
    weighted,
)
from heartbit.embedded import EmbeddedPostgres
from heartbit.providers.embedder import Embedder
from heartbit.providers.embeddings import OpenAIEmbedder
from heartbit.stores.knowledge.base import KnowledgeStore
from heartbit.stores.knowledge.in_memory import InMemoryKnowledge
from heartbit.stores.knowledge.postgres import PostgresKnowledge
from heartbit.stores.migrate import migrate
from heartbit.testing import HashEmbedder

PAGE = ROOT / "docs" / "reference" / "performance.md"
START, END = "<!-- retrieval:start -->", "<!-- retrieval:end -->"
COMMAND = "python -m benchmarks.retrieval"
MODEL = "all-MiniLM-L6-v2"
HEADER = "| Vectors | Search | recall@5 | nDCG@10 |\n|---|---|--:|--:|"
WEIGHTS = (0.0, 0.02, 0.05, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0)
AS_GOOD = 0.005
"""Below this, a difference in nDCG@10 is none: of such weights the smallest is taken."""
LARGEST_LOSS = 0.02
"""Of nDCG@10 by vectors that know nothing of meaning."""
COMPARED = 4
"""Every so many questions are also asked of the store in memory, which takes longer."""


@dataclass(frozen=True)
class Stores:
    """Both stores, holding the same."""

    postgres: KnowledgeStore
    memory: KnowledgeStore


@dataclass(frozen=True)
class Outcome:
    """What the vectors of one embedder came to; `same` of `compared` lists were alike in both."""

    model: str
    weight: float
    meaning: Quality
    both: Quality
    weights: Mapping[float, tuple[Quality, Quality]]
    same: int
    compared: int

    @property
    def chosen(self) -> float:
        """The weight that one half of the questions asks for."""
        tried = {weight: halves[0].ndcg for weight, halves in self.weights.items()}
        best = max(tried.values())
        return min(weight for weight, ndcg in tried.items() if ndcg > best - AS_GOOD)


@dataclass(frozen=True)
class Findings:
    """Everything that was measured."""

    collection: Collection
    words: Quality
    outcomes: Sequence[Outcome]
    refusal: str = ""

    @property
    def shown(self) -> int:
        """How many questions the figures are of."""
        return sum(each.half for each in self.collection.questions)


def measure() -> Findings:
    """Ask all questions, with the vectors of each embedder that can be had."""
    asked = collection()
    with _stores() as stores, ExitStack() as servers:
        for store in (stores.postgres, stores.memory):
            fill(store, asked)
        words = by_words(stores.postgres, asked.questions)
        embedders: list[Embedder] = [HashEmbedder()]
        refusal = ""
        try:
            embedders.append(servers.enter_context(_minilm()))
        except ModuleNotFoundError as error:
            refusal = str(error)
        outcomes = [_outcome(stores, each, asked.questions, words) for each in embedders]
    shown = quality([q for q in asked.questions if q.half], words)
    return Findings(asked, shown, outcomes, refusal)


def render(found: Findings) -> str:
    """The tables and what they say."""
    parts = [_qualities(found), _weights(found.outcomes), *_sentences(found)]
    return "\n\n".join([*parts, report.measured_by(COMMAND)])


def promised(found: Findings) -> bool:
    """Whether nothing is lost by vectors, or little enough."""
    return all(each.both.ndcg >= found.words.ndcg - LARGEST_LOSS for each in found.outcomes)


def _outcome(
    stores: Stores, embedder: Embedder, questions: Sequence[Question], words: Rankings
) -> Outcome:
    vectors = asyncio.run(_embedded(stores, embedder, questions))
    choosing, shown = ([q for q in questions if q.half == half] for half in (0, 1))
    meaning = by_meaning(stores.postgres, questions, vectors)
    both = hybrid(stores.postgres, shown, vectors)
    compared = shown[::COMPARED]
    in_memory = hybrid(stores.memory, compared, vectors)
    tried = {weight: weighted(words, meaning, weight) for weight in WEIGHTS}
    return Outcome(
        model=embedder.model,
        weight=next(iter(vectors.values())).weight,
        meaning=quality(shown, meaning),
        both=quality(shown, both),
        weights={w: (quality(choosing, x), quality(shown, x)) for w, x in tried.items()},
        same=sum(answered(in_memory[q.text]) == answered(both[q.text]) for q in compared),
        compared=len(compared),
    )


async def _embedded(stores: Stores, embedder: Embedder, questions: Sequence[Question]) -> Vectors:
    await embed((stores.postgres, stores.memory), embedder)
    return await vectors_of(questions, embedder)


def _qualities(found: Findings) -> str:
    rows = [("", "BM25", found.words)]
    for each in found.outcomes:
        rows.append((_name(each), "vectors", each.meaning))
        rows.append((_name(each), f"hybrid, weight {each.weight:g}", each.both))
    lines = [f"| {who} | {how} | {q.recall:.3f} | {q.ndcg:.3f} |" for who, how, q in rows]
    return "\n".join([HEADER, *lines])


def _weights(outcomes: Sequence[Outcome]) -> str:
    """nDCG@10 by weight: of the questions it was chosen on, and of those that are shown."""
    heads = "".join(f" {weight:g} |" for weight in WEIGHTS)
    lines = [f"| nDCG@10 of hybrid by weight |{heads}", f"|---|{'--:|' * len(WEIGHTS)}"]
    for each in outcomes:
        for half, kind in enumerate(("chosen on", "shown")):
            figures = "".join(f" {each.weights[weight][half].ndcg:.3f} |" for weight in WEIGHTS)
            lines.append(f"| {_name(each)}, {kind} |{figures}")
    return "\n".join(lines)


def _sentences(found: Findings) -> Iterator[str]:
    for each in found.outcomes:
        difference = each.both.ndcg - found.words.ndcg
        yield (
            f"{_name(each)}: hybrid is {difference:+.3f} nDCG@10 beside BM25. The other half asks "
            f"for a weight of {each.chosen:g}; it has {each.weight:g}. The store in memory gave "
            f"the same ten documents in the same order as PostgreSQL for {each.same} of "
            f"{each.compared} questions."
        )
    if found.refusal:
        yield f"{MODEL} could not be installed, so no gain is claimed here: {found.refusal}"
    yield (
        f"{len(found.collection.documents):,} documents, {len(found.collection.questions):,} "
        f"questions, {found.shown:,} of them shown; fingerprint `{found.collection.fingerprint}`."
    )


def _name(outcome: Outcome) -> str:
    return "`HashEmbedder`" if outcome.model == HashEmbedder().model else outcome.model


@contextmanager
def _stores() -> Iterator[Stores]:
    with tempfile.TemporaryDirectory(prefix="heartbit-bench-") as folder:
        Path(folder).chmod(0o711)  # as root the server is another user
        with EmbeddedPostgres(Path(folder, "postgres")) as server:
            migrate(server.url)
            postgres = PostgresKnowledge.at(server.url)
            yield Stores(postgres, InMemoryKnowledge())
            postgres.close()


@contextmanager
def _minilm() -> Iterator[Embedder]:
    """The embedder of OpenAI's wire, and a model on loopback behind it."""
    command = [python_of("minilm"), "-m", "benchmarks.minilm"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        assert server.stdout
        try:
            port = int(server.stdout.readline())
            yield OpenAIEmbedder(model=MODEL, base_url=f"http://127.0.0.1:{port}/v1")
        finally:
            server.terminate()


def main() -> None:
    """Measure, show and write."""
    found = measure()
    text = render(found)
    print(text)
    report.put(PAGE, text, START, END)
    if not promised(found):
        sys.exit(f"Hybrid search loses more than {LARGEST_LOSS} nDCG@10 to BM25.")


if __name__ == "__main__":
    main()
