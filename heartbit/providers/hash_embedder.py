"""An embedder for tests: the same vector for the same text, on every machine, at once.

Texts that share words have vectors near to each other; of meaning it knows nothing. What it knows
of words, a ranking by words knows better, so its own hardly counts beside that.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

from heartbit.core.memory import Embedding
from heartbit.core.terms import terms
from heartbit.providers.embedder import TextKind

WEIGHT = 0.02
"""Enough to change the order of neighbours, and to find what shares no word."""


class HashEmbedder:
    """Adds up a vector for each word, computed from its SHAKE-128. `dimension` is their length."""

    def __init__(self, *, dimension: int = 64, model: str = "hash") -> None:
        self._dimension = dimension
        self._model = model

    @property
    def model(self) -> str:
        """The name given."""
        return self._model

    async def embed(self, texts: Sequence[str], kind: TextKind = "document") -> list[Embedding]:
        """The vectors of some texts, of length 1 each, or 0 for a text without words."""
        return [
            Embedding(model=self._model, vector=self.vector(text), weight=WEIGHT) for text in texts
        ]

    def vector(self, text: str) -> tuple[float, ...]:
        """The vector of one text."""
        total = [0.0] * self._dimension
        for term in terms(text):
            for at, value in enumerate(_direction(term, self._dimension)):
                total[at] += value
        length = math.sqrt(sum(value * value for value in total)) or 1.0
        return tuple(value / length for value in total)


def _direction(term: str, dimension: int) -> list[float]:
    digest = hashlib.shake_128(term.encode("utf-8", "surrogatepass")).digest(dimension)
    return [byte / 127.5 - 1.0 for byte in digest]
