"""A real HTTP server on loopback that plays a model provider, scripted per test, on both wires.

    with ModelServer([Reply(text="Hello"), Raw(status=529)]) as server:
        AnthropicProvider(model="m", base_url=server.url)        # asks {url}/v1/messages
        OpenAIProvider(model="m", base_url=server.url + "/v1")   # asks {url}/v1/chat/completions
        ...
    server.requests[0].json["messages"]

The script is a list, answered in order, or a function (plain or `async`) from the recorded request
to an answer. An answer is a `Reply` (or just its text), spoken on the wire of the request's path
and streamed if the request says so, or a `Raw`, sent as it is. A list that is used up answers with
HTTP 400, so that a call too many fails at once; a function that raises fails the test at the end of
the block. It runs in a thread of its own; nothing here knows heartbit.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.support.model_wires import Call, Reply, json_body, stream_events

__all__ = ["Call", "Gate", "ModelServer", "Raw", "Recorded", "Reply", "json_answer"]

REASONS = {200: "OK", 400: "Bad Request", 429: "Too Many Requests", 529: "Overloaded"}


class Gate:
    """Holds an answer back until a test opens it; an open gate stays open."""

    def __init__(self) -> None:
        self._opened: Future[None] = Future()

    def open(self) -> None:
        """Let everything that waits here go on; may be called from any thread."""
        self._opened.set_result(None)

    async def passed(self) -> None:
        """Wait, on the server's loop, until the gate is open."""
        await asyncio.shield(asyncio.wrap_future(self._opened))


@dataclass(frozen=True, kw_only=True)
class Raw:
    """An HTTP answer as it is.

    `chunks` (they replace `body`) are sent one by one with chunked encoding; a `Gate` among them is
    waited for. What follows the last byte is the `ending`: a proper `end`, a connection closed
    too early (`cut`) or reset (`abort`), or silence until the client leaves (`hang`). With no byte
    at all to send, these three don't even send the status.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    chunks: tuple[bytes | Gate, ...] | None = None
    ending: Literal["end", "cut", "abort", "hang"] = "end"


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A request as it came; `number` counts from 0.

    `abandoned` is set when the client leaves an answer that hangs.
    """

    number: int
    path: str
    headers: dict[str, str]
    body: bytes
    abandoned: threading.Event = field(default_factory=threading.Event)

    @property
    def json(self) -> dict[str, Any]:
        """The body, parsed."""
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed

    @property
    def wire(self) -> Literal["anthropic", "openai"]:
        """The wire that the path belongs to."""
        return "anthropic" if self.path.endswith("/messages") else "openai"


Answer = Reply | Raw | str
Script = Iterable[Answer] | Callable[[Recorded], Answer | Awaitable[Answer]]


class ModelServer:
    """The server; `url` is known once it was entered as a context manager."""

    def __init__(self, script: Script) -> None:
        self.requests: list[Recorded] = []
        self.connections = 0
        self._failures: list[Exception] = []
        self._script = script if callable(script) else _in_order(script)
        self._started: Future[str] = Future()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="model-server", daemon=True)

    def __enter__(self) -> ModelServer:
        self._thread.start()
        self.url = self._started.result(timeout=10)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout=10)
        if self._failures and exc[0] is None:
            raise self._failures[0]

    def wait_for_requests(self, count: int, timeout: float = 10) -> list[Recorded]:
        """The first `count` requests, as soon as they have come; fails after `timeout` seconds."""
        with self._changed:
            came = self._changed.wait_for(lambda: len(self.requests) >= count, timeout)
        assert came, f"{len(self.requests)} of {count} requests came within {timeout} s"
        return self.requests[:count]

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        open_ones: set[asyncio.Task[None]] = set()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            open_ones.add(task)
            self.connections += 1
            try:
                await self._talk(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass
            finally:
                open_ones.discard(task)
                writer.transport.abort()

        server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=2**24, backlog=2048)
        self._started.set_result(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await self._stop.wait()
        server.close()
        for task in tuple(open_ones):
            task.cancel()
        await asyncio.gather(*open_ones, return_exceptions=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            request = self._record(first.split(" ")[1], headers, body)
            raw = await self._answer(request)
            try:
                await _send(writer, raw)
                if raw.ending == "hang":
                    await reader.read()
            finally:  # the client may have left before the answer was sent
                if raw.ending == "hang":
                    request.abandoned.set()
            if raw.ending == "abort":
                _reset_on_close(writer)
            if raw.ending != "end":
                return

    def _record(self, path: str, headers: dict[str, str], body: bytes) -> Recorded:
        number = len(self.requests)
        request = Recorded(number=number, path=path, headers=headers, body=body)
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
        return request

    async def _answer(self, request: Recorded) -> Raw:
        try:
            answer = self._script(request)
            if inspect.isawaitable(answer):
                answer = await answer
        except Exception as error:
            self._failures.append(error)
            return _refusal(f"the script of the model server failed: {error!r}")
        if isinstance(answer, str):
            answer = Reply(text=answer)
        if isinstance(answer, Raw):
            return answer
        if answer.gate is not None:
            await answer.gate.passed()
        await asyncio.sleep(answer.delay_seconds)
        return speak(answer, request)


def speak(reply: Reply, request: Recorded) -> Raw:
    """The reply on the request's wire, streamed if the request asks for it."""
    asked = request.json
    model = str(asked.get("model", ""))
    if asked.get("stream"):
        events = stream_events(request.wire, reply, number=request.number, model=model)
        return Raw(headers={"content-type": "text/event-stream"}, chunks=tuple(events))
    body = json_body(request.wire, reply, number=request.number, model=model)
    return json_answer(body)


def json_answer(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Raw:
    """An answer with a JSON body: an error of the provider, for instance."""
    headers = {"content-type": "application/json", **(headers or {})}
    return Raw(status=status, headers=headers, body=json.dumps(body).encode())


def _in_order(answers: Iterable[Answer]) -> Callable[[Recorded], Answer]:
    left = iter(answers)
    return lambda request: next(left, _refusal("the script of the model server is used up"))


def _refusal(message: str) -> Raw:
    error = {"type": "invalid_request_error", "message": message}
    return json_answer({"type": "error", "error": error}, status=400)


async def _send(writer: asyncio.StreamWriter, raw: Raw) -> None:
    if raw.chunks is None and raw.ending == "end":
        writer.write(_head(raw, f"content-length: {len(raw.body)}") + raw.body)
    elif raw.chunks or raw.body or raw.ending == "end":
        writer.write(_head(raw, "transfer-encoding: chunked"))
        for chunk in raw.chunks or (raw.body,):
            await _send_chunk(writer, chunk)
    if raw.chunks is not None and raw.ending == "end":
        writer.write(b"0\r\n\r\n")
    await writer.drain()


def _head(raw: Raw, framing: str) -> bytes:
    lines = [f"HTTP/1.1 {raw.status} {REASONS.get(raw.status, 'Status')}", framing]
    lines += [f"{name}: {value}" for name, value in raw.headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def _send_chunk(writer: asyncio.StreamWriter, chunk: bytes | Gate) -> None:
    if isinstance(chunk, Gate):
        await chunk.passed()
    elif chunk:
        writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
    await writer.drain()


def _reset_on_close(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
