"""The one module that sends: what fails is mapped, nobody waits for ever, nothing is left open."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

import httpx2
import pytest

from heartbit.errors import (
    CallTimedOut,
    ConfigError,
    InvalidRequest,
    MalformedReply,
    NetworkFailure,
    ProviderError,
    RateLimited,
    ServerFailure,
)
from heartbit.providers import http
from heartbit.providers.http import Endpoint, HttpClient, Timeouts, mapped
from tests.support.model_server import Gate, ModelServer, Raw, Reply, Script, json_answer

# What httpx2 raises about a misuse of its own API: a defect of ours, not a failed call.
PROGRAMMING_ERRORS = (httpx2.StreamError, httpx2.CookieConflict)
EVENTS = {"content-type": "text/event-stream"}
NOW = 1_700_000_000.0


def endpoint(url: str, **seconds: float) -> Endpoint:
    return Endpoint(url + "/v1/messages", headers={"x-test": "1"}, timeouts=Timeouts(**seconds))


def posted(script: Script, **seconds: float) -> Any:
    """What one POST to a server with this script gives."""
    with ModelServer(script) as server:
        return asyncio.run(
            HttpClient(now=lambda: NOW).post_json(endpoint(server.url, **seconds), b"{}")
        )


def streamed(script: Script, stop: str = "stop", **seconds: float) -> tuple[Any, list[str]]:
    """What one streamed POST returns, and the data of the events it fed until `stop`."""
    heard: list[str] = []

    def feed(event: str, data: str) -> bool:
        heard.append(data)
        return data == stop

    with ModelServer(script) as server:
        call = HttpClient().stream(endpoint(server.url, **seconds), b"{}", feed)
        return asyncio.run(call), heard


def every_httpx2_error() -> list[type[Exception]]:
    found = [getattr(httpx2, name) for name in httpx2.__all__]
    return [kind for kind in found if inspect.isclass(kind) and issubclass(kind, Exception)]


@pytest.mark.parametrize("kind", every_httpx2_error(), ids=lambda kind: kind.__name__)
def test_every_httpx2_exception_is_mapped_or_known_as_a_programming_error(
    kind: type[Exception],
) -> None:
    if issubclass(kind, PROGRAMMING_ERRORS):
        return
    assert issubclass(kind, httpx2.HTTPError | httpx2.InvalidURL), "the client must catch it too"
    assert isinstance(mapped(kind.__new__(kind), endpoint("http://x")), ProviderError)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx2.ConnectTimeout(""), CallTimedOut),
        (httpx2.ReadTimeout(""), CallTimedOut),
        (httpx2.WriteTimeout(""), CallTimedOut),
        (httpx2.PoolTimeout(""), CallTimedOut),
        (httpx2.ConnectError("refused"), NetworkFailure),
        (httpx2.ReadError(""), NetworkFailure),
        (httpx2.WriteError(""), NetworkFailure),
        (httpx2.CloseError(""), NetworkFailure),
        (httpx2.RemoteProtocolError(""), NetworkFailure),
        (httpx2.ProxyError(""), NetworkFailure),
        (OSError("no route"), NetworkFailure),
        (httpx2.SSEError(""), MalformedReply),
        (httpx2.DecodingError(""), MalformedReply),
        (httpx2.LocalProtocolError("Illegal header value b'secret'"), InvalidRequest),
        (httpx2.UnsupportedProtocol(""), InvalidRequest),
        (httpx2.InvalidURL(""), InvalidRequest),
    ],
)
def test_a_transport_failure_has_its_class(error: Exception, kind: type[ProviderError]) -> None:
    found = mapped(error, endpoint("http://host"))
    assert kind is type(found)
    assert "secret" not in found.message
    assert found.message.endswith(".")


def test_a_server_that_nobody_runs_is_a_network_failure() -> None:
    with ModelServer([]) as server:
        gone = server.url
    with pytest.raises(NetworkFailure, match=r"could not be reached.*check the network"):
        asyncio.run(HttpClient().post_json(endpoint(gone), b"{}"))


@pytest.mark.parametrize("ending", ["cut", "abort"])
@pytest.mark.parametrize("body", [b"", b'{"half":'])
def test_a_connection_lost_in_the_middle_is_a_network_failure(ending: Any, body: bytes) -> None:
    with pytest.raises(NetworkFailure):
        posted([Raw(body=body, ending=ending)])
    with pytest.raises(NetworkFailure):
        streamed([Raw(headers=EVENTS, body=body, ending=ending)])


@pytest.mark.parametrize(
    ("variable", "value"),
    [("SSL_CERT_FILE", "/nowhere.pem"), ("ALL_PROXY", "socks9://x"), ("HTTPS_PROXY", "foo://x")],
)
def test_an_environment_that_no_connection_can_be_made_of_says_what_to_check(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr(http, "_tls_context", http._tls_context.__wrapped__)
    with pytest.raises(InvalidRequest, match=variable):
        posted([])


def test_an_answer_that_is_no_http_at_all_is_a_provider_error() -> None:
    async def talk() -> None:
        async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"\xff\x00 220 mail.example ESMTP\r\n\r\n")
            writer.close()
            await writer.wait_closed()

        async with await asyncio.start_server(babble, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            await HttpClient().post_json(endpoint(f"http://127.0.0.1:{port}"), b"{}")

    with pytest.raises(NetworkFailure):
        asyncio.run(talk())


def test_a_silent_server_is_given_up_after_the_time_between_bytes() -> None:
    with pytest.raises(CallTimedOut, match=r"silent for 0\.05 seconds"):
        posted([Raw(ending="hang")], between_bytes_seconds=0.05)
    half = Raw(headers=EVENTS, chunks=(b"data: 1\n\n",), ending="hang")
    with pytest.raises(CallTimedOut, match=r"silent for 0\.05 seconds"):
        streamed([half], between_bytes_seconds=0.05)


def test_the_whole_call_has_a_deadline_even_if_bytes_keep_coming() -> None:
    drip = Raw(headers=EVENTS, chunks=(b"data: 1\n\n", Gate()))
    with pytest.raises(CallTimedOut, match=r"did not finish its answer within 0\.05 seconds"):
        streamed([drip], call_seconds=0.05)
    with pytest.raises(CallTimedOut, match=r"within 0\.05 seconds"):
        posted([Reply(gate=Gate())], call_seconds=0.05)


def test_a_cancelled_call_hangs_up() -> None:
    async def cancel(server: ModelServer) -> None:
        call = asyncio.create_task(HttpClient().post_json(endpoint(server.url), b"{}"))
        await asyncio.to_thread(server.wait_for_requests, 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        left = server.requests[0].abandoned
        assert await asyncio.to_thread(left.wait, 5)

    with ModelServer([Raw(body=b"{", ending="hang")]) as server:
        asyncio.run(cancel(server))


def test_the_body_goes_out_as_it_is_and_the_json_comes_back() -> None:
    with ModelServer([json_answer({"a": [1, "ü"]})]) as server:
        body = '{"x": "ü😀"}'.encode()
        got = asyncio.run(HttpClient().post_json(endpoint(server.url), body))
        sent = server.requests[0]
    assert {"a": [1, "ü"]} == got
    assert body == sent.body
    assert ("application/json", "1") == (sent.headers["content-type"], sent.headers["x-test"])
    assert server.url == "http://" + sent.headers["host"]


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"content-type": "text/html"}, b"<html>log in to the hotel</html>"),
        ({"content-type": "application/json"}, b"{"),
        ({}, b""),
        ({"content-type": "application/json"}, b"[" * 100_000),
        ({"content-type": "application/json"}, b'{"n": NaN}'),
        ({"content-type": "application/json"}, b'{"n": 1e999}'),
        ({"content-encoding": "gzip", "content-type": "application/json"}, b"no gzip"),
    ],
)
def test_a_success_that_is_no_json_is_malformed(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(MalformedReply):
        posted([Raw(headers=headers, body=body)])


def test_a_page_in_place_of_a_stream_is_malformed_and_says_where_to_look() -> None:
    page = Raw(headers={"content-type": "text/html"}, body=b"<html>welcome</html>")
    with pytest.raises(MalformedReply, match="text/html"):
        streamed([page])


def test_json_in_place_of_a_stream_is_handed_back_unfed() -> None:
    assert ({"a": 1}, []) == streamed([json_answer({"a": 1})])


def test_an_event_beyond_every_measure_is_malformed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_EVENT_BYTES", 1000)
    with pytest.raises(MalformedReply):
        streamed([Raw(headers=EVENTS, body=b"data: " + b"x" * 2000)])


def test_events_stop_at_the_final_one_and_the_connection_is_used_again() -> None:
    events = Raw(headers=EVENTS, chunks=(b"data: 1\n\ndata: stop\n\n", b"data: more\n\n"))

    async def twice(server: ModelServer) -> list[list[str]]:
        client, heard = HttpClient(), []
        for _ in range(2):
            fed: list[str] = []
            heard.append(fed)

            def feed(_: str, data: str, fed: list[str] = fed) -> bool:
                fed.append(data)
                return data == "stop"

            await client.stream(endpoint(server.url), b"{}", feed)
        return heard

    with ModelServer([events, events]) as server:
        assert [["1", "stop"]] * 2 == asyncio.run(twice(server))
        assert server.connections == 1


def test_a_server_that_keeps_the_stream_open_after_its_final_event_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "DRAIN_SECONDS", 0.01)
    for ending in ("hang", "abort"):
        open_ended = Raw(headers=EVENTS, chunks=(b"data: stop\n\n",), ending=ending)  # type: ignore[arg-type]
        assert (None, ["stop"]) == streamed([open_ended], between_bytes_seconds=30)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:30 GMT"}, 10.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:30 -0000"}, 10.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:10 GMT"}, 0.0),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "Tue, 99 Nov 2023 22:13:30 GMT"}, None),
        ({"retry-after-ms": "?", "retry-after": "2"}, 2.0),
    ],
)
def test_the_wait_that_the_provider_asks_for_is_read(
    headers: dict[str, str], seconds: float | None
) -> None:
    with pytest.raises(RateLimited) as caught:
        posted([Raw(status=429, headers=headers)])
    assert seconds == caught.value.retry_after


def test_an_error_page_of_a_proxy_is_its_status_without_the_page() -> None:
    page = Raw(status=502, headers={"content-type": "text/html"}, body=b"<html>nginx</html>" * 9999)
    with pytest.raises(ServerFailure) as caught:
        posted([page])
    assert "The provider failed on its side; try again later (HTTP 502)." == caught.value.message


def test_an_error_whose_body_is_cut_still_counts_by_its_status() -> None:
    with pytest.raises(ServerFailure, match="HTTP 503"):
        posted([Raw(status=503, body=b'{"err', ending="cut")])


def test_an_error_body_without_end_is_read_only_as_far_as_it_is_needed() -> None:
    endless = Raw(status=500, chunks=(b"x" * 200_000, Gate()))
    with pytest.raises(ServerFailure):
        posted([endless], call_seconds=30)


def test_a_redirect_is_not_followed_with_the_key_and_the_prompt() -> None:
    with ModelServer(
        [Raw(status=307, headers={"location": "http://elsewhere.example/"})]
    ) as server:
        with pytest.raises(InvalidRequest, match=r"redirects.*check base_url"):
            asyncio.run(HttpClient().post_json(endpoint(server.url), b"{}"))
        assert len(server.requests) == 1


@pytest.mark.parametrize("url", ["localhost:11434", "ftp://x", "http://", "", "http://x:y"])
def test_an_address_that_is_none_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigError, match="base_url"):
        Endpoint(url, headers={}, timeouts=Timeouts())


def in_flight_at_once(server: ModelServer, client: HttpClient, calls: int, gate: Gate) -> Any:
    async def ask() -> list[Any]:
        target = endpoint(server.url)
        tasks = [asyncio.create_task(client.post_json(target, b"{}")) for _ in range(calls)]
        await asyncio.to_thread(server.wait_for_requests, calls)
        gate.open()
        return await asyncio.gather(*tasks)

    return asyncio.run(ask())


@pytest.fixture
def clients_made(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    made: list[object] = []
    real = httpx2.AsyncClient

    def counted(**options: Any) -> httpx2.AsyncClient:
        made.append(client := real(**options))
        return client

    monkeypatch.setattr(httpx2, "AsyncClient", counted)
    return made


@pytest.mark.parametrize(("calls", "clients"), [(1, 1), (2, 2), (128, 128), (200, 128)])
def test_connection_pools_are_opened_as_the_calls_in_flight_deserve(
    calls: int, clients: int, clients_made: list[object]
) -> None:
    gate = Gate()
    with ModelServer(lambda _: Reply(text="x", gate=gate)) as server:
        assert calls == len(in_flight_at_once(server, HttpClient(), calls, gate))
    assert clients == len(clients_made)


def test_calls_one_after_the_other_share_one_connection() -> None:
    async def ask(server: ModelServer) -> None:
        client = HttpClient()
        for _ in range(5):
            await client.post_json(endpoint(server.url), b"{}")

    with ModelServer(lambda _: "x") as server:
        asyncio.run(ask(server))
        assert server.connections == 1


def test_nothing_is_opened_before_the_first_call(clients_made: list[object]) -> None:
    asyncio.run(HttpClient().aclose())
    assert [] == clients_made


def run_and_collect(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())
    gc.collect()  # an unclosed socket would warn here, and a warning is an error


def test_one_client_serves_loop_after_loop_and_leaves_no_socket_open() -> None:
    client = HttpClient()
    with ModelServer(lambda _: "x") as server:

        async def ask() -> None:
            await client.post_json(endpoint(server.url), b"{}")

        run_and_collect(ask)
        run_and_collect(ask)
        assert server.connections == 2


def test_a_closed_client_opens_again_when_it_is_asked() -> None:
    client = HttpClient()
    with ModelServer(lambda _: "x") as server:

        async def ask() -> None:
            await client.post_json(endpoint(server.url), b"{}")
            await client.aclose()
            await client.aclose()
            await client.post_json(endpoint(server.url), b"{}")

        run_and_collect(ask)
        assert server.connections == 2
