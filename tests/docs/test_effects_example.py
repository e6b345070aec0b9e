"""The example of docs/how-to/effects.md, as it stands there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import psycopg

from tests.support.command_line import heartbit
from tests.support.repository import ROOT

EXAMPLE = ROOT / "examples/effects"
PAGE = (ROOT / "docs/how-to/effects.md").read_text()
[TABLE] = re.findall(r"^#   (create table .*)$", (EXAMPLE / "heartbit.toml").read_text(), re.M)
SAID = """180 EUR
Room 12 is booked for Ada.
Ada has paid 180 EUR.
The letter to Ada is sent.
"""


def test_the_example_runs_in_one_process_and_writes_its_row(tmp_path: Path, postgres: str) -> None:
    """All four effects; the transactional tool commits its row."""
    folder = tmp_path / "effects"
    shutil.copytree(EXAMPLE, folder)
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("drop table if exists bookings")
        connection.execute(TABLE)
        done = heartbit(
            "run", "Book room 12 for Ada", cwd=folder, env={"HEARTBIT_DATABASE_URL": postgres}
        )
        assert (0, SAID) == (done.code, done.out), done.notes
        rows = connection.execute("select room, guest, length(guest_key) from bookings").fetchall()
        connection.execute("drop table bookings")
    assert [("12", "Ada", 8)] == rows
    assert "Ada 12\n" == (folder / "letters.txt").read_text()
    assert 1 == len(list((folder / "payments").iterdir()))


def test_without_a_database_it_says_what_to_set(tmp_path: Path) -> None:
    """Before anything is paid for."""
    folder = tmp_path / "effects"
    shutil.copytree(EXAMPLE, folder)
    done = heartbit("run", "Book room 12 for Ada", cwd=folder)
    assert 2 == done.code
    [note] = done.notes
    assert "Tool book_room is transactional: it needs a database" in note
    assert "HEARTBIT_DATABASE_URL" in note
    assert not (folder / "payments").exists()


def test_the_page_shows_the_tools_of_the_example() -> None:
    """By their names and parameters; what they do is shortened there."""
    shown = re.findall(r"^(?:async )?def (\w+)\((.*?)\)", PAGE, re.MULTILINE)
    there = re.findall(
        r"^(?:async )?def (\w+)\((.*?)\)", (EXAMPLE / "desk.py").read_text(), re.MULTILINE
    )
    assert 6 == len(shown)
    assert set(there) >= set(shown)
