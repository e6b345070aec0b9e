"""The tutorial and the operations page: what they tell people to type works as it stands there."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import psycopg
import pytest

from tests.support.command_line import COMMAND, Done, environment, heartbit
from tests.support.repository import ROOT
from tests.support.stages import ClockedJournal, Stage
from tests.surfaces.test_dev import folder, started

__all__ = ["folder"]

TUTORIAL = (ROOT / "docs/tutorial.md").read_text()
OPERATIONS = (ROOT / "docs/how-to/operations.md").read_text()
PROMPT = "Tell Ada when the desk is open on Monday."


def block(text: str, language: str, number: int = 0) -> str:
    """A code block of a page."""
    found = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return str(found[number])


@pytest.fixture
def desk(folder: Path) -> Path:
    """The files of the tutorial."""
    (folder / "desk.py").write_text(block(TUTORIAL, "python", 0))
    (folder / "desk_script.py").write_text(block(TUTORIAL, "python", 1))
    (folder / "heartbit.toml").write_text(block(TUTORIAL, "toml"))
    return folder


@pytest.mark.slow
def test_the_agent_of_the_tutorial_works_in_one_process(desk: Path) -> None:
    """It is valid, and waits for a human before the note is sent."""
    checked = heartbit("config", "check", cwd=desk)
    assert (0, "") == (checked.code, checked.err)
    done = heartbit("run", "--json", PROMPT, cwd=desk)
    assert 4 == done.code, done.err
    output = json.loads(done.out)
    assert ["send_note"] == [call["name"] for call in output["pending"][0]["calls"]]
    assert not (desk / "notes.txt").exists()


@pytest.mark.slow
def test_the_agent_of_the_tutorial_survives_the_end_of_all_processes(desk: Path) -> None:
    """Submitted, left alone by everybody, started again, approved, followed, replayed, forked."""
    state = {"XDG_STATE_HOME": str(desk.parent / "state")}

    def command(*arguments: str) -> Done:
        done = heartbit(*arguments, cwd=desk, env=state)
        assert 0 == done.code, done.err
        return done

    with started(desk):
        run_id = command("submit", PROMPT).out.strip()
        entries = (json.loads(line) for line in _lines(desk, state, "watch", "--json", run_id))
        assert any(entry["type"] == "approval_requested" for entry in entries)
    with started(desk):
        assert "waiting" in command("status", run_id).out
        command("approve", run_id)
        assert "Done: Sent to Ada." in command("result", run_id, "--wait", "30").out
        assert "Done: Sent to Ada." in command("watch", run_id).out
        assert "send_note" in command("replay", run_id).out
        forked = command("fork", run_id, "--from-turn", "2").out.strip()
        assert forked != run_id
        command("doctor")
    assert 1 == len((desk / "notes.txt").read_text().splitlines())


def _lines(desk: Path, state: dict[str, str], *arguments: str) -> list[str]:
    """What a command prints until the run waits for a human."""
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=desk,
        env=environment(state),
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        found = []
        for line in process.stdout:
            found.append(line)
            if "approval_requested" in line:
                process.kill()
    return found


def test_old_runs_are_forgotten_as_the_operations_page_says(postgres: str) -> None:
    """With everything that belongs to them, and no run that has not ended for long."""
    stage = Stage(ClockedJournal(postgres))
    ended, under_way = stage.open(), stage.open()
    stage.finish(ended)
    statement = block(OPERATIONS, "sql")
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(statement.encode())
        assert 2 == len(connection.execute("select from runs").fetchall())
        connection.execute(statement.replace("90 days", "0 days").encode())
        left = connection.execute("select id::text from runs").fetchall()
        events = connection.execute("select distinct run_id::text from run_events").fetchall()
    stage.journal.close()
    assert ([(under_way,)], [(under_way,)]) == (left, events)
