"""`heartbit chaos` on one's own agents: what it prints, and that it touches nothing of theirs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.command_line import heartbit, start
from tests.support.repository import ROOT

CONFIG = """
[provider]
name = "anthropic"

[[agents]]
name = "solo"
description = "Does everything."
system_prompt = "Do it."
tools = ["errands:touch"]

[database]
url = "postgresql://nobody@127.0.0.1:1/nothing"

[celery]
broker_url = "redis://127.0.0.1:1/0"
steps = "batched"
"""
TOOLS = """
from pathlib import Path

import heartbit


@heartbit.tool
def touch(path: str) -> str:
    Path(__file__).with_name("touched").write_text(path)
    return path
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with an agent whose tool leaves a trace."""
    (tmp_path / "heartbit.toml").write_text(CONFIG)
    (tmp_path / "errands.py").write_text(TOOLS)
    return tmp_path


@pytest.mark.slow
def test_it_disturbs_ones_own_agents_and_touches_nothing_of_theirs(folder: Path) -> None:
    """No key, no database and no broker of the configuration is needed, and no tool is run."""
    with start("chaos", "heartbit.toml", "Go", "--json", cwd=folder) as command:
        out, err = command.communicate(timeout=110)
    assert 0 == command.returncode, err.decode()
    told = json.loads(out)
    boundaries = {fault["boundary"] for fault in told["faults"]}
    assert told["ok"]
    assert told["boundaries"] == len(boundaries) > 20
    assert {"kill", "freeze"} == {fault["fault"] for fault in told["faults"]}
    assert "solo: before append 1/tool/0" in boundaries
    assert "stubs in place of: touch (at_most_once)" in err.decode().splitlines()
    assert not (folder / "touched").exists()


HEADER = ["fault", "boundary", "seconds", "result", "journal", "tools", "turns", "late"]
ROW = re.compile(
    r"(kill|freeze) +(\w+(?: \(caller\))?: (?:before|after) \S.*?) +\d+\.\d(?: +(?:ok|\?)){5}"
)
LAST = re.compile(r"(\d+) boundaries, (\d+) faults, (\d+) without harm")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("example", "stubs"),
    [
        ("celery_tools", "lookup_invoice (pure), remind (at_most_once)"),
        (
            "effects",
            "book_room (transactional), pay (idempotent), price (pure), send_letter (at_most_once)",
        ),
    ],
)
def test_the_table_of_an_example_has_a_row_for_each_fault(example: str, stubs: str) -> None:
    """As docs/how-to/chaos.md shows it: a header, a row for each fault, and how many there were."""
    folder = ROOT / "examples" / example
    with start("chaos", "heartbit.toml", "Do what there is to do", cwd=folder) as command:
        out, err = command.communicate(timeout=110)
    assert 0 == command.returncode, out.decode() + err.decode()
    assert f"stubs in place of: {stubs}" in err.decode().splitlines()
    header, *rows, last = out.decode().splitlines()
    assert HEADER == header.split()
    found = [ROW.fullmatch(row) for row in rows]
    assert [] == [row for row, match in zip(rows, found, strict=True) if match is None]
    boundaries = {match[2] for match in found if match}
    counts = LAST.fullmatch(last)
    assert counts
    assert (len(boundaries), len(rows), len(rows)) == tuple(map(int, counts.groups()))
    assert len(boundaries) >= 40


def test_the_page_shows_what_the_command_prints() -> None:
    """The same header, rows of the same form, and a last line."""
    page = (ROOT / "docs/how-to/chaos.md").read_text()
    header, *rows, last = page.partition("\nfault ")[2].partition("```")[0].splitlines()
    assert HEADER == ["fault", *header.split()]
    assert all(ROW.fullmatch(row) for row in rows if row != "...")
    assert LAST.fullmatch(last)


def test_a_script_that_is_none_is_told_before_anything_is_started(folder: Path) -> None:
    """As every other mistake in a configuration."""
    done = heartbit("chaos", "heartbit.toml", "Go", "--script", "errands:none", cwd=folder)
    assert (2, "") == (done.code, done.out)
    assert 1 == len(done.notes)
