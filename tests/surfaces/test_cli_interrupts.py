"""Ctrl-C, SIGTERM and pipes that close: the run is cancelled and what was used is told."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import SECONDS, configure, environment, heartbit, send, start
from tests.support.marks import slow
from tests.support.model_server import Call, Gate, ModelServer, Raw, Reply
from tests.support.model_wires import stream_events
from tests.support.repository import ROOT

# Every one of these starts programs.
pytestmark = pytest.mark.slow

HEADERS = {"content-type": "text/event-stream"}
HANGING = Raw(ending="hang")


def finished(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    out, err = process.communicate(timeout=SECONDS)
    assert b"Traceback" not in err, err.decode()
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_cancels_the_run_and_tells_what_was_used(
    tmp_path: Path, number: signal.Signals
) -> None:
    """The model hangs in the second turn; the first one was paid for."""
    first = Reply(text="Wait.", calls=(Call(name="list", arguments={"path": "."}),))
    with ModelServer([first, HANGING]) as server:
        configure(tmp_path, server.url, tools='"list"')
        process = start("run", "Go on", cwd=tmp_path)
        second = server.wait_for_requests(2)[1]
        send(process, number)
        code, out, err = finished(process)
        assert second.abandoned.wait(SECONDS)
    assert (3, "Wait.\n") == (code, out)
    assert ["cancelled", "10 tokens in, 5 out | 1 tool call | 2 turns"] == err.splitlines()[-2:]


def test_an_interrupt_reaches_the_sub_agents(tmp_path: Path) -> None:
    """Their usage is in the object, their calls are closed."""
    tasks = [{"agent": "researcher", "task": "Look"}, {"agent": "writer", "task": "Write"}]
    ask = Reply(calls=(Call(name="delegate_task", arguments={"tasks": tasks}),))
    with ModelServer([ask, HANGING, HANGING]) as server:
        configure(tmp_path, server.url, agents=("researcher", "writer"))
        process = start("run", "--json", "Go on", cwd=tmp_path)
        hanging = server.wait_for_requests(3)[1:]
        send(process, signal.SIGINT)
        code, out, _ = finished(process)
        assert [True, True] == [request.abandoned.wait(SECONDS) for request in hanging]
    output = json.loads(out)
    assert (3, "cancelled") == (code, output["status"])
    assert 10 == output["usage"]["input_tokens"]


def test_a_second_interrupt_ends_at_once(tmp_path: Path) -> None:
    """Even while a tool refuses to be cancelled."""
    (tmp_path / "stubborn.py").write_text(
        "import asyncio, heartbit\n"
        "@heartbit.tool\n"
        "async def stay() -> str:\n"
        "    '''Stay.'''\n"
        "    while True:\n"
        "        try:\n"
        "            print('staying', flush=True)\n"
        "            await asyncio.sleep(3600)\n"
        "        except asyncio.CancelledError:\n"
        "            pass\n"
    )
    with ModelServer([Reply(calls=(Call(name="stay"),))]) as server:
        configure(tmp_path, server.url, tools='"stubborn:stay"')
        process = start("run", "Go on", cwd=tmp_path)
        assert process.stdout is not None
        for _ in range(2):  # it says so once more each time it was cancelled
            assert b"staying\n" == process.stdout.readline()
            send(process, signal.SIGINT)
        code, _, _ = finished(process)
    assert 3 == code


@pytest.mark.slow
def test_an_interrupt_before_the_run_has_begun_is_a_cancelled_run(tmp_path: Path) -> None:
    """An MCP server that never answers keeps the run from opening."""
    with ModelServer(lambda request: HANGING) as server:
        table = f'mcp_servers = ["{server.url}/mcp"]\n'
        path = configure(tmp_path, server.url)
        path.write_text(path.read_text() + table)
        process = start("run", "--json", "Go on", cwd=tmp_path)
        server.wait_for_requests(1)
        send(process, signal.SIGINT)
        code, out, err = finished(process)
    assert (3, "cancelled") == (code, json.loads(out)["status"])
    assert "cancelled" in err.splitlines()


def test_a_reader_that_leaves_ends_the_run_quietly(tmp_path: Path) -> None:
    """`heartbit run ... | head -1`: nothing is written to stderr about it, nothing more is paid."""
    gate = Gate()
    events = stream_events("anthropic", Reply(text="one\ntwo\n" * 4, piece=4))
    slow = Raw(headers=HEADERS, chunks=(*events[:4], gate, *events[4:6]), ending="hang")
    with ModelServer([slow]) as server:
        configure(tmp_path, server.url)
        process = start("run", "Go on", cwd=tmp_path)
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"one\n" == process.stdout.readline()
        process.stdout.close()
        gate.open()
        err = process.stderr.read().decode()
        code = process.wait(SECONDS)
        process.stderr.close()
        assert server.requests[0].abandoned.wait(SECONDS)
    assert (3, []) == (code, [line for line in err.splitlines() if not line.startswith("[")])


def test_an_interrupt_while_the_program_starts_is_quiet(tmp_path: Path) -> None:
    """Before there is a run: exit code 3 and not a word, whatever was being imported."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == os.environ.get('INTERRUPT_AT'):\n"
        "            signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )

    for module in ("heartbit.cli.entry", "click", "heartbit.cli.run", "heartbit.cli.session"):
        env = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "INTERRUPT_AT": module}
        done = heartbit("run", "Go on", cwd=tmp_path, env=env)
        assert (3, "", "") == (done.code, done.out, done.err.strip()), module


def test_an_interrupt_after_the_end_changes_nothing(tmp_path: Path) -> None:
    """The answer is complete, so the exit code stays that of the run."""

    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, signal\natexit.register(lambda: signal.raise_signal(signal.SIGINT))\n"
    )
    with ModelServer(["Done."]) as server:
        configure(tmp_path, server.url)
        env = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
        done = heartbit("run", "Go on", cwd=tmp_path, env=env)
    assert (0, "Done.\n") == (done.code, done.out)
    assert "Traceback" not in done.err


@pytest.mark.parametrize("closed", [">&- 2>&- <&-", *slow(">&-", "2>&-", "<&-")])
def test_a_closed_stream_is_no_reason_to_fail(tmp_path: Path, closed: str) -> None:
    """As a supervisor may start us."""
    with ModelServer(["Done."]) as server:
        configure(tmp_path, server.url)
        done = subprocess.run(
            ["/bin/sh", "-c", f'"$0" -m heartbit run Go on {closed}', sys.executable],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    assert 0 == done.returncode, done.stderr
    assert b"Traceback" not in done.stderr
