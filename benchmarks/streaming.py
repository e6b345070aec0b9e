"""How long the first text of a turn is on its way from a worker to a subscriber.

Two processes and a real Valkey; the text is the time it was spoken at, by a clock that both share.
Beside it stands a bare XADD and XREAD. Other runs of the worker speak at the same time.

python -m benchmarks.streaming                  # shows the table
python -m benchmarks.streaming bare|heartbit redis://...       # a subscriber; prints milliseconds
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, aclosing, contextmanager
from pathlib import Path

import redis

from benchmarks.report import Found
from heartbit.core.agent import AgentDefinition
from heartbit.core.events import RunStarted
from heartbit.core.stream import RunIdentity
from heartbit.embedded import EmbeddedValkey
from heartbit.stores.journal import NewRun
from heartbit.stores.memory_journal import InMemoryJournal
from heartbit.stores.redis_client import quick_client
from heartbit.stores.stream_reader import StreamReader
from heartbit.stores.streams import StreamWriter

TURNS = 300
PAUSE_SECONDS = 0.01
OTHER_RUNS = 50
RUN = "measured"
BARE = "bare"

Speak = Callable[[int], None]


def measure() -> list[Found]:
    """Milliseconds that 99 of a hundred first texts do not exceed."""
    with valkey() as url:
        bare = percentile(_taken("bare", url, _bare(url)), 99)
        with quick_client(url) as client:
            writer = StreamWriter(client)
            with _others_speaking(writer):
                ours = percentile(_taken("heartbit", url, _heartbit(writer)), 99)
            writer.close()
    return [Found("first_text", bare, ours, ours)]


def percentile(values: list[float], percent: int) -> float:
    """The value that so many percent do not exceed."""
    return statistics.quantiles(values, n=100)[percent - 1]


@contextmanager
def valkey() -> Iterator[str]:
    """The url of a server of our own."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="heartbit-")))
        directory.chmod(0o711)  # as root the server is another user
        yield stack.enter_context(EmbeddedValkey(directory / "valkey", durable=False)).url


def _taken(side: str, url: str, speak: Speak) -> list[float]:
    """Speak to a subscriber in a process of its own, and hear how long each turn took."""
    command = [sys.executable, "-m", "benchmarks.streaming", side, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as subscriber:
        assert subscriber.stdout
        subscriber.stdout.readline()  # it listens
        for turn in range(TURNS):
            speak(turn)
            time.sleep(PAUSE_SECONDS)
        taken: list[float] = json.loads(subscriber.stdout.read())
    return taken


def _heartbit(writer: StreamWriter) -> Speak:
    return lambda turn: writer.listener(_identity(RUN), f"{turn}/model", 1).text(_now())


def _bare(url: str) -> Speak:
    client = quick_client(url)

    def speak(_: int) -> None:
        client.xadd(BARE, {"text": _now()})

    return speak


@contextmanager
def _others_speaking(writer: StreamWriter) -> Iterator[None]:
    """What the worker's other runs say meanwhile: fifty replies of a hundred words per second."""
    listeners = [writer.listener(_identity(f"other-{n}"), "1/model", 1) for n in range(OTHER_RUNS)]
    over = threading.Event()

    def speak() -> None:
        while not over.wait(0.01):
            for listener in listeners:
                listener.text("word ")

    thread = threading.Thread(target=speak)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _now() -> str:
    return str(time.monotonic_ns())


def _since(text: str) -> float:
    return (time.monotonic_ns() - int(text)) / 1e6


def _identity(run_id: str) -> RunIdentity:
    return RunIdentity(run_id=run_id, root_run_id=run_id, agent="speaker")


async def _subscribe(url: str) -> list[float]:
    """Follow the run as `heartbit watch` does."""
    journal = InMemoryJournal()
    start = RunStarted(
        prompt="Speak.", definition=AgentDefinition(name="speaker", system_prompt="You speak.")
    )
    journal.open_run(NewRun(run_id=RUN, task_id=RUN, root_run_id=RUN, start=start, steps=()))
    taken: list[float] = []
    async with aclosing(StreamReader(url, journal).follow(RUN)) as items:
        async for item in items:
            if item.entry["type"] == "run_started":
                print("listening", flush=True)
                continue
            taken.append(_since(item.entry["text"]))
            if len(taken) == TURNS:
                break
    return taken


def _subscribe_bare(url: str) -> list[float]:
    taken: list[float] = []
    last = b"0-0"
    print("listening", flush=True)
    with redis.Redis.from_url(url, socket_timeout=None) as client:
        while len(taken) < TURNS:
            ((_, entries),) = client.xread({BARE: last}, block=5000)
            taken += [_since(fields[b"text"].decode()) for _, fields in entries]
            last = entries[-1][0]
    return taken


def main(arguments: list[str]) -> None:
    """Show what was measured, or be the subscriber of one side."""
    match arguments:
        case ["bare", url]:
            print(json.dumps(_subscribe_bare(url)))
        case ["heartbit", url]:
            print(json.dumps(asyncio.run(_subscribe(url))))
        case _:
            for found in measure():
                print(f"{found.key}: bare {found.beside:.2f} ms, heartbit {found.ours:.2f} ms")


if __name__ == "__main__":
    main(sys.argv[1:])
