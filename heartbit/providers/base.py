"""What every provider is: one request in, one completion out, or a ProviderError."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from heartbit.core.messages import Completion
from heartbit.core.request import ModelRequest


class Listener(Protocol):
    """Hears a streamed reply as it arrives. Calls are quick and never raise."""

    def text(self, delta: str) -> None:
        """More text of the reply."""

    def restarted(self, reason: str) -> None:
        """What was heard so far is void: the reply starts again."""


@runtime_checkable
class Provider(Protocol):
    """A model that can be asked. Retry, cascade and limits are wrappers with this same shape."""

    @property
    def name(self) -> str:
        """Who serves: anthropic, openrouter, openai, scripted."""

    @property
    def model(self) -> str:
        """The model's name as the provider knows it."""

    async def complete(self, request: ModelRequest, listener: Listener | None = None) -> Completion:
        """Ask once; with a listener the reply is streamed.

        A `request.model` that is not empty is asked in place of this one's own.

        Raises:
            ProviderError: one of its classes, mapped from status, error type or transport failure.
        """
