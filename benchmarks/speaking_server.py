"""A model server whose text is the time at which it was sent, by a clock that all processes share.

A prompt `stamp=100` asks for that many turns, each of which says the time and then calls `add`;
with the last answer everybody else falls silent. Any other prompt gets fifty words a second until
then. Only OpenAI's wire, streamed.

    python -m benchmarks.speaking_server            # prints its port
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

from benchmarks.model_server import OPENAI_RESULT

STAMP = re.compile(rb"stamp=(\d+)")
WORD_SECONDS = 0.02
# After the text a model takes a while to say which tool it wants.
CALL_SECONDS = 0.02
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"

Delta = dict[str, Any]


class Speaker:
    """All that is said."""

    def __init__(self) -> None:
        self._over = asyncio.Event()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
                body = await reader.readexactly(int(length[1]) if length else 0)
                writer.write(HEAD)
                async for delta in self._reply(body):
                    writer.write(_chunk(delta))
                writer.write(_chunk({}, end=True) + b"0\r\n\r\n")
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()

    async def _reply(self, body: bytes) -> AsyncIterator[Delta]:
        asked = STAMP.search(body)
        done = len(OPENAI_RESULT.findall(body))
        if asked is None:
            while not self._over.is_set():
                yield {"content": "word "}
                await asyncio.sleep(WORD_SECONDS)
        elif done < int(asked[1]):
            yield {"content": str(time.monotonic_ns())}
            await asyncio.sleep(CALL_SECONDS)
            function = {"name": "add", "arguments": json.dumps({"a": done, "b": 1})}
            yield {"tool_calls": [{"index": 0, "id": f"c{done}", "function": function}]}
        else:
            self._over.set()
            yield {"content": "Done."}


def _chunk(delta: Delta, *, end: bool = False) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": "stop" if end else None}
    data = json.dumps({"id": "c", "model": "m", "created": 1, "choices": [choice]})
    event = f"data: {data}\n\n" + ("data: [DONE]\n\n" if end else "")
    return b"%x\r\n%b\r\n" % (len(event), event.encode())


async def serve() -> None:
    """Serve until the standard input ends, so that no server outlives its owner."""
    server = await asyncio.start_server(Speaker().talk, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve())
