"""bash: one working directory per agent, no secrets, bounded output, and nothing left running."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbit.tools.builtin import shell
from heartbit.tools.builtin.process import Output, collecting, run_group
from heartbit.tools.builtin.shell import harmless
from tests.support.builtin_tools import ToolUser, until


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToolUser:
    # Where nobody collects orphans, a group of dead processes looks alive for the whole grace.
    monkeypatch.setattr(shell, "GRACE_SECONDS", 0.5)
    return ToolUser(tmp_path)


def until_gone(pid: int) -> None:
    """Wait for the end of a process that was killed: a signal says nothing of when it arrives."""
    end = time.monotonic() + 10
    while alive(pid):
        assert time.monotonic() < end, f"process {pid} lives on"
        time.sleep(0.005)


def alive(pid: int) -> bool:
    """Whether the process runs: one that ended but was not yet collected does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_output_and_exit_code_come_back_in_the_order_written(agent: ToolUser) -> None:
    shown = agent.ok("bash", command="echo one; echo two >&2; printf three")
    assert "one\ntwo\nthree\n[exit code: 0]" == shown
    assert "[exit code: 0]" == agent.ok("bash", command="true")


def test_a_command_that_fails_is_an_error_result_with_its_output(agent: ToolUser) -> None:
    assert "why\n[exit code: 3]" == agent.fails("bash", command="echo why; exit 3")
    assert "[exit code: 127]" in agent.fails("bash", command="no-such-program")
    assert "syntax error" in agent.fails("bash", command="if then")
    assert "[ended by signal SIGKILL]" == agent.fails("bash", command="kill -9 $$")


def test_the_working_directory_is_kept_from_call_to_call(agent: ToolUser, tmp_path: Path) -> None:
    (tmp_path / "new\nline").mkdir()
    assert f"{tmp_path}\n[exit code: 0]" == agent.ok("bash", command="pwd")
    agent.fails("bash", command="mkdir sub && cd sub && exit 1")
    assert f"{tmp_path}/sub\n[exit code: 0]" == agent.ok("bash", command="pwd")
    agent.ok("bash", command="set -e; cd ..; pwd() { echo /; }; (cd /)")
    assert f"{tmp_path}\n[exit code: 0]" == agent.ok("bash", command="pwd")
    agent.ok("bash", command="cd 'new\nline'")
    assert f"{tmp_path}/new\nline\n[exit code: 0]" == agent.ok("bash", command="pwd")


def test_a_working_directory_that_was_removed_falls_back_to_the_workspace(
    agent: ToolUser, tmp_path: Path
) -> None:
    agent.ok("bash", command="mkdir sub && cd sub")
    (tmp_path / "sub").rmdir()
    assert f"{tmp_path}\n[exit code: 0]" == agent.ok("bash", command="pwd")


def test_one_agents_cd_does_not_move_another_agent(agent: ToolUser, tmp_path: Path) -> None:
    other = ToolUser(tmp_path)
    agent.ok("bash", command="mkdir sub && cd sub")
    assert f"{tmp_path}\n[exit code: 0]" == other.ok("bash", command="pwd")
    assert f"{tmp_path}/sub\n[exit code: 0]" == agent.ok("bash", command="pwd")


def test_the_working_directory_is_kept_without_bash_too(
    agent: ToolUser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sh").symlink_to("/bin/sh")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    agent.ok("bash", command="cd bin")
    assert f"{tmp_path}/bin\n[exit code: 0]" == agent.ok("bash", command="pwd")


def test_without_any_shell_the_error_says_so(
    agent: ToolUser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "neither bash nor sh" in agent.fails("bash", command="true")


def test_no_secret_of_the_environment_reaches_a_command(
    agent: ToolUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "AWS_SECRET_ACCESS_KEY",
        "GITHUB_TOKEN",
        "DB_PASSWORD",
        "DATABASE_URL",
        "BASH_ENV",
    ):
        monkeypatch.setenv(name, "hunter2")
    monkeypatch.setenv("LC_TIME", "C")
    shown = agent.ok("bash", command="env; cat /proc/$$/environ | tr '\\0' '\\n'")
    assert "hunter2" not in shown
    assert "PATH=" in shown
    assert "LC_TIME=C" in shown


def test_only_harmless_variables_are_passed_on() -> None:
    environ = {"PATH": "/bin", "LC_ALL": "C", "HOME": "/h", "MY_KEY": "k", "HTTPS_PROXY": "u:p@h"}
    assert {"PATH": "/bin", "LC_ALL": "C", "HOME": "/h"} == harmless(environ)


def test_a_command_cannot_wait_for_input(agent: ToolUser) -> None:
    assert "[exit code: 1]" in agent.fails("bash", command="read answer")


@pytest.mark.parametrize("command", ["echo \0", "echo \ud800", "echo " + "x" * 3_000_000])
def test_a_command_that_cannot_be_started_is_an_error_result(agent: ToolUser, command: str) -> None:
    assert agent.fails("bash", command=command)


def test_of_a_flood_the_first_and_the_last_part_are_kept(agent: ToolUser) -> None:
    shown = agent.ok("bash", command="echo first; seq 1000000; echo last")
    assert shown.startswith("first\n1\n2\n")
    assert "bytes omitted]" in shown
    assert shown.endswith("\n1000000\nlast\n[exit code: 0]")
    assert 30_000 <= len(shown) < 30_100


def test_an_endless_flood_is_ended_by_the_time_limit(agent: ToolUser) -> None:
    shown = agent.fails("bash", command="yes", timeout_seconds=0.2)
    assert len(shown) < 30_200
    assert "[timed out after 0.2 seconds" in shown


def test_output_that_is_no_utf8_is_shown_with_replacements(agent: ToolUser) -> None:
    assert "gr\ufffdn\n[exit code: 0]" == agent.ok("bash", command=r"printf 'gr\374n'")


def test_a_process_in_the_background_neither_delays_the_call_nor_survives_it(
    agent: ToolUser,
) -> None:
    started = time.monotonic()
    shown = agent.ok("bash", command="sleep 1000 & echo $!")
    assert time.monotonic() - started < 30
    until_gone(int(shown.split("\n")[0]))


def test_a_process_that_left_the_group_does_not_delay_the_call(
    agent: ToolUser, tmp_path: Path
) -> None:
    daemon = "setsid sh -c 'echo $$ > pid; exec sleep 1000' & until [ -s pid ]; do sleep 0.01; done"
    started = time.monotonic()
    agent.ok("bash", command=daemon)
    os.kill(pids(tmp_path, "pid")[0], signal.SIGKILL)
    assert time.monotonic() - started < 30


def test_the_time_limit_ends_the_whole_process_group(agent: ToolUser, tmp_path: Path) -> None:
    command = "(sleep 1000 & echo $! > grandchild; wait) & echo $! > child; wait"
    shown = agent.fails("bash", command=command, timeout_seconds=0.5)
    assert "[timed out after 0.5 seconds; the command and what it started were ended]" == shown
    for pid in pids(tmp_path, "child", "grandchild"):
        until_gone(pid)


def test_cancelling_the_call_ends_the_whole_process_group(agent: ToolUser, tmp_path: Path) -> None:
    command = "(sleep 1000 & echo $! > grandchild; wait) & echo $! > child; wait"

    async def cancel() -> None:
        call = asyncio.create_task(agent.call("bash", command=command))
        await until(lambda: len(pids(tmp_path, "child", "grandchild")) == 2)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(cancel())
    for pid in pids(tmp_path, "child", "grandchild"):
        until_gone(pid)


def pids(directory: Path, *names: str) -> list[int]:
    """The process ids that a command has written into files."""
    texts = ((directory / name).read_text() for name in names if (directory / name).exists())
    return [int(text) for text in texts if text.endswith("\n")]


DEAF = "trap '' TERM; echo $$ > pid; while :; do sleep 0.05; done"


def test_what_ignores_the_polite_signal_is_killed(tmp_path: Path) -> None:
    async def run() -> int | None:
        with collecting(Output(1000)) as stdout:
            return await run_group(
                ["/bin/sh", "-c", DEAF],
                stdout=stdout,
                cwd=str(tmp_path),
                env={"PATH": os.environ["PATH"]},
                timeout=0.3,
                grace=0.1,
            )

    assert asyncio.run(run()) is None
    assert not alive(pids(tmp_path, "pid")[0])


def test_cancelling_twice_kills_at_once_what_ignores_the_polite_signal(tmp_path: Path) -> None:
    async def run() -> None:
        with collecting(Output(1000)) as stdout:
            call = asyncio.create_task(
                run_group(
                    ["/bin/sh", "-c", DEAF],
                    stdout=stdout,
                    cwd=str(tmp_path),
                    env={"PATH": os.environ["PATH"]},
                    timeout=60,
                    grace=60,
                )
            )
            await until(lambda: bool(pids(tmp_path, "pid")))
            pid = pids(tmp_path, "pid")[0]
            call.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            call.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await call
            await until(lambda: not alive(pid))

    asyncio.run(run())


def test_a_command_can_end_its_children_politely(agent: ToolUser, tmp_path: Path) -> None:
    command = "trap 'echo bye > said; exit' TERM; while :; do sleep 0.02; done"
    agent.fails("bash", command=command, timeout_seconds=0.3)
    assert "bye\n" == (tmp_path / "said").read_text()


def test_many_commands_run_at_once_and_leave_no_descriptor_open(agent: ToolUser) -> None:
    async def run_many() -> list[str]:
        await agent.call("bash", command="true")
        before = os.listdir("/proc/self/fd")
        outputs = await asyncio.gather(
            *(agent.call("bash", command=f"echo {n}") for n in range(20))
        )
        assert len(before) == len(os.listdir("/proc/self/fd"))
        return [output.content.split("\n")[0] for output in outputs]

    assert [str(n) for n in range(20)] == asyncio.run(run_many())


@given(st.lists(st.binary(max_size=9)), st.integers(3, 12).map(lambda half: 2 * half))
def test_output_keeps_the_first_and_last_bytes_however_they_arrive(
    pieces: list[bytes], limit: int
) -> None:
    output, whole = Output(limit), b"".join(pieces)
    for piece in pieces:
        output.feed(piece)
    assert len(whole) == output.total
    if len(whole) <= limit:
        assert whole.decode("utf-8", "replace") == output.text()
    else:
        assert f"[{len(whole) - limit} bytes omitted]" in output.text()


@given(st.text(min_size=20))
def test_characters_cut_by_the_limit_are_dropped_and_not_mangled(text: str) -> None:
    data = text.encode("utf-8", "replace")
    output = Output(16)
    output.feed(data)
    assert "\ufffd" not in output.text() or "\ufffd" in text or len(data) <= 16
