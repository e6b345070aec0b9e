"""Vectors in this process: kept at length 1, so that comparing two is one distance. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from heartbit.core.memory import Embedding
from heartbit.core.ranking import similarity, unit


def unit_of(embedding: Embedding | None) -> Embedding | None:
    """The same with a vector of length 1, or an empty one if it points nowhere."""
    return None if embedding is None else replace(embedding, vector=unit(embedding.vector))


def similarities(
    embedding: Embedding | None, kept: Iterable[tuple[str, Embedding | None]]
) -> dict[str, float]:
    """How near what is kept (an id, and what `unit_of` gave) is to an embedding of the same model.

    A vector that points nowhere is near to nothing.
    """
    if embedding is None or not (asked := unit(embedding.vector)):
        return {}
    return {
        id_: similarity(other.vector, asked)
        for id_, other in kept
        if other is not None and other.model == embedding.model and len(other.vector) == len(asked)
    }
