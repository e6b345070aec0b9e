"""The README's table of speeds is one that the benchmarks wrote, whole and by nobody's hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import report
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
