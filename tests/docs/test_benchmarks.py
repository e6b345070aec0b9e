"""The README's table of speeds is one that the benchmarks wrote, whole and by nobody's hand."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from benchmarks import (
    durable_crowd,
    durable_disk,
    durable_takeover,
    durable_turns,
    knowledge,
    memory,
    report,
    streaming,
)
from benchmarks.report import END, HEADER, ROWS, START, Found
from tests.support.repository import ROOT

BLOCK = (ROOT / "README.md").read_text().partition(START + "\n")[2].partition("\n" + END)[0]
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


def shape(table: str) -> list[str]:
    """Lines of a table with every figure left out."""
    return [NUMBER.sub("#", line) for line in table.splitlines() if line.startswith("|")]


def test_the_table_has_every_row_and_only_those() -> None:
    """Figures differ from run to run; rows, units and goals are those of the benchmarks."""
    nothing = report.render(Found(key, 0, 0, 0) for key in ROWS)
    assert shape(nothing) == shape(BLOCK)


def test_the_table_says_where_it_comes_from() -> None:
    """Command, date, commit, machine and Python, in the sentence below the table."""
    told = r"Measured by `make bench` on \d{4}-\d\d-\d\d at commit `\w{7,}\+?`: \d+ cores \(.+\), "
    assert re.match(told + r"\w+, Python 3\.\d+\.\d+\.", BLOCK.splitlines()[-1])


def test_writing_replaces_what_stands_between_the_marks_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a second time, and whatever characters the table has."""
    page = tmp_path / "README.md"
    page.write_text(f"before\n{START}\nold\n{END}\nafter\n")
    monkeypatch.setattr(report, "README", page)
    for text in (f"{HEADER}\n| \\1 |", "new"):
        report.write(text)
        assert f"before\n{START}\n{text}\n{END}\nafter\n" == page.read_text()


def test_what_could_not_be_measured_is_no_number() -> None:
    """A peer whose packages cannot be installed here."""
    line = ROWS["dbos_each"].render(Found("dbos_each", math.nan, 1.0, math.nan))
    assert "| beside DBOS | not installed | 1.00 ms | not installed |  |" == line


@pytest.mark.slow
def test_the_benchmarks_of_memory_and_knowledge_run_from_end_to_end() -> None:
    """As small as they can be."""
    found = [*memory.measure(count=30, queries=2), *knowledge.measure(files=3)]
    expected = [key for key in ROWS if key.startswith(("recall_", "knowledge_"))]
    assert sorted(expected) == sorted(each.key for each in found)


@pytest.mark.slow
def test_the_durable_benchmarks_run_from_end_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """On real servers and workers, as small as they can be; what they find is not looked at."""
    monkeypatch.setattr(durable_turns, "RUNS", 1)
    monkeypatch.setattr(durable_turns, "TREES", 1)
    monkeypatch.setattr(durable_crowd, "SETTLED_SECONDS", 0)
    found = [
        *durable_turns.measure(1, peers=()),
        *durable_disk.measure(runs=1, turns=12),
        *durable_crowd.measure(held=3, waiting=20),
        *durable_takeover.measure(lease_seconds=1),
    ]
    streamed = {"first_text", "first_text_fleet"}
    assert sorted({*report.DURABLE} - streamed) == sorted(each.key for each in found)


@pytest.mark.slow
def test_the_first_text_is_measured_through_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every turn's first text has come, each with the time at which it was sent."""
    monkeypatch.setattr(streaming, "FLEET_TURNS", 3)
    monkeypatch.setattr(streaming, "FLEET_OTHERS", 1)
    found = streaming.measure_fleet(beside=1.0)
    assert ("first_text_fleet", True) == (found.key, found.ours > 0)
