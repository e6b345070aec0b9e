"""What agents remember from run to run: the table [memory] and the ones below it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from heartbit.config.fields import Count, PostgresUrl, Table, Text, WebUrl

Weight = Annotated[float, Field(ge=0, le=1)]


class EmbeddingTable(Table):
    """How recollections become vectors, for recall by meaning."""

    provider: Literal["none", "openai", "local"] = "none"
    """Who computes the vectors; `none` recalls by words only, `local` needs the extra `local`."""
    model: Text | None = None
    """The embedding model; `text-embedding-3-small` for openai,
    `sentence-transformers/all-MiniLM-L6-v2` for local."""
    api_key_env: Text = "OPENAI_API_KEY"
    """The environment variable that holds the key."""
    base_url: WebUrl | None = None
    """What precedes `/embeddings`, for a compatible server; then the key may be missing."""
    dimension: Count | None = None
    """The length of vectors to ask openai for; the model's own when not given."""
    cache_dir: Text | None = None
    """Where local models are kept, or the directory of one model; `~/.cache/heartbit/models` when
    not given."""


class WeightsTable(Table):
    """How much each part counts for what is recalled first."""

    recency: Weight = 0.25
    """How new it is."""
    importance: Weight = 0.25
    """How important it was said to be."""
    relevance: Weight = 0.3
    """How well it fits the question."""
    strength: Weight = 0.2
    """How often and how lately it was recalled."""


class MemoryTable(Table):
    """What agents remember from run to run. With it every agent has the memory tools."""

    type: Literal["in_memory", "postgres"]
    """Where recollections live; `in_memory` ends with the process, and is for one process only."""
    database_url: PostgresUrl | None = None
    """The database of type `postgres`; `[database]` is used when not given."""
    reflection_threshold: Count | None = None
    """After memories that are together this important, an agent is told to consolidate them."""
    consolidate_on_exit: bool = False
    """When a run has succeeded, put one memory in the place of several that belong together."""
    embedding: EmbeddingTable = EmbeddingTable.model_construct()
    """Recall by meaning."""
    weights: WeightsTable = WeightsTable.model_construct()
    """What is recalled first."""
