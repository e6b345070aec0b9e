"""make hands a prompt to the program as it was typed, and each test to one target at least."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.repository import ROOT

ECHO = """#!/usr/bin/env python3
import json, sys
print(json.dumps(sys.argv[1:]))
"""


@pytest.fixture
def environment_folder(tmp_path: Path) -> Path:
    """A finished environment whose python says what it was called with."""
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(ECHO)
    python.chmod(0o755)
    (tmp_path / "venv" / ".installed").touch()
    return tmp_path / "venv"


def make_run(folder: Path, *arguments: str, **extra: str) -> list[str]:
    """The arguments that `make run` gives to the program."""
    environ = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    done = subprocess.run(
        ["make", "-s", "run", f"VENV={folder}", *arguments],
        cwd=ROOT,
        env=environ | extra,
        capture_output=True,
        text=True,
        check=True,
    )
    got: list[str] = json.loads(done.stdout)
    return got


PROMPTS = [
    "plain",
    "it's \"quoted\" and 'quoted'",
    "costs $5, $HOME, $$ and ${PATH}",
    "two\nlines",
    "`id` $(id) ; id | id && id # id",
    "back\\slash \\n and 100 %",
    "blanks after  ",
    "ünïcödé 🐍",
]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_prompt_reaches_the_program_as_typed(environment_folder: Path, prompt: str) -> None:
    """Given as PROMPT=..., neither make nor the shell reads into it."""
    assert ["-m", "heartbit.demo", prompt] == make_run(environment_folder, f"PROMPT={prompt}")


def test_a_prompt_in_the_environment_counts_too(environment_folder: Path) -> None:
    """`PROMPT=... make run` is the other way people write it."""
    got = make_run(environment_folder, PROMPT="costs $5 $(shell echo no)")
    assert "costs $5 $(shell echo no)" == got[-1]


def test_a_prompt_never_runs_as_a_command(environment_folder: Path, tmp_path: Path) -> None:
    """make's own $(shell ...) in a prompt is text as well."""
    trap = tmp_path / "trap"
    make_run(environment_folder, f"PROMPT=$(shell touch {trap}) `touch {trap}` $(touch {trap})")
    assert not trap.exists()


def test_without_a_prompt_the_program_chooses_its_own(environment_folder: Path) -> None:
    """No argument is given, rather than an empty one."""
    assert ["-m", "heartbit.demo"] == make_run(environment_folder)


@pytest.mark.parametrize(
    ("target", "marks"),
    [("check", '"not slow and not chaos"'), ("test", '"not chaos"'), ("slow", "chaos")],
)
def test_each_target_runs_the_tests_it_is_there_for(target: str, marks: str) -> None:
    """What takes minutes is in `make slow` alone, all the rest in `make test`."""
    environ = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    done = subprocess.run(
        ["make", "--dry-run", target],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    [command] = [line for line in done.stdout.splitlines() if " -m pytest " in line]
    assert command.endswith(f" -m {marks}")
