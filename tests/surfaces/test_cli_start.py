"""Starting the command line: what it imports, where it can be called from, what its page says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import (
    SECONDS,
    configure,
    environment,
    heartbit,
    modules_after,
)
from tests.support.model_server import ModelServer
from tests.support.repository import ROOT

PAGE = ROOT / "docs" / "reference" / "cli.md"


def test_a_run_imports_only_what_it_uses(tmp_path: Path) -> None:
    """No broker, no database, no MCP; nothing that draws where nobody looks."""
    with ModelServer(["Hello."]) as server:
        configure(tmp_path, server.url)
        loaded = modules_after("run", "Go on", cwd=tmp_path)
    assert "heartbit.orchestrator" in loaded
    unwanted = {"celery", "kombu", "psycopg", "redis", "mcp", "rich", "prompt_toolkit"}
    assert set() == loaded & unwanted


def test_help_imports_hardly_more_than_click(tmp_path: Path) -> None:
    """So that it is there at once."""
    loaded = modules_after("--help", cwd=tmp_path)
    unwanted = {"asyncio", "pydantic", "httpx2", "jsonschema", "rich", "celery", "logging"}
    assert set() == loaded & unwanted


def test_importing_the_package_of_the_command_line_imports_not_even_click() -> None:
    """Ctrl-C cannot hit an import before there is somebody to catch it."""
    code = "import sys, heartbit.cli; sys.exit('click' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), check=False)
    assert 0 == done.returncode


def test_version_and_help(tmp_path: Path) -> None:
    """On stdout, exit code 0; without any argument the help is an answer to a mistake."""
    from heartbit import __version__

    assert (0, f"heartbit, version {__version__}\n", "") == heartbit("--version", cwd=tmp_path)
    for flag in ("--help", "-h"):
        done = heartbit(flag, cwd=tmp_path)
        assert (0, "") == (done.code, done.err)
        assert "Give PROMPT to the agents and stream the answer to stdout." in done.out
    assert (2, "") == heartbit(cwd=tmp_path)[:2]


def test_the_reference_page_is_the_help() -> None:
    """`python -m heartbit.cli.reference > docs/reference/cli.md` writes it."""
    done = subprocess.run(
        [sys.executable, "-m", "heartbit.cli.reference"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        check=True,
    )
    assert PAGE.read_text() == done.stdout.decode()


def celery(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`celery -A heartbit heartbit ...`."""
    return subprocess.run(
        [sys.executable, "-m", "celery", "-A", "heartbit", "heartbit", *arguments],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.mark.slow
def test_the_commands_are_there_inside_celery(tmp_path: Path) -> None:
    """The same ones, with the same exit codes and no traceback."""
    from importlib.metadata import entry_points

    if not entry_points(group="celery.commands", name="heartbit"):
        pytest.skip("heartbit is not installed: make setup")
    with ModelServer(["Hello."]) as server:
        configure(tmp_path, server.url)
        done = celery("run", "Go on", cwd=tmp_path)
    assert (0, "Hello.\n") == (done.returncode, done.stdout)
    wrong = celery("config", "check", "--config", "no.toml", cwd=tmp_path)
    assert 2 == wrong.returncode
    (tmp_path / "heartbit.toml").write_text("odd = 1")
    wrong = celery("run", "Go on", cwd=tmp_path)
    assert (2, "") == (wrong.returncode, wrong.stdout)
    assert "unknown key 'odd'" in wrong.stderr
    assert "Traceback" not in wrong.stderr
