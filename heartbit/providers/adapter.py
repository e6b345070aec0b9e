"""What the adapters of both wires have in common: how a call goes, whose key is used, who closes.

An adapter only translates; `http` sends. It keeps nothing of a call: many may use it at once.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar, Protocol

from heartbit import __version__
from heartbit.core.messages import Completion, Json, Usage
from heartbit.core.request import ModelRequest
from heartbit.errors import AuthenticationFailed, ProviderError
from heartbit.providers.base import Listener
from heartbit.providers.failures import failure
from heartbit.providers.http import Endpoint, HttpClient, Timeouts
from heartbit.providers.wire import reports_error, whole

COMMON_HEADERS = {
    "user-agent": f"heartbit/{__version__}",
    "accept": "application/json, text/event-stream",
}


class StreamParser(Protocol):
    """Puts a streamed reply together, one server-sent event at a time. No I/O."""

    @property
    def done(self) -> bool:
        """Whether the final event has come; events after it mean nothing."""

    @property
    def usage(self) -> Usage:
        """The tokens that the stream has told of so far."""

    def feed(self, event: str, data: str) -> list[str]:
        """Take in an event and return the text it adds to the reply.

        Raises:
            ProviderError: the event reports an error, or can't be understood.
        """

    def finish(self) -> Completion:
        """The whole reply.

        Raises:
            TruncatedStream: the stream ended before its final event.
        """


class Adapter(ABC):
    """A provider on the other side of HTTP.

    Without `api_key` the environment's is taken (`key_variable`), but only for the provider's own
    address: somebody else's server never sees it. Without `http` the adapter has connections of its
    own, which `aclose` closes.

    Raises:
        ConfigError: `base_url` is no http or https address.
    """

    default_base_url: ClassVar[str]
    key_variable: ClassVar[str]
    path: ClassVar[str]

    def __init__(
        self,
        *,
        model: str,
        name: str,
        api_key: str | None = None,
        base_url: str | None = None,
        http: HttpClient | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        self._name, self._model = name, model
        self._base_url = (base_url or self.default_base_url).rstrip("/")
        self._api_key = api_key
        self._timeouts = timeouts or Timeouts()
        self._http = http or HttpClient()
        self._owns_http = http is None
        # Checks the address now, when the person who wrote it is still there.
        Endpoint(self._base_url, headers={}, timeouts=self._timeouts)

    @property
    def name(self) -> str:
        """Who serves."""
        return self._name

    @property
    def model(self) -> str:
        """The model's name as the provider knows it."""
        return self._model

    @property
    def official(self) -> bool:
        """Whether the requests go to the provider's own address."""
        return self._base_url == self.default_base_url

    async def complete(self, request: ModelRequest, listener: Listener | None = None) -> Completion:
        """Ask once; with a listener the reply is streamed and its text heard as it arrives.

        Raises:
            ProviderError: one of its classes, mapped from status, error type or transport failure.
        """
        endpoint, body = self._endpoint, self.build_request(request, stream=listener is not None)
        try:
            if listener is None:
                return self._parsed(await self._http.post_json(endpoint, body))
            return await self._streamed(endpoint, body, listener)
        except ProviderError as error:
            error.args = (self._without_key(error),)
            raise

    async def aclose(self) -> None:
        """Close the connections, unless the HTTP client was handed in: that is its owner's."""
        if self._owns_http:
            await self._http.aclose()

    @abstractmethod
    def build_request(self, request: ModelRequest, *, stream: bool = False) -> bytes:
        """The body to send."""

    @abstractmethod
    def parse_response(self, data: Json) -> Completion:
        """The reply that a body holds.

        Raises:
            MalformedReply: it holds none.
        """

    @abstractmethod
    def stream_parser(self) -> StreamParser:
        """A parser for one streamed reply."""

    @abstractmethod
    def _headers(self, key: str) -> Mapping[str, str]:
        """The headers of this wire; `key` is empty if there is none."""

    async def _streamed(self, endpoint: Endpoint, body: bytes, listener: Listener) -> Completion:
        parser, voice = self.stream_parser(), _Voice(listener)

        def feed(event: str, data: str) -> bool:
            for delta in parser.feed(event, data):
                voice.say(delta)
            return parser.done

        try:
            unstreamed = await self._http.stream(endpoint, body, feed)
            if unstreamed is None:
                return parser.finish()
        except ProviderError as error:
            error.usage = error.usage or (parser.usage if parser.usage.total_tokens else None)
            raise
        completion = self._parsed(unstreamed)
        voice.say(completion.message.text)
        return completion

    def _parsed(self, data: Json) -> Completion:
        if reports_error(data):
            raise failure(data)
        return self.parse_response(data)

    def _without_key(self, error: ProviderError) -> str:
        key = self._key
        if not key and isinstance(error, AuthenticationFailed):
            return (
                "The provider wants an API key and none was given; "
                "set api_key in [provider], or pass it."
            )
        return error.message.replace(key, "***") if key else error.message

    @cached_property
    def _endpoint(self) -> Endpoint:
        headers = {**COMMON_HEADERS, **self._headers(self._key)}
        return Endpoint(self._base_url + self.path, headers=headers, timeouts=self._timeouts)

    @cached_property
    def _key(self) -> str:
        key = self._api_key
        if key is None and self.official:
            key = os.environ.get(self.key_variable, "")
        key = (key or "").strip()
        if not key and self.official:
            raise AuthenticationFailed(
                f"There is no API key for {self.name}: set {self.key_variable} or pass api_key."
            )
        if not (key.isascii() and key.isprintable()):
            raise AuthenticationFailed("The API key holds characters that no key has; check it.")
        return key


class _Voice:
    """Passes text on in valid Unicode: half a surrogate pair waits for its other half."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._held = ""

    def say(self, delta: str) -> None:
        text = self._held + delta
        self._held = ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._held = text[:-1], text[-1]
        if text:
            self._listener.text(whole(text))
