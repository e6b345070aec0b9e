"""How long the first text of a turn is on its way to a subscriber.

The text is the time it was spoken at, by a clock that all processes share. First from a listener
alone, two processes and a real Valkey, beside a bare XADD and XREAD; then from a model server
through everything there is: provider, durable worker with its journal, stream. Other runs of the
same process speak at the same time.

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

from benchmarks.fleet import Fleet, fleet, services, until
from benchmarks.report import Found
from benchmarks.rig import server_of
from heartbit.core.agent import AgentDefinition
from heartbit.core.events import RunStarted
from heartbit.core.stream import RunIdentity
from heartbit.embedded import EmbeddedValkey
from heartbit.stores.journal import NewRun
from heartbit.stores.memory_journal import InMemoryJournal
from heartbit.stores.postgres import PostgresJournal
from heartbit.stores.redis_client import quick_client
from heartbit.stores.stream_reader import StreamReader
from heartbit.stores.streams import StreamWriter

TURNS = 300
PAUSE_SECONDS = 0.01
OTHER_RUNS = 50
FLEET_TURNS, FLEET_OTHERS = 150, 10
# Said before the subscriber is there, or to a worker that is not warm yet.
FIRST_TURNS = 20
OPENED = "select count(*) from runs where id = '{}'"
RUN = "measured"
BARE = "bare"

Speak = Callable[[int], None]


def measure() -> list[Found]:
    """Milliseconds that 99 of a hundred first texts do not exceed."""
    listened = measure_listener()
    return [*listened, measure_fleet(listened[0].ours)]


def measure_listener() -> list[Found]:
    """From a listener, without a worker around it."""
    with valkey() as url:
        bare = percentile(_taken("bare", url, _bare(url)), 99)
        with quick_client(url) as client:
            writer = StreamWriter(client)
            with _others_speaking(writer):
                ours = percentile(_taken("heartbit", url, _heartbit(writer)), 99)
            writer.close()
    return [Found("first_text", bare, ours, ours)]


def measure_fleet(beside: float) -> Found:
    """From a model server, through a worker; `beside` it stands what the listener needs alone."""
    with (
        server_of("benchmarks.speaking_server") as model,
        services() as servers,
        fleet(servers, "speaking", model) as made,
    ):
        made.start_worker(threads=2 * FLEET_OTHERS)
        others = [made.send("Speak.") for _ in range(FLEET_OTHERS)]
        measured = made.send(f"stamp={FIRST_TURNS + FLEET_TURNS}")
        until(lambda: made.query(OPENED.format(measured.id)))
        taken = asyncio.run(_stamped(made, measured.id))
        made.results([measured, *others])
    assert len(taken) == FIRST_TURNS + FLEET_TURNS, f"{len(taken)} first texts came"
    ours = percentile(taken[FIRST_TURNS:], 99)
    return Found("first_text_fleet", beside, ours, ours)


async def _stamped(made: Fleet, run_id: str) -> list[float]:
    """Follow the run as `heartbit watch` does; only the first text of a turn is a time."""
    journal = PostgresJournal(made.database, pool_size=1)
    taken: list[float] = []
    try:
        async with aclosing(
            StreamReader(made.services.valkey.url, journal).follow(run_id)
        ) as items:
            async for item in items:
                if item.entry["type"] == "text_delta" and item.entry["text"].isdecimal():
                    taken.append(_since(item.entry["text"]))
                if len(taken) == FIRST_TURNS + FLEET_TURNS:
                    break
    finally:
        journal.close()
    return taken


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
