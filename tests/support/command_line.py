"""The real command line as a process of its own, on pipes or on a terminal of its own.

done = heartbit("run", "Hello", cwd=folder)
done.code, done.out, done.err

with Terminal("run", "Hello", cwd=folder) as terminal:
    terminal.wait_for("approve")
    terminal.type("a\\n")
    assert 0 == terminal.wait()
    terminal.screen
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.support.repository import ROOT

SECONDS = 15
COMMAND = [sys.executable, "-m", "heartbit"]
AGENT = """
[[agents]]
name = "{name}"
description = "{name}"
system_prompt = "You are {name}."
"""
LOADED_BY = """
import sys
from heartbit.cli import main
code = main(sys.argv[1:])
print("\\n".join(sorted(sys.modules)), file=sys.stderr)
sys.exit(code)
"""


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def notes(self) -> list[str]:
        """The lines of stderr."""
        return self.err.splitlines()


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What the command sees: this repository's heartbit, a plain terminal."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TERM": "xterm",
        "COLUMNS": "100",
        "PROMPT_TOOLKIT_NO_CPR": "1",
        **(extra or {}),
    }


def heartbit(
    *arguments: str, cwd: Path, stdin: str | bytes = b"", env: Mapping[str, str] | None = None
) -> Done:
    """Run a command to its end, on pipes."""
    given = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        input=given,
        env=environment(env),
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def start(*arguments: str, cwd: Path) -> subprocess.Popen[bytes]:
    """Start a command on pipes; the caller ends it."""
    return subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def configure(
    folder: Path,
    url: str,
    *,
    wire: str = "anthropic",
    agents: tuple[str, ...] = ("researcher",),
    tools: str = "",
    more: str = "",
) -> Path:
    """A heartbit.toml in `folder` for a provider at `url`; `tools` is the agents' list."""
    base = f"{url}/v1" if wire == "openai" else url
    listed = f"tools = [{tools}]\n" if tools else ""
    text = (
        f'[provider]\nname = "{wire}"\nmodel = "m"\napi_key = "sk-hush"\nbase_url = "{base}"\n'
        "[provider.retry]\nmax_retries = 0\nbase_delay_ms = 1\n"
        + "".join(AGENT.format(name=name) + listed for name in agents)
        + more
    )
    path = folder / "heartbit.toml"
    path.write_text(text)
    return path


def modules_after(*arguments: str, cwd: Path) -> set[str]:
    """The top-level modules and our own ones that a command has imported."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED_BY, *arguments],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    return set(done.stderr.splitlines())


class Terminal:
    """A command on a pseudo-terminal of its own, as its controlling terminal."""

    def __init__(
        self,
        *arguments: str,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        stdin: int | None = None,
        stdout: int | None = None,
    ) -> None:
        self._master, slave = os.openpty()
        fcntl.ioctl(
            slave, termios.TIOCSWINSZ, (40).to_bytes(2, sys.byteorder) + b"\x64\x00" + b"\0" * 4
        )
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=cwd,
            env=environment(env),
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0),
            stdin=slave if stdin is None else stdin,
            stdout=slave if stdout is None else stdout,
            stderr=slave,
        )
        os.close(slave)
        self.raw = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        os.close(self._master)

    def wait_for(self, text: str) -> None:
        """Read until `text` was shown after all that was waited for before."""
        deadline = time.monotonic() + SECONDS
        start = getattr(self, "_seen", 0)
        while text not in self.raw[start:]:
            assert self._read(deadline), f"{text!r} never came; the terminal has:\n{self.raw}"
        self._seen = self.raw.index(text, start) + len(text)

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    def interrupt(self) -> None:
        """Press Ctrl-C: the terminal makes a signal of it, unless the program reads keys."""
        self.type("\x03")

    def wait(self) -> int:
        """Read to the end and give the exit code."""
        deadline = time.monotonic() + SECONDS
        while self._read(deadline):
            pass
        return self.process.wait(max(0.1, deadline - time.monotonic()))

    @property
    def screen(self) -> list[str]:
        """What a person sees at the end, scrolled-out lines included."""
        return render(self.raw)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0, deadline - time.monotonic()))
        try:
            chunk = os.read(self._master, 65_536) if ready else b""
        except OSError:  # how Linux says that the other side is closed
            chunk = b""
        self.raw += chunk.decode(errors="replace")
        return bool(chunk)


_TOKEN = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|\x1b.|(.)", re.DOTALL)


def render(raw: str) -> list[str]:
    """The lines that a terminal shows for `raw`: enough of one for what rich draws."""
    lines, row, column = [""], 0, 0
    for amount, control, character in _TOKEN.findall(raw):
        count = int(amount) if amount.isdigit() else 1
        if control == "A":
            row = max(0, row - count)
        elif control == "K":
            lines[row] = "" if amount == "2" else lines[row][:column]
        elif character == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif character == "\r":
            column = 0
        elif character:
            lines[row] = lines[row].ljust(column)[:column] + character + lines[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]


def send(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a process that we started."""
    os.kill(process.pid, number)
