"""Embeddings from OpenAI's wire, which many servers speak: `{base_url}/embeddings`.

Translation and batches; what sends is `http`.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from heartbit.core.memory import Embedding
from heartbit.core.retry import RetryPolicy
from heartbit.errors import MalformedReply, ProviderError
from heartbit.providers.embedder import Embedder, TextKind
from heartbit.providers.http import Endpoint, HttpClient, Timeouts
from heartbit.providers.wire import encoded

DEFAULT_MODEL = "text-embedding-3-small"
DEFAULT_BASE_URL = "https://api.openai.com/v1"
BATCH_TEXTS = 128
BATCH_CHARACTERS = 200_000
MAX_CHARACTERS = 20_000
"""Of a longer text the beginning is embedded: models refuse more than about 8,000 tokens."""


class OpenAIEmbedder:
    """OpenAI's embedding models, or those of any server that speaks their wire under `base_url`.

    With a `dimension` the model is asked for vectors of that length.
    """

    def __init__(
        self,
        *,
        model: str = DEFAULT_MODEL,
        api_key: str | None = None,
        base_url: str | None = None,
        dimension: int | None = None,
        http: HttpClient | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        url = f"{(base_url or DEFAULT_BASE_URL).rstrip('/')}/embeddings"
        self._model = model
        self._dimension = dimension
        self._endpoint = Endpoint(url, headers=headers, timeouts=timeouts or Timeouts())
        self._http = http or HttpClient()

    @property
    def model(self) -> str:
        """The model's name, and the length that was chosen for its vectors."""
        return f"{self._model}@{self._dimension}" if self._dimension else self._model

    async def embed(self, texts: Sequence[str], kind: TextKind = "document") -> list[Embedding]:
        """The vectors of some texts, in their order."""
        found: list[Embedding] = []
        for batch in batches([_sendable(text) for text in texts]):
            answer = await self._http.post_json(self._endpoint, encoded(self._request(batch)))
            found += [Embedding(model=self.model, vector=v) for v in vectors(answer, len(batch))]
        return found

    def _request(self, texts: Sequence[str]) -> dict[str, Any]:
        request = {"model": self._model, "input": texts, "encoding_format": "float"}
        return request | ({"dimensions": self._dimension} if self._dimension else {})


@dataclass(frozen=True, slots=True)
class RetryingEmbedder:
    """Asks `embedder` again while `policy` allows it; then the last error is raised."""

    embedder: Embedder
    policy: RetryPolicy
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    jitter: Callable[[], float] = random.random

    @property
    def model(self) -> str:
        """The model that is asked, again and again."""
        return self.embedder.model

    async def embed(self, texts: Sequence[str], kind: TextKind = "document") -> list[Embedding]:
        """The vectors of some texts, in their order."""
        attempt = 1
        while True:
            try:
                return await self.embedder.embed(texts, kind)
            except ProviderError as error:
                delay = self.policy.delay_seconds(attempt, error, self.jitter())
                if delay is None:
                    raise
            await self.sleep(delay)
            attempt += 1


def batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Texts in portions that one request may carry."""
    batch: list[str] = []
    characters = 0
    for text in texts:
        if batch and (len(batch) == BATCH_TEXTS or characters + len(text) > BATCH_CHARACTERS):
            yield batch
            batch, characters = [], 0
        batch.append(text)
        characters += len(text)
    if batch:
        yield batch


def vectors(answer: dict[str, Any], count: int) -> list[tuple[float, ...]]:
    """The vectors of an answer, in the order of the texts.

    Raises:
        MalformedReply: there is not one vector of the same length for each text.
    """
    data = answer.get("data")
    by_index = {each.get("index"): each.get("embedding") for each in _objects(data)}
    found = [_vector(by_index.get(index)) for index in range(count)]
    if len({len(each) for each in found}) > 1:
        raise MalformedReply("The embedding model gave vectors of different lengths.")
    return found


def _objects(data: Any) -> list[dict[str, Any]]:
    return [each for each in data if isinstance(each, dict)] if isinstance(data, list) else []


def _vector(value: Any) -> tuple[float, ...]:
    numbers = value if isinstance(value, list) else []
    if not numbers or not all(_is_number(each) for each in numbers):
        raise MalformedReply("The embedding model did not give a vector for each text.")
    return tuple(float(each) for each in numbers)


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def _sendable(text: str) -> str:
    """A text that every server accepts: not empty and not too long."""
    return text[:MAX_CHARACTERS] or " "
