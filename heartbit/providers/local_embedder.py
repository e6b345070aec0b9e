"""Embeddings computed on this machine, by fastembed and ONNX.

The model's files must be there already: a worker never downloads anything by itself. fastembed is
imported at the first use, which takes half a second and 70 MiB.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from heartbit.core.memory import Embedding
from heartbit.errors import ConfigError
from heartbit.providers.embedder import TextKind

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
BATCH_TEXTS = 64


class LocalEmbedder:
    """A model of fastembed's list; `cache_dir` is where models are kept, or has the files of one.

    Raises:
        ConfigError: fastembed is not installed.
    """

    def __init__(self, *, model: str = DEFAULT_MODEL, cache_dir: str | None = None) -> None:
        if importlib.util.find_spec("fastembed") is None:
            raise ConfigError(
                "Local embeddings need fastembed: pip install 'heartbit[local]', or choose another "
                "provider in [memory.embedding]."
            )
        self._model = model
        self._directory = Path(cache_dir).expanduser() if cache_dir else default_directory()
        self._turn = asyncio.Lock()

    @property
    def model(self) -> str:
        """The model's name."""
        return self._model

    async def embed(self, texts: Sequence[str], kind: TextKind = "document") -> list[Embedding]:
        """The vectors of some texts, in their order; one call computes at a time."""
        async with self._turn:
            found = await asyncio.to_thread(self._vectors, list(texts), kind)
        return [Embedding(model=self.model, vector=vector) for vector in found]

    def fetch(self) -> None:
        """Download the model's files, unless they are there: what `heartbit models pull` does.

        Raises:
            ConfigError: there is no such model, or it cannot be had.
        """
        self._load(local_files_only=False)

    @cached_property
    def _loaded(self) -> Any:
        with suppress(ImportError):
            # fastembed's own log, which tells what our error tells as well
            importlib.import_module("loguru").logger.disable("fastembed")
        return self._load(local_files_only=True)

    def _vectors(self, texts: list[str], kind: TextKind) -> list[tuple[float, ...]]:
        if not texts:
            return []
        compute: Callable[..., Any] = (
            self._loaded.query_embed if kind == "query" else self._loaded.passage_embed
        )
        return [tuple(map(float, vector)) for vector in compute(texts, batch_size=BATCH_TEXTS)]

    def _load(self, *, local_files_only: bool) -> Any:
        from fastembed import TextEmbedding

        here = self._has_files()
        options: dict[str, Any] = {"specific_model_path": str(self._directory)} if here else {}
        try:
            return TextEmbedding(
                self._model,
                cache_dir=str(self._directory),
                local_files_only=local_files_only,
                **options,
            )
        except Exception as error:
            raise ConfigError(self._why_not(error, local_files_only)) from error

    def _has_files(self) -> bool:
        """Whether the directory is that of one model, laid out in either way that hubs do."""
        return any(any(self._directory.glob(each)) for each in ("*.onnx", "onnx/*.onnx"))

    def _why_not(self, error: Exception, local_files_only: bool) -> str:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        if "not supported" in str(error):
            return f"fastembed has no model {self._model!r}; see [memory.embedding] model."
        if self._has_files():
            return f"The embedding model in {self._directory} cannot be used: {reason}"
        if local_files_only:
            return (
                f"The embedding model {self._model} is not on this machine; fetch it with "
                f"`heartbit models pull {self._model}`."
            )
        return f"The embedding model {self._model} could not be fetched: {reason}"


def default_directory() -> Path:
    """Where models are kept: fastembed itself would take a directory that a restart may empty."""
    if chosen := os.environ.get("FASTEMBED_CACHE_PATH"):
        return Path(chosen)
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "heartbit" / "models"
