"""Documents for tests: many of them, with text that anybody can make."""

from __future__ import annotations

import random
from typing import Any

from heartbit.core.chunking import Chunk, chunks
from heartbit.core.knowledge import NewDocument
from tests.support.memories import WORDS


def document(source: str, *texts: str, **fields: Any) -> NewDocument:
    """A document with one chunk for each text, each on a line of its own."""
    made = tuple(
        Chunk(index=at, text=text, heading="", first_line=at + 1, last_line=at + 1)
        for at, text in enumerate(texts)
    )
    given: dict[str, Any] = {"title": source, "content_hash": "h", "recipe": "r", "chunks": made}
    return NewDocument(source=source, **given | fields)


def many(count: int, *, seed: int = 7) -> list[NewDocument]:
    """Markdown documents in three directories; always the same."""
    chance = random.Random(seed)
    made = []
    for number in range(count):
        text = "\n\n".join(
            f"## {chance.choice(WORDS)}\n\n{' '.join(chance.choices(WORDS, k=40))}"
            for _ in range(chance.randint(1, 6))
        )
        directory = chance.choice(("docs/", "notes/", "docs/how-to/"))
        cut = tuple(chunks(text, size=300, overlap=50))
        made.append(
            NewDocument(
                source=f"{directory}{number:03}.md",
                title=f"Document {number}",
                content_hash=str(number),
                recipe="r",
                chunks=cut,
            )
        )
    return made
