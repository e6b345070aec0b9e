"""The one module that sends requests to model providers.

It knows bytes, statuses and server-sent events, and no wire: what the bytes mean is the adapters'
business. Whatever httpx2 raises leaves this room as a ProviderError.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import httpx2

from heartbit.errors import (
    CallTimedOut,
    ConfigError,
    InvalidRequest,
    MalformedReply,
    NetworkFailure,
    ProviderError,
)
from heartbit.providers.failures import failure, retry_after_seconds
from heartbit.providers.wire import decoded

if TYPE_CHECKING:
    import ssl

MAX_EVENT_BYTES = 64 * 2**20
MAX_ERROR_BYTES = 64 * 2**10

# For every call a pool looks at each of its idle connections, so each call has a pool to itself.
MAX_POOLS = 128
LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=30)

# After its final event a stream is read to its end, so that the connection can be used again; a
# server that keeps it open is not waited for any longer than this.
DRAIN_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeouts:
    """How long to wait: for a connection, between two pieces of the answer, for the whole call."""

    connect_seconds: float = 10
    between_bytes_seconds: float = 300
    call_seconds: float = 600


class Endpoint:
    """Where requests go, prepared once: the address, the headers and the patience.

    Raises:
        ConfigError: `url` is no http or https address.
    """

    __slots__ = ("_extensions", "_headers", "_url", "host", "timeouts")

    def __init__(self, url: str, *, headers: Mapping[str, str], timeouts: Timeouts) -> None:
        self._url = _address(url)
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._headers += [(b"host", self._url.netloc), (b"content-type", b"application/json")]
        self._extensions = {"timeout": _as_httpx(timeouts)}
        self.host = self._url.netloc.decode()
        self.timeouts = timeouts

    def request(self, body: bytes) -> httpx2.Request:
        """A POST of `body`."""
        # Merging a client's defaults into every request costs more than the rest of sending it.
        headers = [*self._headers, (b"content-length", b"%d" % len(body))]
        stream = httpx2.ByteStream(body)
        return httpx2.Request(
            "POST", self._url, headers=headers, stream=stream, extensions=self._extensions
        )


class HttpClient:
    """Sends requests, over as many connection pools as the calls in flight deserve.

    It opens nothing before its first call, may be used from several event loops (each gets its own
    connections), and closes a loop's connections at the latest when asyncio shuts that loop down.
    """

    def __init__(self, *, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, _Pools] = WeakKeyDictionary()

    async def post_json(self, endpoint: Endpoint, body: bytes) -> dict[str, Any]:
        """The JSON object that the answer is.

        Raises:
            ProviderError: the call failed, or its answer is no JSON object.
        """
        async with self._answer(endpoint, body) as response:
            return await _json_of(response)

    async def stream(
        self, endpoint: Endpoint, body: bytes, feed: Callable[[str, str], bool]
    ) -> dict[str, Any] | None:
        """Pass name and data of each server-sent event to `feed` until it returns True.

        The stream may end before it does: whether it is complete is for the caller to say. A
        provider that doesn't stream answers with JSON; it is returned, and `feed` hears nothing.

        Raises:
            ProviderError: the call failed, or its answer is neither a stream nor JSON.
        """
        async with self._answer(endpoint, body) as response:
            if _content_type(response) == "application/json":
                return await _json_of(response)
            await read_events(response, feed)
        return None

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        pools = self._of_loop.pop(asyncio.get_running_loop(), None)
        if pools is not None:
            await pools.aclose()

    @asynccontextmanager
    async def _answer(self, endpoint: Endpoint, body: bytes) -> AsyncIterator[httpx2.Response]:
        """A successful answer whose body is still to be read; everything else raises."""
        pool = await self._least_busy_pool()
        pool.in_flight += 1
        try:
            async with asyncio.timeout(endpoint.timeouts.call_seconds):
                response = await pool.client.send(endpoint.request(body), stream=True)
                try:
                    if not response.is_success:
                        raise await self._refusal(response, endpoint)
                    yield response
                finally:
                    await response.aclose()
        except TimeoutError as error:
            raise _too_slow(endpoint) from error
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise mapped(error, endpoint) from error
        finally:
            pool.in_flight -= 1

    async def _refusal(self, response: httpx2.Response, endpoint: Endpoint) -> ProviderError:
        status = response.status_code
        if response.is_redirect:
            return InvalidRequest(
                f"{endpoint.host} redirects to another address (HTTP {status}); check base_url.",
                status=status,
            )
        payload = _payload(await _first_bytes(response))
        retry_after = retry_after_seconds(response.headers, self._now())
        return failure(payload, status=status, retry_after=retry_after)

    async def _least_busy_pool(self) -> _Pool:
        loop = asyncio.get_running_loop()
        pools = self._of_loop.get(loop)
        if pools is None:
            pools = self._of_loop[loop] = _Pools()
            await pools.open()
        return pools.least_busy()


class _Pool:
    """One httpx2 client and the number of calls it is busy with."""

    __slots__ = ("client", "in_flight")

    def __init__(self) -> None:
        self.client = _client()
        self.in_flight = 0


class _Pools:
    """The pools of one event loop."""

    def __init__(self) -> None:
        self._pools = [_Pool()]
        self._closer = self._close_at_the_end()

    async def open(self) -> None:
        await anext(self._closer)

    async def aclose(self) -> None:
        await self._closer.aclose()

    def least_busy(self) -> _Pool:
        pool = min(self._pools, key=_in_flight)
        if pool.in_flight and len(self._pools) < MAX_POOLS:
            pool = _Pool()
            self._pools.append(pool)
        return pool

    async def _close_at_the_end(self) -> AsyncGenerator[None, None]:
        # asyncio closes every suspended async generator when a loop shuts down: the only moment
        # at which connections that nobody closed can still be closed properly.
        try:
            yield
        finally:
            for pool in self._pools:
                await pool.client.aclose()


async def read_events(response: httpx2.Response, feed: Callable[[str, str], bool]) -> None:
    """Pass name and data of each server-sent event of the response to `feed` until it is True."""
    # Event streams are UTF-8 whatever the header says; the codec drops a byte order mark.
    response.encoding = "utf-8-sig"
    source = httpx2.EventSource(response, max_event_size=MAX_EVENT_BYTES)
    iterator = cast("AsyncGenerator[httpx2.ServerSentEvent, None]", aiter(source))
    async with aclosing(iterator) as events:
        async for event in events:
            if feed(event.event, event.data):
                await _drain(events)
                break


def mapped(error: Exception, endpoint: Endpoint) -> ProviderError:
    """What failed on the way to the provider or back, as one of our errors."""
    host, timeouts = endpoint.host, endpoint.timeouts
    match error:
        case httpx2.ConnectTimeout():
            seconds = timeouts.connect_seconds
            return CallTimedOut(f"{host} could not be reached within {seconds:g} seconds.")
        case httpx2.TimeoutException():
            seconds = timeouts.between_bytes_seconds
            return CallTimedOut(f"{host} was silent for {seconds:g} seconds.")
        case httpx2.SSEError() | httpx2.DecodingError():
            return MalformedReply(
                f"{host} sent an answer that could not be understood{_reason(error)}; "
                "check base_url."
            )
        case httpx2.UnsupportedProtocol() | httpx2.InvalidURL() | httpx2.TooManyRedirects():
            return InvalidRequest(f"{host} could not be asked{_reason(error)}; check base_url.")
        case httpx2.LocalProtocolError():
            # Its text quotes the header at fault, which may be the key.
            return InvalidRequest(f"The request to {host} could not be sent: an illegal header.")
        case httpx2.ConnectError() | httpx2.ProxyError():
            return NetworkFailure(
                f"{host} could not be reached{_reason(error)}; check the network and base_url."
            )
    return NetworkFailure(f"The connection to {host} was lost{_reason(error)}.")


def _reason(error: Exception) -> str:
    text = str(error).rstrip(".")
    return f": {text}" if text else ""


def _too_slow(endpoint: Endpoint) -> CallTimedOut:
    seconds = endpoint.timeouts.call_seconds
    return CallTimedOut(f"{endpoint.host} did not finish its answer within {seconds:g} seconds.")


def _in_flight(pool: _Pool) -> int:
    return pool.in_flight


def _client() -> httpx2.AsyncClient:
    try:
        return httpx2.AsyncClient(verify=_tls_context(), limits=LIMITS)
    except (OSError, ValueError, ImportError, httpx2.InvalidURL) as error:
        # It reads the environment, so a typing error there shows up here.
        raise InvalidRequest(
            f"No connection can be set up{_reason(error)}; check SSL_CERT_FILE, SSL_CERT_DIR and "
            "the proxy variables (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY)."
        ) from error


@functools.cache
def _tls_context() -> ssl.SSLContext:
    # Loading the trust store takes longer than a call; one context serves every client.
    return httpx2.create_ssl_context()


def _address(url: str) -> httpx2.URL:
    try:
        address = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise ConfigError(f"base_url is not a valid address: {error}.") from error
    if address.scheme not in ("http", "https") or not address.host:
        raise ConfigError(f"base_url must start with http:// or https://, not {url!r}.")
    return address


def _as_httpx(timeouts: Timeouts) -> dict[str, float | None]:
    silence = timeouts.between_bytes_seconds
    return {
        "connect": timeouts.connect_seconds,
        "read": silence,
        "write": silence,
        "pool": None,
    }


def _content_type(response: httpx2.Response) -> str:
    return response.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _json_of(response: httpx2.Response) -> dict[str, Any]:
    parsed = _payload(await response.aread())
    if not isinstance(parsed, dict):
        kind = _content_type(response) or "something unnamed"
        raise MalformedReply(
            f"The provider answered with {kind} that holds no JSON object; check base_url."
        )
    return parsed


async def _first_bytes(response: httpx2.Response) -> bytes:
    """As much of an error's body as can be had: the status is known and counts anyway."""
    content = b""
    with suppress(httpx2.HTTPError):
        async with aclosing(response.aiter_bytes()) as chunks:
            async for chunk in chunks:
                content += chunk
                if len(content) > MAX_ERROR_BYTES:
                    break
    return content


def _payload(content: bytes) -> Any:
    try:
        return decoded(content)
    except ValueError:
        return None


async def _drain(events: AsyncIterator[object]) -> None:
    with suppress(TimeoutError, httpx2.HTTPError):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in events:
                pass
