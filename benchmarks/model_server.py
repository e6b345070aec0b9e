"""A fast stateless model server on loopback, in a process of its own, speaking both wires.

It decides its answer from the messages alone: a run of `turns` model turns, all but the last asking
for two calls of `add(a, b)`, the last answering with the sum of all results. So every client can be
checked for the right answer. The first user message says how: `turns=10 pad=0`; each turn also says
`pad` characters. With `delegate=8` before it, that is what eight sub-agents are told at once.
GET /most tells how many requests it ever had open at once.

    python -m benchmarks.model_server --latency 0.05     # prints its port
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from typing import Any

DIRECTIVE = re.compile(rb"turns=(\d+) pad=(\d+)")
DELEGATE = re.compile(rb"delegate=(\d+) (turns=\d+ pad=\d+)")
SUM = re.compile(rb"sum=(\d+)")
ANTHROPIC_RESULT = re.compile(rb'"type":\s*"tool_result"')
OPENAI_RESULT = re.compile(rb'"role":\s*"tool"')

Call = tuple[str, str, dict[str, Any]]  # id, name, arguments


class Connection(asyncio.Protocol):
    """One keep-alive connection; requests come one after the other."""

    waiting = most = 0

    def __init__(self, latency: float) -> None:
        self._latency = latency
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        match = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        length = int(match[1]) if match else 0
        if len(rest) < length:
            return
        body, self._buffer = rest[:length], rest[length:]
        path = head.split(b" ", 2)[1]
        if path == b"/most":
            self._transport.write(_http(b"%d" % Connection.most, b"text/plain"))
        elif self._latency:
            self._take()
            asyncio.get_running_loop().call_later(self._latency, self._give, answer(path, body))
        else:
            self._transport.write(answer(path, body))

    def _take(self) -> None:
        Connection.waiting += 1
        Connection.most = max(Connection.most, Connection.waiting)

    def _give(self, reply: bytes) -> None:
        Connection.waiting -= 1
        self._transport.write(reply)


def answer(path: bytes, body: bytes) -> bytes:
    """The whole HTTP answer to one request."""
    anthropic = path.endswith(b"/messages")
    results = len((ANTHROPIC_RESULT if anthropic else OPENAI_RESULT).findall(body))
    text, calls = _delegated(body, results) if DELEGATE.search(body) else _added(body, results)
    stream = b'"stream":true' in body or b'"stream": true' in body
    return (_anthropic if anthropic else _openai)(text, calls, stream)


def total(turns: int) -> int:
    """What the two calls of each turn but the last add up to."""
    return sum(2 * turn + 1 for turn in range(turns - 1))


def _added(body: bytes, results: int) -> tuple[str, list[Call]]:
    found = DIRECTIVE.search(body)
    turns, pad = (int(found[1]), int(found[2])) if found else (1, 0)
    done, text = results // 2, "x" * pad
    if done < turns - 1:
        return text, [(f"c{done}_{i}", "add", {"a": done, "b": i}) for i in range(2)]
    return f"{text}sum={total(turns)}", []


def _delegated(body: bytes, results: int) -> tuple[str, list[Call]]:
    found = DELEGATE.search(body)
    assert found
    if results:
        return f"sum={sum(map(int, SUM.findall(body)))}", []
    tasks = [{"agent": "adder", "task": found[2].decode()}] * int(found[1])
    return "", [("d0", "delegate_task", {"tasks": tasks})]


def _http(body: bytes, kind: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (
        kind,
        len(body),
        body,
    )


def _sse(events: list[tuple[str | None, Any]]) -> bytes:
    lines = []
    for name, data in events:
        text = data if isinstance(data, str) else json.dumps(data)
        lines.append((f"event: {name}\n" if name else "") + f"data: {text}\n\n")
    return _http("".join(lines).encode(), b"text/event-stream")


def _anthropic(text: str, calls: list[Call], stream: bool) -> bytes:
    blocks: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    blocks += [{"type": "tool_use", "id": i, "name": n, "input": a} for i, n, a in calls]
    stop = "tool_use" if calls else "end_turn"
    usage = {"input_tokens": 10, "output_tokens": 5}
    message = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": blocks}
    if not stream:
        whole = {**message, "stop_reason": stop, "stop_sequence": None, "usage": usage}
        return _http(json.dumps(whole).encode(), b"application/json")
    start = {**message, "content": [], "stop_reason": None, "usage": usage}
    events: list[tuple[str | None, Any]] = [
        ("message_start", {"type": "message_start", "message": start})
    ]
    for index, block in enumerate(blocks):
        events += _anthropic_block(index, block)
    delta = {"stop_reason": stop, "stop_sequence": None}
    events.append(
        ("message_delta", {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 5}})
    )
    events.append(("message_stop", {"type": "message_stop"}))
    return _sse(events)


def _anthropic_block(index: int, block: dict[str, Any]) -> list[tuple[str | None, Any]]:
    if block["type"] == "text":
        empty: dict[str, Any] = {"type": "text", "text": ""}
        pieces = [block["text"][i : i + 40] for i in range(0, len(block["text"]), 40)]
        deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
    else:
        empty = {**block, "input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
    events: list[dict[str, Any]] = [
        {"type": "content_block_start", "index": index, "content_block": empty},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]
    return [(event["type"], event) for event in events]


def _openai(text: str, calls: list[Call], stream: bool) -> bytes:
    tools = [
        {"id": i, "type": "function", "function": {"name": n, "arguments": json.dumps(a)}}
        for i, n, a in calls
    ]
    stop = "tool_calls" if calls else "stop"
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    head = {"id": "c", "created": 1, "model": "m"}
    if not stream:
        message = {"role": "assistant", "content": text or None}
        if tools:
            message["tool_calls"] = tools  # type: ignore[assignment]
        choice = {"index": 0, "message": message, "finish_reason": stop}
        whole = {**head, "object": "chat.completion", "choices": [choice], "usage": usage}
        return _http(json.dumps(whole).encode(), b"application/json")
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": text[i : i + 40]} for i in range(0, len(text), 40)]
    deltas += [{"tool_calls": [{"index": n, **tool}]} for n, tool in enumerate(tools)]
    chunk = {**head, "object": "chat.completion.chunk"}
    events: list[tuple[str | None, Any]] = [
        (None, {**chunk, "choices": [{"index": 0, "delta": d, "finish_reason": None}]})
        for d in deltas
    ]
    last = {"index": 0, "delta": {}, "finish_reason": stop}
    events.append((None, {**chunk, "choices": [last]}))
    events.append((None, {**chunk, "choices": [], "usage": usage}))
    return _sse([*events, (None, "[DONE]")])


async def serve(latency: float) -> None:
    """Serve until the standard input ends, so that no server outlives its owner."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(latency), "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    asyncio.run(serve(parser.parse_args().latency))


if __name__ == "__main__":
    main()
