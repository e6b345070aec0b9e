"""What every embedder is: texts in, one vector for each out, or a ProviderError."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

from heartbit.core.memory import Embedding

TextKind = Literal["document", "query"]
"""Some models want to know whether a text is to be found, or to find others with."""


@runtime_checkable
class Embedder(Protocol):
    """A model that turns texts into vectors. Retry is a wrapper with this same shape."""

    @property
    def model(self) -> str:
        """What its vectors are comparable by: the model's name, and the length if it was chosen."""

    async def embed(self, texts: Sequence[str], kind: TextKind = "document") -> list[Embedding]:
        """The vectors of some texts, in their order; a text may be anything, also empty.

        Raises:
            ProviderError: one of its classes.
            ConfigError: the model cannot be had on this machine.
        """
